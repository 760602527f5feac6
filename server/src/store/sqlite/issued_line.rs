//! The audit line of a certificate, written from its row of the ledger when it is emitted.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;
use signet_certs::serial::SerialNumber;
use signet_certs::time::{from_unix_millis, rfc3339};

use super::audit_rows::{Entry, for_each_line};
use super::convert::{authority_at, number_at, time_at, unreadable};
use super::read::audit_rows;
use crate::audit::StoredLine;
use crate::store::EvidenceKind;

/// Exactly what the row says, never what happened to the certificate later: a line that is written again is the same.
#[derive(Serialize)]
struct IssuedLine {
    time: String,
    event: &'static str,
    serial: String,
    authority_id: String,
    spiffe_id: String,
    cluster_uid: String,
    pod_namespace: String,
    pod_name: String,
    pod_uid: String,
    node_name: String,
    node_uid: String,
    agent_id: String,
    evidence: &'static str,
    token_jti: Option<String>,
    spki_sha256: String,
    rule: String,
    policy_revision: String,
    not_before: String,
    not_after: String,
    epoch: u64,
}

const ROW: &str = "
    SELECT a.authority_id, l.evidence, l.token_jti, l.spki_sha256, n.name, l.policy_revision, l.not_before,
           l.not_after, l.epoch,
           w.spiffe_id, w.cluster_uid, w.pod_namespace, w.pod_name, w.pod_uid, w.node_name, w.node_uid, w.agent_id
    FROM ledger l
    JOIN workload w ON w.id = l.workload
    JOIN authority a ON a.id = l.authority
    JOIN rule n ON n.id = l.rule
    WHERE l.serial = ?1";

fn line_from(row: &Row<'_>, at: i64, serial: SerialNumber) -> rusqlite::Result<IssuedLine> {
    let evidence = EvidenceKind::from_code(row.get(1)?).ok_or_else(|| unreadable(1, "evidence kind"))?;
    Ok(IssuedLine {
        time: rfc3339(from_unix_millis(at)),
        event: "issued",
        serial: serial.to_string(),
        authority_id: authority_at(row, 0)?.to_string(),
        spiffe_id: row.get(9)?,
        cluster_uid: row.get(10)?,
        pod_namespace: row.get(11)?,
        pod_name: row.get(12)?,
        pod_uid: row.get(13)?,
        node_name: row.get(14)?,
        node_uid: row.get(15)?,
        agent_id: row.get(16)?,
        evidence: evidence.as_str(),
        token_jti: row.get(2)?,
        spki_sha256: hex::encode(row.get_ref(3)?.as_blob()?),
        rule: row.get(4)?,
        // As text in hex: JSON readers lose digits of numbers over 2^53.
        policy_revision: format!("{:016x}", number_at(row, 5)?),
        not_before: rfc3339(time_at(row, 6)?),
        not_after: rfc3339(time_at(row, 7)?),
        epoch: number_at(row, 8)?,
    })
}

fn issued(tx: &Connection, at: i64, serial: SerialNumber) -> rusqlite::Result<String> {
    let line = tx
        .prepare_cached(ROW)?
        .query_row([serial.as_bytes()], |row| line_from(row, at, serial))
        .optional()?
        .ok_or_else(|| unreadable(0, "ledger row of an audit line"))?;
    serde_json::to_string(&line).map_err(|_| unreadable(0, "audit line"))
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
