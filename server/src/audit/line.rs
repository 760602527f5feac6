//! The chain of hashes through the lines.

use ring::digest::{SHA256, digest};

use crate::audit_event::{AuditCursor, StoredLine};

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
