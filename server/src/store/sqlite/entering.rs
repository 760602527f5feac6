//! Which revoked certificates go onto the lists, and which wait for room.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use super::convert::{millis, serial_at, text_at, unreadable};
use super::judged::Judged;
use super::look::Look;
use super::read::Reader;
use super::schema::{REVISION, meta_number, set_meta};
use super::state::Authorities;
use super::writer::{Tx, Writer};
use crate::store::room::{Class, Room, Waiting, weight};
use crate::store::{Admitted, ListRoom, StoreError};

/// A revocation: row of its authority, and serial.
pub(super) type Key = (i64, SerialNumber);

/// See [`Lists::admit`](crate::store::Lists::admit). Mostly nothing waits, and the writer is left alone.
pub(super) async fn admit_waiting(
    reader: &Reader,
    writer: &Writer,
    rooms: Vec<ListRoom>,
    earliest: SystemTime,
) -> Result<Admitted, StoreError> {
    let look = |tx: &Transaction<'_>| Ok((anything_waits(tx)?, meta_number(tx, REVISION)?));
    let (anything, revision) = reader.run(look).await?;
    if !anything {
        let waiting = vec![0; rooms.len()];
        return Ok(Admitted { revision, waiting });
    }
    let let_in = move |tx: &mut Tx<'_>| {
        let left = admit(tx, &rooms, millis(earliest))?;
        Ok(Admitted {
            revision: tx.state.revision,
            waiting: left.iter().map(Vec::len).collect(),
        })
    };
    writer.run_protecting(1, let_in).await
}

/// Whether anything waits. Reads an index that is mostly empty.
pub(super) fn anything_waits(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM revocation WHERE entered = 0)")?
        .query_row([], |row| row.get(0))
}

/// Lets in what fits of these, which were revoked or asked for again, and of all that waits where that may have come to fit; returns what
/// of these goes on waiting, and maybe more that does.
pub(super) fn admit_asked(
    tx: &mut Tx<'_>,
    rooms: &[ListRoom],
    earliest: i64,
    asked: impl Iterator<Item = Key>,
) -> rusqlite::Result<Vec<Key>> {
    if tx
        .state
        .judged
        .as_ref()
        .is_none_or(|judged| judged.rooms != rooms)
    {
        return Ok(admit(tx, rooms, earliest)?.concat());
    }
    let mut waiting = Vec::new();
    for (authority, serial) in asked {
        let mut one = tx
            .conn
            .prepare_cached(&format!("{WAITING} AND authority = ?2 AND serial = ?3"))?;
        let found = one.query_row(params![earliest, authority, serial.as_bytes()], waiting_from);
        waiting.extend(found.optional()?);
    }
    Ok(let_in(tx, rooms, waiting)?.concat())
}

/// Lets in what fits, and returns what goes on waiting, by room.
pub(super) fn admit(tx: &mut Tx<'_>, rooms: &[ListRoom], earliest: i64) -> rusqlite::Result<Vec<Vec<Key>>> {
    let waiting = waiting_at(tx.conn, earliest)?;
    tx.state.judged = None;
    let_in(tx, rooms, waiting)
}

fn let_in(
    tx: &mut Tx<'_>,
    rooms: &[ListRoom],
    waiting: Vec<Waiting<Key>>,
) -> rusqlite::Result<Vec<Vec<Key>>> {
    let look = Look {
        conn: tx.conn,
        authorities: &tx.state.authorities,
        live: None,
    };
    let used = tx.state.judged.take().map(|judged| judged.used);
    let (entering, left, used) = judge(&look, rooms, waiting, used)?;
    tx.state.judged = used.map(|used| Judged {
        rooms: rooms.to_vec(),
        used,
    });
    enter(tx, &entering)?;
    Ok(left)
}

/// Those that would go on waiting, had these come to what waits, or asked again.
pub(super) fn would_wait(
    look: &Look<'_>,
    rooms: &[ListRoom],
    earliest: i64,
    fresh: Vec<Waiting<Key>>,
) -> rusqlite::Result<Vec<Key>> {
    let asked: HashSet<Key> = fresh.iter().map(|one| one.key).collect();
    let mut waiting = waiting_at(look.conn, earliest)?;
    waiting.retain(|one| !asked.contains(&one.key));
    waiting.extend(fresh);
    let (_, left, _) = judge(look, rooms, waiting, None)?;
    Ok(left.concat())
}

/// What enters, what goes on waiting by room, and how full the rooms are then, where somebody has looked.
type Verdict = (Vec<Key>, Vec<Vec<Key>>, Option<Vec<Room>>);

