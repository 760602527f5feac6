//! Reads, on connections of their own: they see what is committed and never wait for the writer.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rusqlite::OptionalExtension as _;
use rusqlite::{Connection, OpenFlags, Row, Transaction, named_params, params};
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::RevokedEntry;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_runtime::sync::Mutex;

use super::convert::{
    authority_at, crl_number_at, millis, number_at, optional_time_at, parsed_at, serial_at, store_error,
    time_at, unreadable,
};
use super::schema::{REVISION, configure, meta_number};
use crate::store::{
    Denial, DenialTarget, EvidenceKind, Journal, LedgerRow, Lifted, PodTokenUse, RevokedSet, SealedKey,
    StoreError, StoredCrl, SvidFilter, SvidPage, WorkloadRef,
};

/// One connection for reading. Short reads and long ones use different readers.
#[derive(Clone)]
pub(super) struct Reader(Arc<Mutex<Connection>>);

impl Reader {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        configure(&conn)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(Self(Arc::new(Mutex::new(conn))))
    }

    /// Runs `work` on a blocking thread, in one snapshot.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let conn = self.0.clone();
        let read = move || {
            let mut conn = conn.lock();
            let tx = conn.transaction()?;
            work(&tx)
        };
        match signet_runtime::spans::spawn_blocking(read).await {
            Ok(result) => result.map_err(|error| store_error(&error)),
            Err(error) => Err(StoreError::Unavailable {
                message: error.to_string(),
            }),
        }
    }
}

/// Columns as [`denial_from`] reads them.
pub(super) const DENIALS: &str = "SELECT id, kind, target, author, comment, created_at, expires_at, lifted_at, lifted_by, number FROM denial";

pub(super) fn denial_from(row: &Row<'_>) -> rusqlite::Result<Denial> {
    let (kind, target): (String, String) = (row.get(1)?, row.get(2)?);
    let lifted_by: Option<String> = row.get(8)?;
    let lifted_at = optional_time_at(row, 7)?;
    Ok(Denial {
        id: row.get(0)?,
        target: DenialTarget::parse(&kind, &target).ok_or_else(|| unreadable(2, "target of a denial"))?,
        author: row.get(3)?,
        comment: row.get(4)?,
        created: time_at(row, 5)?,
        expires: optional_time_at(row, 6)?,
        lifted: lifted_at.map(|at| Lifted {
            at,
            by: lifted_by.unwrap_or_default(),
        }),
    })
}

/// Reads the nine columns of a workload, from column `first` on.
pub(super) fn workload_from(row: &Row<'_>, first: usize) -> rusqlite::Result<WorkloadRef> {
    Ok(WorkloadRef {
        cluster_uid: row.get(first)?,
        spiffe_id: spiffe_id_at(row, first + 1)?,
        pod_namespace: row.get(first + 2)?,
        pod_name: row.get(first + 3)?,
        pod_uid: row.get(first + 4)?,
        node_name: row.get(first + 5)?,
        node_uid: row.get(first + 6)?,
        agent_id: row.get(first + 7)?,
        process: row.get(first + 8)?,
    })
}

pub(super) fn spiffe_id_at(row: &Row<'_>, index: usize) -> rusqlite::Result<SpiffeId> {
    SpiffeId::parse(row.get_ref(index)?.as_str()?).map_err(|_| unreadable(index, "SPIFFE ID"))
}

pub(super) fn journal(tx: &Connection, kind: AuthorityKind) -> rusqlite::Result<Option<Journal>> {
    tx.prepare_cached("SELECT revision, body FROM journal WHERE kind = ?1")?
        .query_row([kind.to_string()], |row| {
            Ok(Journal {
                revision: number_at(row, 0)?,
                body: row.get(1)?,
            })
        })
        .optional()
}

