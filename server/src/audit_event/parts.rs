//! Parts of audit lines, and what becomes of one in a store.

use serde::Serialize;
use signet_certs::authority::AuthorityId;
use signet_certs::serial::SerialNumber;

use super::written::text;

/// A serial in an audit line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RevokedSerial {
    /// Whose list names it.
    #[serde(serialize_with = "text")]
    pub authority: AuthorityId,
    /// The serial.
    #[serde(serialize_with = "text")]
    pub serial: SerialNumber,
}

/// An event as stored: everything but its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredLine {
    /// Its position, counted from 1 over the life of the store.
    pub sequence: u64,
    /// The boot in which it was stored.
    pub boot: u64,
    /// A JSON object.
    pub body: String,
}
