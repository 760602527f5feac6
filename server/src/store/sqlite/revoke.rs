//! Revocations and denials. Each is one transaction of the only writer, so issuing and revoking exclude each other.

mod finding;
mod would;

use std::collections::HashSet;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, params};
use signet_certs::crl::RevocationReason;
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use self::finding::Entry;
use super::SqliteStore;
use super::agents;
use super::compromised;
use super::convert::millis;
use super::entering::{self, Key};
use super::look::Look;
use super::read::{denial_from, denials};
use super::state::Authorities;
use super::writer::Tx;
use crate::audit_event::RevokedSerial;
use crate::store::{
    Denial, DenialTarget, Revocations, RevokeError, RevokeRequest, RevokeTarget, Revoked, RevokedSvid,
    StoreError, StoreFuture,
};

impl Revocations for SqliteStore {
    fn revoke(&self, request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError> {
        Box::pin(async move {
            request.check()?;
            self.write(move |tx| revoke(tx, &request)).await
        })
    }

    fn would_revoke(&self, request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError> {
        let checked = request.check();
        Box::pin(async move {
            checked?;
            self.scanner.run(move |tx| would::would(tx, &request)).await?
        })
    }

    fn allow(&self, denial_id: &str, by: &str, now: SystemTime) -> StoreFuture<'_, Denial> {
        let (denial_id, by) = (denial_id.to_owned(), by.to_owned());
        Box::pin(self.write(move |tx| allow(tx, &denial_id, &by, now)))
    }

    fn denials(&self, include_lifted: bool, earliest: SystemTime) -> StoreFuture<'_, Vec<Denial>> {
        Box::pin(self.reader.run(move |tx| denials(tx, include_lifted, earliest)))
    }
}

/// Marks what the target names, denies it, and writes the audit lines.
pub(super) fn revoke(
    tx: &mut Tx<'_>,
    request: &RevokeRequest,
) -> rusqlite::Result<Result<Revoked, RevokeError>> {
    let look = Look {
        conn: tx.conn,
        authorities: &tx.state.authorities,
        live: Some(tx.state),
    };
    let entries = match finding::entries(&look, request)? {
        Ok(entries) => entries,
        Err(error) => return Ok(Err(error)),
    };
    let (fresh, known): (Vec<Entry>, Vec<Entry>) = split_known(tx.conn, entries)?;
    let named = || fresh.iter().chain(&known);
    let serials: Vec<SerialNumber> = named().map(|entry| entry.serial).collect();
    agents::revoke(tx, request, &serials)?;
    if request.reason == RevocationReason::KeyCompromise {
        let certificates = named().map(|entry| (entry.serial, entry.authority));
        compromised::mark(tx.conn, &mut tx.state.compromised, certificates)?;
    }
    let (denial, is_new) = deny(tx, request)?;
    record(tx, request, &fresh)?;
    let asked_again = known.iter().map(|entry| (entry.authority, entry.serial));
    entering::raise(tx, request.class(), asked_again)?;
    let asked = fresh
        .iter()
        .chain(&known)
        .map(|entry| (entry.authority, entry.serial));
    let left = entering::admit_asked(tx, &request.rooms, millis(request.earliest), asked)?;
    let left: HashSet<Key> = left.into_iter().collect();
    if !fresh.is_empty() || is_new {
        audit(tx, request, &fresh, denial.as_ref().filter(|_| is_new))?;
    }
    let new = fresh.len();
    let mut svids = fresh
        .into_iter()
        .chain(known)
        .map(|entry| revoked_svid(&tx.state.authorities, entry, &left))
        .collect::<Result<Vec<_>, _>>()?;
    svids.sort_by_key(|svid| svid.serial);
    Ok(Ok(Revoked {
        svids,
        fresh: new,
        denial,
        revision: tx.state.revision,
    }))
}

fn revoked_svid(
    authorities: &Authorities,
    entry: Entry,
    left: &HashSet<Key>,
) -> rusqlite::Result<RevokedSvid> {
    Ok(RevokedSvid {
        waits: left.contains(&(entry.authority, entry.serial)),
        serial: entry.serial,
        authority: authorities.id(entry.authority)?,
        spiffe_id: entry.spiffe_id,
        not_after: (entry.not_after < i64::MAX).then(|| from_unix_millis(entry.not_after)),
    })
}

/// Separates what is not yet revoked from what is.
fn split_known(conn: &Connection, entries: Vec<Entry>) -> rusqlite::Result<(Vec<Entry>, Vec<Entry>)> {
    let mut known = conn.prepare_cached("SELECT 1 FROM revocation WHERE authority = ?1 AND serial = ?2")?;
    let (mut fresh, mut old) = (Vec::new(), Vec::new());
    for entry in entries {
        let is_known = known.exists(params![entry.authority, entry.serial.as_bytes()])?;
        if is_known {
            old.push(entry);
        } else {
            fresh.push(entry);
        }
    }
    Ok((fresh, old))
}

