//! How far the audit log has come.

use std::fmt::{self, Display};
use std::str::FromStr;

/// The end of the chain: the position and hash of its last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditCursor {
    /// Position of the last line; 0 before the first.
    pub sequence: u64,
    /// SHA-256 of the last line, without its newline; zeros before the first.
    pub hash: [u8; 32],
}

impl Display for AuditCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sequence, hex::encode(self.hash))
    }
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an audit cursor: expected a number and 64 hexadecimal digits")]
pub(crate) struct CursorError;

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
