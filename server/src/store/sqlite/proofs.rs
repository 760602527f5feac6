//! Lists as evidence, in their tables.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension as _, params};
use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlNumber;
use signet_certs::serial::SerialNumber;

use super::SqliteStore;
use super::convert::{authority_at, crl_number_at, millis, parsed_at, time_at};
use super::writer::Tx;
use crate::audit_event::AuditEvent;
use crate::store::proofs::LISTS_KNOWN;
use crate::store::{ListProof, Proofs, StoreFuture, StoredCrl};

impl Proofs for SqliteStore {
    fn list_digest(&self, authority: AuthorityId, number: CrlNumber) -> StoreFuture<'_, Option<[u8; 32]>> {
        Box::pin(self.reader.run(move |tx| list_digest(tx, authority, number)))
    }

    fn keep_proof(&self, proof: ListProof, line: AuditEvent) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(1, move |tx| keep(tx, &proof, line)))
    }

    fn proofs(&self) -> StoreFuture<'_, Vec<ListProof>> {
        Box::pin(self.reader.run(|tx| all(tx)))
    }

    fn let_go(
        &self,
        authority: AuthorityId,
        serials: Vec<SerialNumber>,
    ) -> StoreFuture<'_, Vec<SerialNumber>> {
        Box::pin(self.scanner.run(move |conn| let_go(conn, authority, &serials)))
    }

    fn drop_proof(&self, authority: AuthorityId, sha256: [u8; 32]) -> StoreFuture<'_, ()> {
        let work = move |tx: &mut Tx<'_>| drop_proof(tx.conn, authority, &sha256);
        Box::pin(self.writer.run(1, work))
    }
}

/// Remembers the list that is kept now by its number; the oldest give way.
pub(super) fn remember(conn: &Connection, authority: i64, crl: &StoredCrl) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO crl_digest (authority, number, sha256) VALUES (?1, ?2, ?3)")?
        .execute(params![
            authority,
            crl.number.0.cast_signed(),
            digest(&SHA256, &crl.der).as_ref()
        ])?;
    let forgotten = crl.number.0.saturating_sub(LISTS_KNOWN);
    conn.prepare_cached("DELETE FROM crl_digest WHERE authority = ?1 AND number <= ?2")?
        .execute(params![authority, forgotten.cast_signed()])?;
    Ok(())
}

fn list_digest(
    conn: &Connection,
    authority: AuthorityId,
    number: CrlNumber,
) -> rusqlite::Result<Option<[u8; 32]>> {
    conn.prepare_cached(
        "SELECT d.sha256 FROM crl_digest d JOIN authority a ON a.id = d.authority
         WHERE a.authority_id = ?1 AND d.number = ?2",
    )?
    .query_row(params![authority.as_bytes(), number.0.cast_signed()], |row| {
        row.get(0)
    })
    .optional()
}

fn let_go(
    conn: &Connection,
    authority: AuthorityId,
    serials: &[SerialNumber],
) -> rusqlite::Result<Vec<SerialNumber>> {
    let mut is_over = conn.prepare_cached(
        "SELECT 1 FROM revocation r JOIN authority a ON a.id = r.authority
         WHERE a.authority_id = ?1 AND r.serial = ?2 AND r.listed = 1",
    )?;
    let mut over = Vec::new();
    for serial in serials {
        if is_over.exists(params![authority.as_bytes(), serial.as_bytes()])? {
            over.push(*serial);
        }
    }
    Ok(over)
}

fn keep(tx: &mut Tx<'_>, proof: &ListProof, line: AuditEvent) -> rusqlite::Result<()> {
    let authority = tx.state.authorities.intern(tx.conn, proof.authority)?;
    let new = tx
        .conn
        .prepare_cached(
            "INSERT OR IGNORE INTO list_proof (authority, sha256, number, der, agent, found_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            authority,
            proof.sha256,
            proof.number.0.cast_signed(),
            proof.der.as_ref(),
            proof.agent.as_str(),
            millis(proof.found_at),
        ])?;
    if new > 0 {
        tx.audit.events(&[line]);
    }
    Ok(())
}

fn all(conn: &Connection) -> rusqlite::Result<Vec<ListProof>> {
    conn.prepare_cached(
        "SELECT a.authority_id, p.sha256, p.number, p.der, p.agent, p.found_at
         FROM list_proof p JOIN authority a ON a.id = p.authority",
    )?
    .query_map([], |row| {
        Ok(ListProof {
            authority: authority_at(row, 0)?,
            sha256: row.get(1)?,
            number: crl_number_at(row, 2)?,
            der: Bytes::from(row.get::<_, Vec<u8>>(3)?),
            agent: parsed_at(row, 4, "SPIFFE ID")?,
            found_at: time_at(row, 5)?,
        })
    })?
    .collect()
}

fn drop_proof(conn: &Connection, authority: AuthorityId, sha256: &[u8; 32]) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "DELETE FROM list_proof WHERE sha256 = ?2
         AND authority = (SELECT id FROM authority WHERE authority_id = ?1)",
    )?
    .execute(params![authority.as_bytes(), sha256])?;
    Ok(())
}