/// Records what is new. No list names it before it was [let in](entering::admit).
fn record(tx: &mut Tx<'_>, request: &RevokeRequest, fresh: &[Entry]) -> rusqlite::Result<()> {
    if fresh.is_empty() {
        return Ok(());
    }
    let mut insert = tx.conn.prepare_cached(
        "INSERT INTO revocation (authority, serial, revoked_at, reason, not_after, revision, class, entered, invalid_since)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, 0, ?7)",
    )?;
    let class = request.class().as_str();
    for entry in fresh {
        insert.execute(params![
            entry.authority,
            entry.serial.as_bytes(),
            millis(request.now),
            request.reason.as_str(),
            entry.not_after,
            class,
            request.invalid_since.map(millis),
        ])?;
    }
    forget_live(tx, &request.target, fresh)
}

/// What is revoked counts in no budget.
fn forget_live(tx: &mut Tx<'_>, target: &RevokeTarget, fresh: &[Entry]) -> rusqlite::Result<()> {
    if let RevokeTarget::SpiffeId(id) = target {
        tx.state.live.remove_id(id);
        return Ok(());
    }
    let mut find = tx
        .conn
        .prepare_cached("SELECT workload FROM ledger WHERE serial = ?1")?;
    // An entry without an identity is not this ledger's row, even where the serial is.
    for entry in fresh.iter().filter(|entry| entry.spiffe_id.is_some()) {
        let workload: Option<i64> = match entry.workload {
            Some(row) => Some(row),
            None => find
                .query_row([entry.serial.as_bytes()], |row| row.get(0))
                .optional()?,
        };
        if let Some(slot) = workload.and_then(|row| tx.state.workloads.slot_of_row(row)) {
            tx.state.live.remove(slot, entry.serial);
        }
    }
    Ok(())
}

/// The denial that follows from the request, and whether it is new. One in force that lasts as long is enough.
fn deny(tx: &mut Tx<'_>, request: &RevokeRequest) -> rusqlite::Result<(Option<Denial>, bool)> {
    let Some(target) = request.denies() else {
        return Ok((None, false));
    };
    let mut present = tx.state.denials.aimed_at(&target);
    if let Some(denial) = present.find(|denial| denial.satisfies(request)) {
        return Ok((Some(denial.clone()), false));
    }
    drop(present);
    let (number, denial) = create_denial(tx, request, target)?;
    tx.state.denials.insert(number, denial.clone());
    Ok((Some(denial), true))
}

fn create_denial(
    tx: &Tx<'_>,
    request: &RevokeRequest,
    target: DenialTarget,
) -> rusqlite::Result<(i64, Denial)> {
    // Numbers are never used again: housekeeping keeps the highest one.
    let number: i64 = tx
        .conn
        .query_row("SELECT coalesce(max(number), 0) + 1 FROM denial", [], |row| {
            row.get(0)
        })?;
    let denial = Denial::ordered(request, target, tx.state.epoch, number);
    tx.conn
        .prepare_cached(
            "INSERT INTO denial (number, id, kind, target, author, comment, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            number,
            denial.id,
            denial.target.kind(),
            denial.target.stored(),
            denial.author,
            denial.comment,
            millis(denial.created),
            denial.expires.map(millis),
        ])?;
    Ok((number, denial))
}

fn audit(
    tx: &mut Tx<'_>,
    request: &RevokeRequest,
    fresh: &[Entry],
    denial: Option<&Denial>,
) -> rusqlite::Result<()> {
    let serial = |entry: &Entry| {
        Ok(RevokedSerial {
            authority: tx.state.authorities.id(entry.authority)?,
            serial: entry.serial,
        })
    };
    let serials = fresh.iter().map(serial).collect::<rusqlite::Result<Vec<_>>>()?;
    tx.audit.events(&request.audit_events(&serials, denial));
    Ok(())
}

/// Lifts a denial.
pub(super) fn allow(
    tx: &mut Tx<'_>,
    id: &str,
    by: &str,
    now: SystemTime,
) -> rusqlite::Result<Result<Denial, StoreError>> {
    let found = tx
        .conn
        .prepare_cached(&format!("{} WHERE id = ?1", super::read::DENIALS))?
        .query_row([id], denial_from)
        .optional()?;
    let Some(mut denial) = found else {
        return Ok(Err(StoreError::NotFound {
            what: "denial",
            id: id.to_owned(),
        }));
    };
    if denial.lifted.is_some() {
        return Ok(Ok(denial));
    }
    tx.conn
        .prepare_cached("UPDATE denial SET lifted_at = ?2, lifted_by = ?3 WHERE id = ?1")?
        .execute(params![id, millis(now), by])?;
    tx.state.denials.retain(|denial| denial.id != id);
    let event = denial.lift(by, now);
    tx.audit.event(&event);
    Ok(Ok(denial))
}
