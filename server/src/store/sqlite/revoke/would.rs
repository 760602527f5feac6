//! What a revocation would do, read beside the writer: a look at the whole ledger holds up nobody.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, params};
use signet_certs::time::from_unix_millis;

use super::super::convert::millis;
use super::super::entering::{self, Key};
use super::super::look::Look;
use super::super::read;
use super::super::schema::{REVISION, meta_number};
use super::super::state::Authorities;
use super::finding::{self, Entry};
use super::{revoked_svid, split_known};
use crate::store::room::{Waiting, weight};
use crate::store::{RevokeError, RevokeRequest, Revoked};

/// Nothing is changed.
pub(super) fn would(
    conn: &Connection,
    request: &RevokeRequest,
) -> rusqlite::Result<Result<Revoked, RevokeError>> {
    let authorities = &Authorities::load(conn)?;
    let look = Look {
        conn,
        authorities,
        live: None,
    };
    let entries = match finding::entries(&look, request)? {
        Ok(entries) => entries,
        Err(error) => return Ok(Err(error)),
    };
    let (fresh, known) = split_known(conn, entries)?;
    let new = fresh.len();
    let mut candidates = Vec::new();
    for entry in fresh.iter().chain(&known) {
        candidates.extend(candidate(conn, request, entry)?);
    }
    candidates.retain(|one| one.not_after > request.earliest);
    let left = entering::would_wait(&look, &request.rooms, millis(request.earliest), candidates)?;
    let left: HashSet<Key> = left.into_iter().collect();
    let svids = fresh
        .into_iter()
        .chain(known)
        .map(|entry| revoked_svid(authorities, entry, &left));
    let mut svids = svids.collect::<rusqlite::Result<Vec<_>>>()?;
    svids.sort_by_key(|svid| svid.serial);
    let target = request.denies();
    let denials = read::denials(conn, false, request.earliest)?.into_iter();
    let mut denials = denials.filter(|denial| target.as_ref() == Some(&denial.target));
    Ok(Ok(Revoked {
        svids,
        fresh: new,
        denial: denials.find(|denial| denial.satisfies(request)),
        revision: meta_number(conn, REVISION)?,
    }))
}

/// How it would wait for room; `None` where a list names it. What waits already keeps its date, and its class where that is better.
fn candidate(
    conn: &Connection,
    request: &RevokeRequest,
    entry: &Entry,
) -> rusqlite::Result<Option<Waiting<Key>>> {
    let stored = conn
        .prepare_cached(
            "SELECT entered, class, not_after, invalid_since IS NOT NULL FROM revocation
             WHERE authority = ?1 AND serial = ?2",
        )?
        .query_row(params![entry.authority, entry.serial.as_bytes()], |row| {
            Ok((
                row.get::<_, bool>(0)?,
                entering::class_at(row, 1)?,
                row.get(2)?,
                weight(row.get(3)?),
            ))
        })
        .optional()?;
    let (class, not_after, weight) = match stored {
        Some((true, ..)) => return Ok(None),
        Some((false, class, not_after, weight)) => (class.min(request.class()), not_after, weight),
        None => (request.class(), entry.not_after, request.weight()),
    };
    Ok(Some(Waiting {
        key: (entry.authority, entry.serial),
        class,
        not_after: from_unix_millis(not_after),
        weight,
    }))
}