pub(super) fn keys(tx: &Connection) -> rusqlite::Result<Vec<SealedKey>> {
    let mut statement = tx.prepare_cached(
        "SELECT authority_id, purpose, kek_id, epoch, nonce, ciphertext FROM sealed_key ORDER BY authority_id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(SealedKey {
            authority_id: authority_at(row, 0)?,
            purpose: parsed_at(row, 1, "purpose of a key")?,
            kek_id: row.get(2)?,
            epoch: number_at(row, 3)?,
            nonce: row.get(4)?,
            ciphertext: row.get(5)?,
        })
    })?;
    rows.collect()
}

pub(super) fn denials(
    tx: &Connection,
    include_lifted: bool,
    earliest: SystemTime,
) -> rusqlite::Result<Vec<Denial>> {
    let mut statement = tx.prepare_cached(&format!("{DENIALS} ORDER BY number"))?;
    let rows = statement.query_map([], denial_from)?;
    rows.filter(|denial| {
        denial
            .as_ref()
            .map_or(true, |denial| include_lifted || denial.is_active(earliest))
    })
    .collect()
}

pub(super) fn revoked(tx: &Connection, authority: AuthorityId) -> rusqlite::Result<RevokedSet> {
    let mut statement = tx.prepare_cached(
        "SELECT serial, revoked_at, reason, invalid_since FROM revocation
         WHERE authority = (SELECT id FROM authority WHERE authority_id = ?1) AND entered = 1 AND listed = 0
         ORDER BY serial",
    )?;
    let entries = statement.query_map([authority.as_bytes()], |row| {
        Ok(RevokedEntry {
            serial: serial_at(row, 0)?,
            revoked_at: time_at(row, 1)?,
            reason: parsed_at(row, 2, "revocation reason")?,
            invalid_since: optional_time_at(row, 3)?,
        })
    })?;
    let mut entries = entries.collect::<rusqlite::Result<Vec<_>>>()?;
    // Numbers, where the key compares bytes: they differ for serials that are not ours.
    entries.sort_by_key(|entry| entry.serial);
    Ok(RevokedSet {
        entries,
        revision: meta_number(tx, REVISION)?,
    })
}

pub(super) fn crls(tx: &Connection) -> rusqlite::Result<Vec<StoredCrl>> {
    let mut statement = tx.prepare_cached(
        "SELECT a.authority_id, c.number, c.der, c.this_update, c.next_update, c.revision
         FROM crl c JOIN authority a ON a.id = c.authority ORDER BY c.authority",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(StoredCrl {
            authority: authority_at(row, 0)?,
            number: crl_number_at(row, 1)?,
            der: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            this_update: time_at(row, 3)?,
            next_update: time_at(row, 4)?,
            revision: number_at(row, 5)?,
        })
    })?;
    rows.collect()
}

/// The workloads that a filter names. `substr` and not LIKE: a SPIFFE ID may contain `_`, and case counts.
const MATCHING_WORKLOADS: &str = "
    SELECT id FROM workload
    WHERE (:prefix IS NULL OR spiffe_id = :prefix OR substr(spiffe_id, 1, length(:prefix) + 1) = :prefix || '/')
      AND (:spiffe_id IS NULL OR spiffe_id = :spiffe_id)
      AND (:pod IS NULL OR pod_uid = :pod OR (pod_name <> '' AND pod_namespace || '/' || pod_name = :pod))
      AND (:node IS NULL OR node_uid = :node OR node_name = :node)";

const LEDGER: &str = "
    SELECT l.serial, a.authority_id, l.evidence, n.name, l.not_before, l.not_after, r.revoked_at, r.reason,
           w.cluster_uid, w.spiffe_id, w.pod_namespace, w.pod_name, w.pod_uid, w.node_name, w.node_uid, w.agent_id,
           w.process
    FROM ledger l CROSS JOIN workload w ON w.id = l.workload
    JOIN authority a ON a.id = l.authority
    JOIN rule n ON n.id = l.rule
    LEFT JOIN revocation r ON r.authority = l.authority AND r.serial = l.serial";

