//! What a revocation is aimed at, in the ledger.

use std::time::SystemTime;

use rusqlite::{OptionalExtension as _, ToSql, named_params, params};
use signet_certs::authority::AuthorityId;
use signet_certs::dates::{OutsideDates, WhoseClock};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use super::super::convert::{millis, serial_at};
use super::super::entering;
use super::super::live::LiveRow;
use super::super::look::Look;
use super::super::read::spiffe_id_at;
use crate::store::{RevokeError, RevokeRequest, RevokeTarget};

/// What shall be on a list.
pub(super) struct Entry {
    pub(super) serial: SerialNumber,
    /// Row of its authority.
    pub(super) authority: i64,
    /// When it ends, in milliseconds; the most there is where nobody knows.
    pub(super) not_after: i64,
    /// `None` where the ledger lacks it.
    pub(super) spiffe_id: Option<SpiffeId>,
    /// Row of its workload, where it was read with it.
    pub(super) workload: Option<i64>,
}

/// Workloads as [`RevokeTarget::hits`](crate::store::RevokeTarget::hits) says it of each.
const BELOW: &str = "spiffe_id = :prefix OR substr(spiffe_id, 1, length(:prefix) + 1) = :prefix || '/'";
const OF_POD: &str = "pod_uid <> '' AND pod_uid = :uid AND cluster_uid <> '' AND cluster_uid = :cluster";
const OF_PODS: &str = "pod_uid <> '' AND cluster_uid <> '' AND cluster_uid = :cluster
    AND (pod_uid = :uid OR pod_namespace || '/' || pod_name = :name)";
const OF_NODE: &str = "
    (node_uid <> '' AND node_uid = :uid AND (cluster_uid = '' OR cluster_uid = :cluster))
    OR (node_name <> '' AND node_name = :name AND cluster_uid <> '' AND cluster_uid = :cluster)";

/// What the order names and may be unexpired.
pub(super) fn entries(
    look: &Look<'_>,
    request: &RevokeRequest,
) -> rusqlite::Result<Result<Vec<Entry>, RevokeError>> {
    let earliest = request.earliest;
    let entries = match &request.target {
        RevokeTarget::SpiffeId(id) => of_id(look, id, earliest)?,
        RevokeTarget::Serial {
            serial,
            authority,
            expires_by,
        } => {
            let entry = of_serial(look, *serial, *authority, *expires_by, earliest)?;
            return Ok(entry.map(|entry| vec![entry]));
        }
        RevokeTarget::Prefix(id) => of_workloads(
            look,
            BELOW,
            named_params! { ":prefix": id.as_str(), ":earliest": millis(earliest) },
        )?,
        RevokeTarget::Pod(pod) => of_workloads(
            look,
            OF_POD,
            named_params! { ":uid": pod.uid, ":cluster": pod.cluster_uid, ":earliest": millis(earliest) },
        )?,
        RevokeTarget::PodsNamed(pod) => of_workloads(
            look,
            OF_PODS,
            named_params! {
                ":uid": pod.uid, ":name": pod.name, ":cluster": pod.cluster_uid, ":earliest": millis(earliest),
            },
        )?,
        RevokeTarget::Node(node) => of_workloads(
            look,
            OF_NODE,
            named_params! {
                ":uid": node.uid, ":name": node.name, ":cluster": node.cluster_uid, ":earliest": millis(earliest),
            },
        )?,
        RevokeTarget::IssuedBy(id) => match look.authorities.known(id) {
            Some(authority) => issued_by(look, authority, earliest)?,
            None => return Ok(Err(RevokeError::UnknownAuthority(*id))),
        },
    };
    Ok(Ok(entries))
}

/// One scan of the ledger.
fn of_workloads(look: &Look<'_>, which: &str, bound: &[(&str, &dyn ToSql)]) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = look.conn.prepare_cached(&format!(
        "SELECT l.serial, l.authority, l.not_after, w.spiffe_id, l.workload
         FROM ledger l CROSS JOIN workload w ON w.id = l.workload
         WHERE l.workload IN (SELECT id FROM workload WHERE {which}) AND l.not_after > :earliest"
    ))?;
    let rows = statement.query_map(bound, entry_from)?;
    rows.collect()
}

