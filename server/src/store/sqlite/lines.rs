//! Audit lines as they leave: events as stored, certificates from their rows of the ledger.

use rusqlite::{Connection, OptionalExtension as _, Row};
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use super::audit_rows::{Entry, for_each_line};
use super::convert::{authority_at, number_at, text_at, time_at, unreadable};
use super::read::audit_rows;
use crate::audit_event::StoredLine;
use crate::store::EvidenceKind;
use crate::store::issued_line::{IssuedLine, IssuedTo};

const ROW: &str = "
    SELECT a.authority_id, l.evidence, l.token_jti, l.spki_sha256, n.name, l.policy_revision, l.not_before,
           l.not_after, l.epoch,
           w.spiffe_id, w.cluster_uid, w.pod_namespace, w.pod_name, w.pod_uid, w.node_name, w.node_uid, w.agent_id,
           w.process, l.outage
    FROM ledger l
    JOIN workload w ON w.id = l.workload
    JOIN authority a ON a.id = l.authority
    JOIN rule n ON n.id = l.rule
    WHERE l.serial = ?1";

fn line_from(row: &Row<'_>, at: i64, serial: SerialNumber) -> rusqlite::Result<String> {
    let line = IssuedLine {
        at: from_unix_millis(at),
        serial,
        authority: authority_at(row, 0)?,
        workload: IssuedTo {
            spiffe_id: text_at(row, 9)?,
            cluster_uid: text_at(row, 10)?,
            pod_namespace: text_at(row, 11)?,
            pod_name: text_at(row, 12)?,
            pod_uid: text_at(row, 13)?,
            node_name: text_at(row, 14)?,
            node_uid: text_at(row, 15)?,
            agent_id: text_at(row, 16)?,
            process: text_at(row, 17)?,
        },
        evidence: EvidenceKind::from_code(row.get(1)?).ok_or_else(|| unreadable(1, "evidence kind"))?,
        token_jti: row.get_ref(2)?.as_str_or_null()?,
        spki_sha256: row.get_ref(3)?.as_blob()?,
        rule: text_at(row, 4)?,
        policy_revision: number_at(row, 5)?,
        not_before: time_at(row, 6)?,
        not_after: time_at(row, 7)?,
        epoch: number_at(row, 8)?,
        outage: row.get::<_, Option<i64>>(18)?.is_some(),
    };
    line.to_json().map_err(|_| unreadable(0, "audit line"))
}

fn issued(tx: &Connection, at: i64, serial: SerialNumber) -> rusqlite::Result<String> {
    tx.prepare_cached(ROW)?
        .query_row([serial.as_bytes()], |row| line_from(row, at, serial))
        .optional()?
        .ok_or_else(|| unreadable(0, "ledger row of an audit line"))
}

/// Up to about `limit` lines after `sequence`, in order; always whole rows.
pub(super) fn lines_after(tx: &Connection, sequence: u64, limit: usize) -> rusqlite::Result<Vec<StoredLine>> {
    let mut lines = Vec::new();
    let mut after = sequence;
    while lines.len() < limit {
        let Some((first, boot, body)) = audit_rows(tx, after, 1)?.pop() else {
            break;
        };
        let mut number = first;
        for_each_line(&body, |entry| {
            if number > sequence {
                let body = match entry {
                    Entry::Event(json) => json.to_owned(),
                    Entry::Issued { at, serial } => issued(tx, at, serial)?,
                };
                lines.push(StoredLine {
                    sequence: number,
                    boot,
                    body,
                });
            }
            number += 1;
            Ok(())
        })?;
        after = number - 1;
    }
    Ok(lines)
}
