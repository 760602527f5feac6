//! Housekeeping: the mark of time, and what may be forgotten.
//!
//! It is done in slices, each a transaction of its own between those of callers: one looks at a bounded number of rows and removes fewer,
//! and the next goes on after the last row that was looked at. So nobody waits long behind one, however much there is to forget, and what
//! has to stay is passed over once.

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use rusqlite::{Connection, params};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use super::convert::{millis, serial_at, span_ms};
use super::read::spiffe_id_at;
use super::schema::{JUMPED, MARK, set_meta};
use super::state::{NodeToken, State, tolerance_ms};
use super::writer::{GROUP_ROWS, Tx, Writer};
use crate::store::{
    AGENTS_KEPT, DENIALS_KEPT, Denial, EvidenceKind, Housekeeping, KEPT_AFTER_END, KnownTime, StoreError,
};

/// Rows that one slice removes at most, and those that it looks at for that.
const REMOVES: usize = 128;
const LOOKS: usize = 1_024;
/// Budgets in memory that one slice goes through.
const BUDGETS: usize = 4_096;

/// [`KEPT_AFTER_END`] in milliseconds.
fn kept_ms() -> i64 {
    span_ms(KEPT_AFTER_END)
}

/// Where a round of slices goes on.
enum Place {
    /// In the budgets in memory, from this one on.
    Budgets(usize),
    /// In the revocations, after this one.
    Revocations(i64, Vec<u8>),
    /// In the agents, after this one.
    Agents(String),
    /// In the ledger, after this serial.
    Ledger(Vec<u8>),
}

/// What one slice did.
struct Slice {
    /// Rows of the ledger that it removed.
    pruned: u64,
    /// Where the next one goes on; none at the end of the round.
    next: Option<Place>,
}

/// One round of housekeeping.
pub(super) async fn round(writer: &Writer, time: KnownTime) -> Result<Housekeeping, StoreError> {
    writer.run(1, move |tx| begin(tx, time)).await?;
    let mut round = Housekeeping::default();
    let mut next = time.settled.map(|settled| (settled, Place::Budgets(0)));
    while let Some((settled, place)) = next {
        // It ends its transaction, so that whoever comes after it waits for no more.
        let done = writer
            .run(GROUP_ROWS, move |tx| slice(tx, settled, place))
            .await?;
        round.pruned += done.pruned;
        next = done.next.map(|place| (settled, place));
    }
    Ok(round)
}

/// Keeps what is known of time.
fn begin(tx: &mut Tx<'_>, time: KnownTime) -> rusqlite::Result<()> {
    if let Some(confirmed) = time.confirmed {
        tx.state.mark = tx.state.mark.max(millis(confirmed));
        set_meta(tx.conn, MARK, &tx.state.mark.to_string())?;
    }
    set_meta(tx.conn, JUMPED, if time.jumped { "1" } else { "0" })?;
    if let Some(settled) = time.settled {
        tx.state.settled = tx.state.settled.max(millis(settled));
    }
    Ok(())
}

/// The next slice of a round by this settled time.
fn slice(tx: &mut Tx<'_>, settled: SystemTime, place: Place) -> rusqlite::Result<Slice> {
    let now = millis(settled);
    let mut pruned = 0;
    let next = match place {
        Place::Budgets(from) => match tx.state.live.sweep(now - tolerance_ms(), from, BUDGETS) {
            Some(next) => Some(Place::Budgets(next)),
            None => {
                small(tx, now)?;
                Some(Place::Revocations(i64::MIN, Vec::new()))
            }
        },
        Place::Revocations(authority, serial) => Some(match revocations(tx, now, authority, &serial)? {
            Some((authority, serial)) => Place::Revocations(authority, serial),
            None => Place::Agents(String::new()),
        }),
        Place::Agents(after) => Some(match agents(tx, now - span_ms(AGENTS_KEPT), &after)? {
            Some(last) => Place::Agents(last),
            None => Place::Ledger(Vec::new()),
        }),
        Place::Ledger(after) => {
            let next;
            (pruned, next) = ledger(tx, now, &after)?;
            next.map(Place::Ledger)
        }
    };
    Ok(Slice { pruned, next })
}

/// The rows that a slice looks at: those of them that may go, and the last one if there are more.
struct Looked<K> {
    seen: usize,
    gone: Vec<K>,
    last: Option<K>,
}

impl<K: Clone> Looked<K> {
    const fn nothing() -> Self {
        Self {
            seen: 0,
            gone: Vec::new(),
            last: None,
        }
    }

    /// Notes a row; `false` where the slice ends with it.
    fn row(&mut self, key: &K, may_go: bool) -> bool {
        self.seen += 1;
        if may_go {
            self.gone.push(key.clone());
        }
        let goes_on = self.seen < LOOKS && self.gone.len() < REMOVES;
        if !goes_on {
            self.last = Some(key.clone());
        }
        goes_on
    }
}

fn revocations(
    tx: &mut Tx<'_>,
    now: i64,
    authority: i64,
    serial: &[u8],
) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    let mut looked = Looked::nothing();
    let mut statement = tx.conn.prepare_cached(
        "SELECT r.authority, r.serial, r.not_after < ?3
             AND (r.listed = 1 OR r.entered = 0 OR NOT EXISTS
                 (SELECT 1 FROM sealed_key k JOIN authority a ON a.authority_id = k.authority_id WHERE a.id = r.authority))
         FROM revocation r WHERE (r.authority, r.serial) > (?1, ?2) ORDER BY r.authority, r.serial",
    )?;
    let mut rows = statement.query(params![authority, serial, now - kept_ms()])?;
    while let Some(row) = rows.next()? {
        if !looked.row(&(row.get(0)?, row.get(1)?), row.get(2)?) {
            break;
        }
    }
    let mut delete = tx
        .conn
        .prepare_cached("DELETE FROM revocation WHERE authority = ?1 AND serial = ?2")?;
    for (authority, serial) in &looked.gone {
        delete.execute(params![authority, serial])?;
    }
    if !looked.gone.is_empty() {
        tx.state.judged = None;
    }
    Ok(looked.last)
}