pub(super) fn list(tx: &Connection, filter: &SvidFilter) -> rusqlite::Result<SvidPage> {
    let most = filter.most();
    let mut statement = tx.prepare_cached(&format!(
        "{LEDGER} WHERE l.workload IN ({MATCHING_WORKLOADS})
           AND (:live_at IS NULL OR (l.not_after > :live_at AND r.serial IS NULL))
           AND (:unexpired_at IS NULL OR l.not_after > :unexpired_at)
         ORDER BY l.serial DESC LIMIT :limit"
    ))?;
    let rows = statement.query_map(
        named_params! {
            ":prefix": filter.spiffe_id_prefix.as_ref().map(SpiffeId::as_str),
            ":spiffe_id": filter.spiffe_id.as_ref().map(SpiffeId::as_str),
            ":pod": filter.pod,
            ":node": filter.node,
            ":live_at": filter.live_at.map(millis),
            ":unexpired_at": filter.unexpired_at.map(millis),
            // One more than wanted tells whether there are more.
            ":limit": i64::try_from(most + 1).unwrap_or(i64::MAX),
        },
        ledger_from,
    )?;
    let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let truncated = rows.len() > most;
    rows.truncate(most);
    Ok(SvidPage { rows, truncated })
}

pub(super) fn unreviewed(
    tx: &Connection,
    after: Option<SerialNumber>,
    limit: usize,
) -> rusqlite::Result<Vec<LedgerRow>> {
    // Ours are of one length: their bytes are in the order of their numbers.
    let mut statement = tx.prepare_cached(&format!(
        "{LEDGER} WHERE l.outage = 1 AND l.serial > ?1 ORDER BY l.serial LIMIT ?2"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map(|serial| serial.as_bytes().to_vec()).unwrap_or_default();
    let rows = statement.query_map(params![after, limit], ledger_from)?;
    rows.collect()
}

pub(super) fn pod_tokens(tx: &Connection, now: SystemTime) -> rusqlite::Result<Vec<PodTokenUse>> {
    let mut statement = tx.prepare(
        "SELECT DISTINCT w.cluster_uid, w.pod_uid, l.token_jti FROM ledger l JOIN workload w ON w.id = l.workload
         WHERE l.evidence = ?1 AND l.not_after > ?2 AND l.token_jti IS NOT NULL",
    )?;
    let rows = statement.query_map(params![EvidenceKind::PodToken as i64, millis(now)], |row| {
        Ok(PodTokenUse {
            cluster_uid: row.get(0)?,
            pod_uid: row.get(1)?,
            jti: row.get(2)?,
        })
    })?;
    rows.collect()
}

fn ledger_from(row: &Row<'_>) -> rusqlite::Result<LedgerRow> {
    let revoked_at = optional_time_at(row, 6)?;
    let revoked = match revoked_at {
        Some(at) => Some((at, parsed_at(row, 7, "revocation reason")?)),
        None => None,
    };
    Ok(LedgerRow {
        serial: serial_at(row, 0)?,
        authority: authority_at(row, 1)?,
        workload: workload_from(row, 8)?,
        evidence: EvidenceKind::from_code(row.get(2)?).ok_or_else(|| unreadable(2, "evidence kind"))?,
        rule: row.get(3)?,
        not_before: time_at(row, 4)?,
        not_after: time_at(row, 5)?,
        revoked,
    })
}

/// Up to `limit` audit rows that have lines after `sequence`: first line, boot, blob.
pub(super) fn audit_rows(
    tx: &Connection,
    sequence: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(u64, u64, Vec<u8>)>> {
    let mut statement = tx.prepare_cached(
        "SELECT first, boot, body FROM audit
         WHERE first >= coalesce((SELECT max(first) FROM audit WHERE first <= ?1), 0) AND first + count > ?1
         ORDER BY first LIMIT ?2",
    )?;
    let from = sequence.saturating_add(1).cast_signed();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![from, limit], |row| {
        Ok((number_at(row, 0)?, number_at(row, 1)?, row.get(2)?))
    })?;
    rows.collect()
}