fn issued_by(look: &Look<'_>, authority: i64, earliest: SystemTime) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = look.conn.prepare_cached(
        "SELECT l.serial, l.authority, l.not_after, w.spiffe_id, l.workload
         FROM ledger l CROSS JOIN workload w ON w.id = l.workload
         WHERE l.authority = ?1 AND l.not_after > ?2",
    )?;
    let rows = statement.query_map(params![authority, millis(earliest)], entry_from)?;
    rows.collect()
}

fn entry_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        serial: serial_at(row, 0)?,
        authority: row.get(1)?,
        not_after: row.get(2)?,
        spiffe_id: Some(spiffe_id_at(row, 3)?),
        workload: Some(row.get(4)?),
    })
}

fn of_id(look: &Look<'_>, id: &SpiffeId, earliest: SystemTime) -> rusqlite::Result<Vec<Entry>> {
    // While that is behind the mark, memory may have let go of what has come back to life; and it does not know what is revoked
    // already, of which some waits for a list and may enter by this order: then the ledger itself counts.
    let rows = match look.live {
        Some(state) if !state.is_behind(earliest) && !entering::anything_waits(look.conn)? => {
            state.live.of_id(id, millis(earliest))
        }
        _ => scan(look, id, earliest)?,
    };
    let entries = rows.into_iter().map(|row| Entry {
        serial: row.serial,
        authority: row.authority,
        not_after: row.not_after,
        spiffe_id: Some(id.clone()),
        workload: None,
    });
    Ok(entries.collect())
}

fn scan(look: &Look<'_>, id: &SpiffeId, earliest: SystemTime) -> rusqlite::Result<Vec<LiveRow>> {
    let mut statement = look.conn.prepare_cached(
        "SELECT serial, authority, not_after FROM ledger
         WHERE workload IN (SELECT id FROM workload WHERE spiffe_id = ?1) AND not_after > ?2",
    )?;
    let rows = statement.query_map(params![id.as_str(), millis(earliest)], |row| {
        Ok(LiveRow {
            serial: serial_at(row, 0)?,
            authority: row.get(1)?,
            not_after: row.get(2)?,
        })
    })?;
    rows.collect()
}

fn of_serial(
    look: &Look<'_>,
    serial: SerialNumber,
    authority: Option<AuthorityId>,
    expires_by: Option<SystemTime>,
    earliest: SystemTime,
) -> rusqlite::Result<Result<Entry, RevokeError>> {
    let named = match authority {
        Some(id) => match look.authorities.known(&id) {
            Some(row) => Some(row),
            None => return Ok(Err(RevokeError::UnknownAuthority(id))),
        },
        None => None,
    };
    let found = look
        .conn
        .prepare_cached(
            "SELECT l.authority, l.not_before, l.not_after, w.spiffe_id
             FROM ledger l JOIN workload w ON w.id = l.workload WHERE l.serial = ?1",
        )?
        .query_row([serial.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, spiffe_id_at(row, 3)?))
        })
        .optional()?;
    match found {
        Some((row, not_before, not_after, spiffe_id)) if named.is_none_or(|named| named == row) => {
            if not_after <= millis(earliest) {
                return Ok(Err(RevokeError::Expired(OutsideDates {
                    not_before: from_unix_millis(not_before),
                    not_after: from_unix_millis(not_after),
                    now: earliest,
                    clock: WhoseClock::Server,
                })));
            }
            Ok(Ok(Entry {
                serial,
                authority: row,
                not_after,
                spiffe_id: Some(spiffe_id),
                workload: None,
            }))
        }
        _ => Ok(match named {
            Some(authority) => Ok(Entry {
                serial,
                authority,
                not_after: expires_by.map_or(i64::MAX, millis),
                spiffe_id: None,
                workload: None,
            }),
            None => Err(RevokeError::UnknownSerial),
        }),
    }
}
