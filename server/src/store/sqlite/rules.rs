//! Rules in the table of single values, and who lives by them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, params};

use super::SqliteStore;
use super::convert::{millis, unreadable};
use super::files::DATABASE;
use super::read::workload_from;
use super::schema::{ACCEPTED_RULES, ADMIN_RULES, meta_text, set_meta};
use crate::audit_event::AuditEvent;
use crate::store::{EvidenceKind, KeptRules, LiveIdentity, RulesToKeep, StoreFuture};

impl KeptRules for SqliteStore {
    fn accepted_rules(&self) -> StoreFuture<'_, Option<String>> {
        Box::pin(self.reader.run(|tx| meta_text(tx, ACCEPTED_RULES)))
    }

    fn admin_rules(&self) -> StoreFuture<'_, Option<String>> {
        Box::pin(self.reader.run(|tx| meta_text(tx, ADMIN_RULES)))
    }

    fn keep_rules(&self, rules: RulesToKeep, audit: Vec<AuditEvent>) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(1, move |tx| {
            for (key, body) in [(ACCEPTED_RULES, &rules.accepted), (ADMIN_RULES, &rules.of_admins)] {
                if let Some(body) = body {
                    set_meta(tx.conn, key, body)?;
                }
            }
            tx.audit.events(&audit);
            Ok(())
        }))
    }

    fn live_identities(&self, earliest: SystemTime) -> StoreFuture<'_, Vec<LiveIdentity>> {
        Box::pin(self.scanner.run(move |tx| live_identities(tx, earliest)))
    }
}

/// What admins have set, of a store that nobody has to have opened; `None` where there is none, or none that this user may look at: a file
/// beside it that another one makes would be in the way of the server. Blocks.
pub(crate) fn admin_rules_in(dir: &Path) -> Option<String> {
    let path = dir.join(DATABASE);
    let owner = path.metadata().ok()?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    meta_text(&conn, ADMIN_RULES).ok()?
}

/// Of the rows of one workload the one with the greatest serial speaks: SQLite takes what stands beside `max` from that row.
fn live_identities(tx: &Connection, earliest: SystemTime) -> rusqlite::Result<Vec<LiveIdentity>> {
    let mut statement = tx.prepare(
        "WITH newest AS (
             SELECT l.workload, l.evidence, l.rule, max(l.serial)
             FROM ledger l LEFT JOIN revocation r ON r.authority = l.authority AND r.serial = l.serial
             WHERE l.evidence IN (?1, ?2) AND l.not_after > ?3 AND r.serial IS NULL
             GROUP BY l.workload
         )
         SELECT n.evidence, u.name,
                w.cluster_uid, w.spiffe_id, w.pod_namespace, w.pod_name, w.pod_uid, w.node_name, w.node_uid, w.agent_id,
                w.process
         FROM newest n JOIN workload w ON w.id = n.workload JOIN rule u ON u.id = n.rule",
    )?;
    let kinds = [EvidenceKind::PodToken, EvidenceKind::Unix].map(|kind| kind as i64);
    let rows = statement.query_map(params![kinds[0], kinds[1], millis(earliest)], |row| {
        Ok(LiveIdentity {
            evidence: EvidenceKind::from_code(row.get(0)?).ok_or_else(|| unreadable(0, "evidence kind"))?,
            rule: row.get(1)?,
            workload: workload_from(row, 2)?,
        })
    })?;
    rows.collect()
}
