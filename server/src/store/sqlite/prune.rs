//! Housekeeping: the mark of time, and what may be forgotten.

use rusqlite::{Connection, params};
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use super::agents;
use super::audit_rows::read_cursor;
use super::convert::{millis, serial_at, span_ms};
use super::schema::{JUMPED, MARK, set_meta};
use super::state::{State, tolerance_ms};
use super::writer::Tx;
use crate::store::{AGENTS_KEPT, DENIALS_KEPT, Housekeeping, KEPT_AFTER_END, KnownTime};

/// Rows in one transaction, so that nobody waits long behind it.
const CHUNK: usize = 4_000;

/// [`KEPT_AFTER_END`] in milliseconds.
fn kept_ms() -> i64 {
    span_ms(KEPT_AFTER_END)
}

/// What one step found; `more` when another one would prune further.
pub(super) struct Step {
    pub(super) found: Housekeeping,
    pub(super) more: bool,
}

/// The first step of a round: time and the small tables, then a chunk of the ledger.
pub(super) fn begin(tx: &mut Tx<'_>, time: KnownTime) -> rusqlite::Result<Step> {
    let found = Housekeeping {
        pruned: 0,
        audit_backlog: backlog(tx)?,
    };
    if let Some(confirmed) = time.confirmed {
        tx.state.mark = tx.state.mark.max(millis(confirmed));
        set_meta(tx.conn, MARK, &tx.state.mark.to_string())?;
    }
    set_meta(tx.conn, JUMPED, if time.jumped { "1" } else { "0" })?;
    let Some(now_ms) = time.settled.map(millis) else {
        return Ok(Step { found, more: false });
    };
    tx.state.settled = tx.state.settled.max(now_ms);
    tx.state.live.sweep(now_ms - tolerance_ms());
    let now = from_unix_millis(now_ms);
    tx.state.agent_budgets.retain(|_, budget| !budget.is_full(now));
    small_tables(tx, now_ms)?;
    let (pruned, more) = ledger(tx, now_ms)?;
    Ok(Step {
        found: Housekeeping { pruned, ..found },
        more,
    })
}

/// Another chunk of the ledger: rows pruned, and whether there are more.
pub(super) fn ledger(tx: &mut Tx<'_>, now: i64) -> rusqlite::Result<(u64, bool)> {
    // Lines that were not emitted yet are written from their rows. Whatever may be pruned was recorded a day ago.
    if oldest_unemitted(tx.conn)?.is_some_and(|written| written < now - kept_ms() / 2) {
        return Ok((0, false));
    }
    // Serials begin with the time: nothing right of this one can have expired a day ago.
    let edge = left_edge(now - kept_ms());
    let mut statement = tx.conn.prepare_cached(
        "DELETE FROM ledger WHERE serial IN (
             SELECT l.serial FROM ledger l
             WHERE l.serial < ?1 AND l.not_after < ?2
               AND (EXISTS (SELECT 1 FROM crl c WHERE c.authority = l.authority AND c.this_update > l.not_after)
                    OR NOT EXISTS (SELECT 1 FROM sealed_key k JOIN authority a ON a.authority_id = k.authority_id
                                   WHERE a.id = l.authority))
             LIMIT ?3)
         RETURNING workload, token_jti, serial",
    )?;
    let limit = i64::try_from(CHUNK).unwrap_or(i64::MAX);
    let removed = statement
        .query_map(params![edge.as_slice(), now - kept_ms(), limit], |row| {
            Ok((row.get(0)?, row.get(1)?, serial_at(row, 2)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, Option<String>, SerialNumber)>>>()?;
    for (workload, jti, serial) in &removed {
        let State { workloads, live, .. } = &mut *tx.state;
        workloads.release(tx.conn, *workload, live)?;
        tx.state.known_agents.forget_certificate(serial);
        if let Some(jti) = jti {
            forget_token(tx, jti, now);
        }
    }
    Ok((removed.len() as u64, removed.len() == CHUNK))
}

fn forget_token(tx: &mut Tx<'_>, jti: &str, now: i64) {
    if tx
        .state
        .node_tokens
        .get(jti)
        .is_some_and(|used| used.not_after < now - kept_ms())
    {
        tx.state.node_tokens.remove(jti);
    }
}

/// The smallest serial of our first layout that was made at `millis`.
fn left_edge(millis: i64) -> [u8; 7] {
    let time = millis.max(0).to_be_bytes();
    [1, time[2], time[3], time[4], time[5], time[6], time[7]]
}

fn small_tables(tx: &mut Tx<'_>, now: i64) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "DELETE FROM revocation WHERE not_after < ?1
               AND (listed = 1 OR entered = 0 OR NOT EXISTS (SELECT 1 FROM sealed_key k JOIN authority a
                                              ON a.authority_id = k.authority_id WHERE a.id = revocation.authority))",
        )?
        .execute([now - kept_ms()])?;
    agents::prune(tx, now - span_ms(AGENTS_KEPT))?;
    tx.conn
        .prepare_cached(
            "DELETE FROM denial WHERE min(coalesce(lifted_at, ?2), coalesce(expires_at, ?2)) < ?1
               AND number < (SELECT max(number) FROM denial)",
        )?
        .execute(params![now - span_ms(DENIALS_KEPT), i64::MAX])?;
    for denials in tx.state.denials.values_mut() {
        denials.retain(|denial| denial.expires.is_none_or(|end| millis(end) > now));
    }
    tx.state.denials.retain(|_, denials| !denials.is_empty());
    Ok(())
}

fn oldest_unemitted(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT min(first), written_at FROM audit")?
        .query_row([], |row| row.get(1))
}

fn backlog(tx: &Tx<'_>) -> rusqlite::Result<u64> {
    Ok((tx.state.next_line - 1).saturating_sub(read_cursor(tx.conn)?.sequence))
}