/// Who of these enters, and who goes on waiting. `used` is how full the rooms are, where that is known.
fn judge(
    look: &Look<'_>,
    rooms: &[ListRoom],
    candidates: Vec<Waiting<Key>>,
    used: Option<Vec<Room>>,
) -> rusqlite::Result<Verdict> {
    let which = which_room(look.authorities, rooms);
    let mut entering = Vec::new();
    let mut waiting = vec![Vec::new(); rooms.len()];
    for candidate in candidates {
        let room = which
            .get(&candidate.key.0)
            .and_then(|room| waiting.get_mut(*room));
        match room {
            Some(room) => room.push(candidate),
            None => entering.push(candidate.key),
        }
    }
    let mut used = match used {
        Some(used) => used,
        None if waiting.iter().all(Vec::is_empty) => return Ok((entering, waiting_keys(waiting), None)),
        None => listed(look.conn, rooms, &which)?,
    };
    let mut left = Vec::with_capacity(rooms.len());
    for (room, waiting) in used.iter_mut().zip(waiting) {
        let (enters, stays) = room.admit(waiting);
        entering.extend(enters.into_iter().map(|one| one.key));
        left.push(stays);
    }
    Ok((entering, waiting_keys(left), Some(used)))
}

fn waiting_keys(waiting: Vec<Vec<Waiting<Key>>>) -> Vec<Vec<Key>> {
    let keys = |room: Vec<Waiting<Key>>| room.into_iter().map(|one| one.key).collect();
    waiting.into_iter().map(keys).collect()
}

/// What waits and was asked for again enters by the better of its classes.
pub(super) fn raise(tx: &Tx<'_>, class: Class, asked: impl Iterator<Item = Key>) -> rusqlite::Result<()> {
    let mut asked = asked.peekable();
    if asked.peek().is_none() || !anything_waits(tx.conn)? {
        return Ok(());
    }
    let mut read = tx.conn.prepare_cached(
        "SELECT class FROM revocation WHERE authority = ?1 AND serial = ?2 AND entered = 0",
    )?;
    let mut write = tx
        .conn
        .prepare_cached("UPDATE revocation SET class = ?3 WHERE authority = ?1 AND serial = ?2")?;
    for (authority, serial) in asked {
        let stored = read
            .query_row(params![authority, serial.as_bytes()], |row| class_at(row, 0))
            .optional()?;
        if stored.is_some_and(|stored| class < stored) {
            write.execute(params![authority, serial.as_bytes(), class.as_str()])?;
        }
    }
    Ok(())
}

pub(super) fn class_at(row: &Row<'_>, index: usize) -> rusqlite::Result<Class> {
    Class::parse(text_at(row, index)?).ok_or_else(|| unreadable(index, "class of a revocation"))
}

/// The room of each list that is in one.
fn which_room(authorities: &Authorities, rooms: &[ListRoom]) -> HashMap<i64, usize> {
    let lists = rooms.iter().enumerate().flat_map(|(index, room)| {
        let known = room.authorities.iter();
        known.filter_map(move |id| Some((authorities.known(id)?, index)))
    });
    lists.collect()
}

/// Columns as [`waiting_from`] reads them.
const WAITING: &str = "SELECT authority, serial, class, not_after, invalid_since IS NOT NULL FROM revocation
     WHERE entered = 0 AND not_after > ?1";

fn waiting_at(conn: &Connection, earliest: i64) -> rusqlite::Result<Vec<Waiting<Key>>> {
    let mut statement = conn.prepare_cached(WAITING)?;
    let rows = statement.query_map([earliest], waiting_from)?;
    rows.collect()
}

fn waiting_from(row: &Row<'_>) -> rusqlite::Result<Waiting<Key>> {
    Ok(Waiting {
        key: (row.get(0)?, serial_at(row, 1)?),
        class: class_at(row, 2)?,
        not_after: from_unix_millis(row.get(3)?),
        weight: weight(row.get(4)?),
    })
}

fn listed(conn: &Connection, rooms: &[ListRoom], which: &HashMap<i64, usize>) -> rusqlite::Result<Vec<Room>> {
    let mut used: Vec<Room> = rooms.iter().map(|room| Room::of(room.capacity)).collect();
    let mut statement = conn.prepare_cached(
        "SELECT authority, class, sum(CASE WHEN invalid_since IS NULL THEN 1 ELSE 2 END) FROM revocation
         WHERE entered = 1 AND listed = 0 GROUP BY authority, class",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let class = class_at(row, 1)?;
        let entries = usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX);
        let room = which.get(&row.get(0)?).and_then(|room| used.get_mut(*room));
        if let Some(room) = room {
            room.count(class, entries);
        }
    }
    Ok(used)
}

/// From the next revision on lists name these.
fn enter(tx: &mut Tx<'_>, entering: &[Key]) -> rusqlite::Result<()> {
    if entering.is_empty() {
        return Ok(());
    }
    tx.state.revision += 1;
    set_meta(tx.conn, REVISION, &tx.state.revision.to_string())?;
    let mut update = tx.conn.prepare_cached(
        "UPDATE revocation SET entered = 1, revision = ?3 WHERE authority = ?1 AND serial = ?2",
    )?;
    for (authority, serial) in entering {
        update.execute(params![
            authority,
            serial.as_bytes(),
            tx.state.revision.cast_signed()
        ])?;
    }
    Ok(())
}
