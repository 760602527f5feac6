//! Lines, their positions, and the chain of hashes through them.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};

/// An event as stored: everything but its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLine {
    /// Its position, counted from 1 over the life of the store.
    pub sequence: u64,
    /// The boot in which it was stored.
    pub boot: u64,
    /// A JSON object.
    pub body: String,
}

/// The end of the chain: the position and hash of its last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCursor {
    /// Position of the last line; 0 before the first.
    pub sequence: u64,
    /// SHA-256 of the last line, without its newline; zeros before the first.
    pub hash: [u8; 32],
}

impl AuditCursor {
    /// Puts a stored line behind this end. Returns the line to emit, without newline, and the new end. The same line
    /// behind the same end is always the same text.
    pub(crate) fn extend(&self, server_id: &str, line: &StoredLine) -> (String, Self) {
        let StoredLine { sequence, boot, body } = line;
        let previous = hex::encode(self.hash);
        let members = body.strip_prefix('{').unwrap_or(body);
        let text = format!(
            "{{\"server\":\"{server_id}\",\"boot\":{boot},\"sequence\":{sequence},\"previous\":\"{previous}\",{members}"
        );
        let end = Self {
            sequence: *sequence,
            hash: hash_of(&text),
        };
        (text, end)
    }
}

/// SHA-256 of a line.
pub(crate) fn hash_of(line: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, line.as_bytes()).as_ref());
    hash
}

impl fmt::Display for AuditCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sequence, hex::encode(self.hash))
    }
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an audit cursor: expected a number and 64 hexadecimal digits")]
pub struct CursorError;

impl FromStr for AuditCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (sequence, hex_hash) = text.split_once(' ').ok_or(CursorError)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(hex_hash, &mut hash).map_err(|_| CursorError)?;
        Ok(Self {
            sequence: sequence.parse().map_err(|_| CursorError)?,
            hash,
        })
    }
}
