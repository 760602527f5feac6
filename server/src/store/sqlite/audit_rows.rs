//! Audit lines as rows: one per transaction, with all its lines in one blob.
//!
//! A certificate that was issued costs the blob its serial only; the line is written from the ledger when it is
//! emitted, which is before the row can be pruned. Layout of a blob: entries of a tag byte, a length (u32, big endian)
//! and so many bytes. Tag `J`: one event as JSON. Tag `I`: eight bytes of time in milliseconds, then serials, each with
//! its length in front.

use rusqlite::{Connection, params};
use signet_certs::serial::SerialNumber;
use signet_certs::time::from_unix_millis;

use super::convert::{millis, unreadable};
use super::schema::{AUDIT_CURSOR, AUDIT_HEAD, AUDIT_LEFT_OUT, meta_text, set_meta};
use crate::audit_event::{AuditAction, AuditCursor, AuditEvent};

/// One entry of a blob.
pub(super) enum Entry<'a> {
    Event(&'a str),
    Issued { at: i64, serial: SerialNumber },
}

const TAG_EVENT: u8 = b'J';
const TAG_ISSUED: u8 = b'I';

/// The lines of the transaction in hand.
#[derive(Default)]
pub(super) struct AuditBuffer {
    body: Vec<u8>,
    lines: u64,
    /// When the last of them happened.
    at: i64,
    /// Where the open run of serials has its length, and its time.
    run: Option<(usize, i64)>,
}

impl AuditBuffer {
    /// Adds events, in order.
    pub(super) fn events<'e>(&mut self, events: impl IntoIterator<Item = &'e AuditEvent>) {
        events.into_iter().for_each(|event| self.event(event));
    }

    /// Adds an event.
    pub(super) fn event(&mut self, event: &AuditEvent) {
        self.close_run();
        let json = event.to_json();
        self.body.push(TAG_EVENT);
        self.body.extend_from_slice(&length(json.len()));
        self.body.extend_from_slice(json.as_bytes());
        self.lines += 1;
        self.at = millis(event.time());
    }

    /// Adds that the certificate with this serial was recorded for signing.
    pub(super) fn issued(&mut self, at: i64, serial: SerialNumber) {
        if self.run.is_none_or(|(_, time)| time != at) {
            self.close_run();
            self.body.push(TAG_ISSUED);
            self.run = Some((self.body.len(), at));
            self.body.extend_from_slice(&[0; 4]);
            self.body.extend_from_slice(&at.to_be_bytes());
        }
        let bytes = serial.as_bytes();
        // A serial has at most 20 bytes.
        self.body.push(bytes.len().to_be_bytes()[size_of::<usize>() - 1]);
        self.body.extend_from_slice(bytes);
        self.lines += 1;
        self.at = at;
    }

    /// Leaves all of them out where no more may wait, and gives how many that are. Where some may, what was left out before
    /// is told first.
    pub(super) fn keep_if(
        &mut self,
        room: bool,
        conn: &Connection,
        left_out: &mut u64,
    ) -> rusqlite::Result<u64> {
        let lines = self.lines;
        if lines == 0 {
            return Ok(0);
        }
        if !room {
            *self = Self::default();
            *left_out += lines;
            set_meta(conn, AUDIT_LEFT_OUT, &left_out.to_string())?;
            return Ok(lines);
        }
        let missing = std::mem::take(left_out);
        if missing > 0 {
            set_meta(conn, AUDIT_LEFT_OUT, "0")?;
            self.begin_with(&AuditEvent::new(
                from_unix_millis(self.at),
                AuditAction::AuditLinesDropped { lines: missing },
            ));
        }
        Ok(0)
    }

    fn begin_with(&mut self, event: &AuditEvent) {
        self.close_run();
        let mut first = Self::default();
        first.event(event);
        first.body.append(&mut self.body);
        self.body = first.body;
        self.lines += 1;
    }

    fn close_run(&mut self) {
        if let Some((start, _)) = self.run.take() {
            let size = length(self.body.len() - start - 4);
            if let Some(field) = self.body.get_mut(start..start + 4) {
                field.copy_from_slice(&size);
            }
        }
    }

    /// Writes the row, if there is anything to say: its first line is number `first`. Returns how many lines it has.
    pub(super) fn write(
        &mut self,
        conn: &Connection,
        first: u64,
        boot: u64,
        at: i64,
    ) -> rusqlite::Result<u64> {
        self.close_run();
        if self.lines == 0 {
            return Ok(0);
        }
        conn.prepare_cached(
            "INSERT INTO audit (first, count, boot, written_at, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            first.cast_signed(),
            self.lines.cast_signed(),
            boot.cast_signed(),
            at,
            self.body,
        ])?;
        Ok(self.lines)
    }
}

fn length(bytes: usize) -> [u8; 4] {
    // A transaction has at most a few thousand lines of bounded length: far below 4 GiB.
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

/// Calls `visit` for every line of a blob, in order.
pub(super) fn for_each_line(
    body: &[u8],
    mut visit: impl FnMut(Entry<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let damaged = || unreadable(0, "audit row");
    let mut rest = body;
    while let [tag, tail @ ..] = rest {
        let (size, tail) = tail.split_first_chunk::<4>().ok_or_else(damaged)?;
        let size = usize::try_from(u32::from_be_bytes(*size)).map_err(|_| damaged())?;
        let (entry, tail) = tail.split_at_checked(size).ok_or_else(damaged)?;
        rest = tail;
        match *tag {
            TAG_EVENT => visit(Entry::Event(std::str::from_utf8(entry).map_err(|_| damaged())?))?,
            TAG_ISSUED => {
                let (at, serials) = entry.split_first_chunk::<8>().ok_or_else(damaged)?;
                let at = i64::from_be_bytes(*at);
                for_each_serial(serials, |serial| visit(Entry::Issued { at, serial }))?;
            }
            _ => return Err(damaged()),
        }
    }
    Ok(())
}

fn for_each_serial(
    mut serials: &[u8],
    mut visit: impl FnMut(SerialNumber) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let damaged = || unreadable(0, "serial in an audit row");
    while let [size, tail @ ..] = serials {
        let (serial, tail) = tail.split_at_checked(usize::from(*size)).ok_or_else(damaged)?;
        serials = tail;
        visit(SerialNumber::from_unsigned(serial).map_err(|_| damaged())?)?;
    }
    Ok(())
}

/// How far emission has come.
pub(super) fn read_cursor(conn: &Connection) -> rusqlite::Result<AuditCursor> {
    match meta_text(conn, AUDIT_CURSOR)? {
        Some(text) => text.parse().map_err(|_| unreadable(0, "audit cursor")),
        None => Ok(AuditCursor::default()),
    }
}

/// The newest signed head.
pub(super) fn read_head(conn: &Connection) -> rusqlite::Result<Option<String>> {
    meta_text(conn, AUDIT_HEAD)
}

/// Saves how far emission has come and drops the rows that lie wholly before. A cursor never goes back.
pub(super) fn advance(conn: &Connection, cursor: &AuditCursor, head: Option<&str>) -> rusqlite::Result<()> {
    if cursor.sequence < read_cursor(conn)?.sequence {
        return Ok(());
    }
    set_meta(conn, AUDIT_CURSOR, &cursor.to_string())?;
    if let Some(head) = head {
        set_meta(conn, AUDIT_HEAD, head)?;
    }
    conn.prepare_cached("DELETE FROM audit WHERE first <= ?1 AND first + count - 1 <= ?1")?
        .execute([cursor.sequence.cast_signed()])?;
    Ok(())
}
