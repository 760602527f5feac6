//! Clusters in their table.

use rusqlite::{Connection, params};

use super::SqliteStore;
use super::convert::{millis, optional_time_at};
use crate::store::{ClusterRow, Clusters, SigningKeySet, StoreFuture};

impl Clusters for SqliteStore {
    fn clusters(&self) -> StoreFuture<'_, Vec<ClusterRow>> {
        Box::pin(self.reader.run(|tx| all(tx)))
    }

    fn save_cluster(&self, cluster: ClusterRow) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(1, move |tx| save(tx.conn, &cluster)))
    }
}

fn all(conn: &Connection) -> rusqlite::Result<Vec<ClusterRow>> {
    conn.prepare_cached(
        "SELECT name, uid, unreachable_since, issuer, signing_keys FROM cluster ORDER BY name",
    )?
    .query_map([], |row| {
        let (issuer, document): (Option<String>, Option<Vec<u8>>) = (row.get(3)?, row.get(4)?);
        let signing_keys = issuer.zip(document).map(|(issuer, document)| SigningKeySet {
            issuer,
            document: document.into(),
        });
        Ok(ClusterRow {
            name: row.get(0)?,
            uid: row.get(1)?,
            unreachable_since: optional_time_at(row, 2)?,
            signing_keys,
        })
    })?
    .collect()
}

fn save(conn: &Connection, cluster: &ClusterRow) -> rusqlite::Result<()> {
    let keys = cluster.signing_keys.as_ref();
    conn.prepare_cached(
        "INSERT OR REPLACE INTO cluster (name, uid, unreachable_since, issuer, signing_keys)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        cluster.name,
        cluster.uid,
        cluster.unreachable_since.map(millis),
        keys.map(|keys| &keys.issuer),
        keys.map(|keys| keys.document.as_ref()),
    ])?;
    Ok(())
}