/// Forgets agents whose newest certificate ended before this moment.
fn agents(tx: &mut Tx<'_>, before: i64, after: &str) -> rusqlite::Result<Option<String>> {
    let mut looked = Looked::<SpiffeId>::nothing();
    let mut statement = tx.conn.prepare_cached(
        "SELECT spiffe_id, expires_at < ?2 FROM agent WHERE spiffe_id > ?1 ORDER BY spiffe_id",
    )?;
    let mut rows = statement.query(params![after, before])?;
    while let Some(row) = rows.next()? {
        if !looked.row(&spiffe_id_at(row, 0)?, row.get(1)?) {
            break;
        }
    }
    let mut delete = tx.conn.prepare_cached("DELETE FROM agent WHERE spiffe_id = ?1")?;
    for id in &looked.gone {
        delete.execute([id.as_str()])?;
        tx.state.known_agents.forget(id);
    }
    Ok(looked.last.map(|id| id.as_str().to_owned()))
}

/// Rows of the ledger that went, and where the next slice goes on.
fn ledger(tx: &mut Tx<'_>, now: i64, after: &[u8]) -> rusqlite::Result<(u64, Option<Vec<u8>>)> {
    // Lines that were not emitted yet are written from their rows. Whatever may be pruned was recorded a day ago.
    if oldest_unemitted(tx.conn)?.is_some_and(|written| written < now - kept_ms() / 2) {
        return Ok((0, None));
    }
    let mut looked = Looked::<SerialNumber>::nothing();
    // Serials begin with the time: nothing right of this one can have expired a day ago.
    let edge = left_edge(now - kept_ms());
    let mut statement = tx.conn.prepare_cached(
        "SELECT l.serial, l.not_after < ?3
             AND (EXISTS (SELECT 1 FROM crl c WHERE c.authority = l.authority AND c.this_update > l.not_after)
                  OR NOT EXISTS (SELECT 1 FROM sealed_key k JOIN authority a ON a.authority_id = k.authority_id
                                 WHERE a.id = l.authority))
         FROM ledger l WHERE l.serial > ?1 AND l.serial < ?2 ORDER BY l.serial",
    )?;
    let mut rows = statement.query(params![after, edge.as_slice(), now - kept_ms()])?;
    while let Some(row) = rows.next()? {
        if !looked.row(&serial_at(row, 0)?, row.get(1)?) {
            break;
        }
    }
    for serial in &looked.gone {
        remove(tx, serial, now)?;
    }
    let next = looked.last.map(|serial| serial.as_bytes().to_vec());
    Ok((looked.gone.len() as u64, next))
}

/// Removes a row of the ledger, and what nothing else needs of what it names.
fn remove(tx: &mut Tx<'_>, serial: &SerialNumber, now: i64) -> rusqlite::Result<()> {
    let (workload, evidence, jti): (i64, i64, Option<String>) = tx
        .conn
        .prepare_cached("DELETE FROM ledger WHERE serial = ?1 RETURNING workload, evidence, token_jti")?
        .query_row([serial.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    if let Some(jti) = jti.filter(|_| evidence == EvidenceKind::NodeToken as i64) {
        forget_token(tx, workload, jti, now)?;
    }
    let State { workloads, live, .. } = &mut *tx.state;
    workloads.release(tx.conn, workload, live)?;
    tx.state.known_agents.forget_certificate(serial);
    Ok(())
}

fn forget_token(tx: &mut Tx<'_>, workload: i64, jti: String, now: i64) -> rusqlite::Result<()> {
    let cluster_uid = tx
        .conn
        .prepare_cached("SELECT cluster_uid FROM workload WHERE id = ?1")?
        .query_row([workload], |row| row.get(0))?;
    let token = NodeToken { cluster_uid, jti };
    let used = tx.state.node_tokens.get(&token);
    if used.is_some_and(|used| used.not_after < now - kept_ms()) {
        tx.state.node_tokens.remove(&token);
    }
    Ok(())
}

/// The smallest serial of our first layout that was made at `millis`.
fn left_edge(millis: i64) -> [u8; 7] {
    let time = millis.max(0).to_be_bytes();
    [1, time[2], time[3], time[4], time[5], time[6], time[7]]
}

/// What admins made, one by one, and one number for each agent: little at any time.
fn small(tx: &mut Tx<'_>, now: i64) -> rusqlite::Result<()> {
    let time = from_unix_millis(now);
    tx.state.agent_budgets.retain(|_, budget| !budget.is_full(time));
    tx.conn
        .prepare_cached(
            "DELETE FROM denial WHERE min(coalesce(lifted_at, ?2), coalesce(expires_at, ?2)) < ?1
               AND number < (SELECT max(number) FROM denial)",
        )?
        .execute(params![now - span_ms(DENIALS_KEPT), i64::MAX])?;
    let goes_on = |denial: &Denial| denial.expires.is_none_or(|end| millis(end) > now);
    tx.state.denials.retain(goes_on);
    Ok(())
}

fn oldest_unemitted(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT min(first), written_at FROM audit")?
        .query_row([], |row| row.get(1))
}
