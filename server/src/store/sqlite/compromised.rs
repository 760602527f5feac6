//! Keys that no certificate may carry, whatever becomes of the rows of those that did.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, params};
use signet_certs::serial::SerialNumber;

/// SHA-256 of every such key.
pub(super) fn load(conn: &Connection) -> rusqlite::Result<HashSet<[u8; 32]>> {
    let mut statement = conn.prepare("SELECT spki_sha256 FROM compromised_key")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The keys of these certificates, each named by serial and row of its authority, are compromised from now on.
pub(super) fn mark(
    conn: &Connection,
    keys: &mut HashSet<[u8; 32]>,
    certificates: impl Iterator<Item = (SerialNumber, i64)>,
) -> rusqlite::Result<()> {
    let mut key =
        conn.prepare_cached("SELECT spki_sha256 FROM ledger WHERE serial = ?1 AND authority = ?2")?;
    let mut insert =
        conn.prepare_cached("INSERT OR IGNORE INTO compromised_key (spki_sha256) VALUES (?1)")?;
    for (serial, authority) in certificates {
        let found: Option<[u8; 32]> = key
            .query_row(params![serial.as_bytes(), authority], |row| row.get(0))
            .optional()?;
        if let Some(spki_sha256) = found {
            insert.execute([spki_sha256.as_slice()])?;
            keys.insert(spki_sha256);
        }
    }
    Ok(())
}
