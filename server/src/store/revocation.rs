//! Revocations, denials, and the lists that tell the world.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::crl::{CrlNumber, RevocationReason, RevokedEntry};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

/// Longest comment and author of a revocation, in bytes.
pub const MAX_COMMENT_BYTES: usize = 1024;

/// What an admin wants revoked.
#[derive(Clone, Debug)]
pub struct RevokeRequest {
    /// What.
    pub target: RevokeTarget,
    /// Why, for the CRL.
    pub reason: RevocationReason,
    /// Why, for people. At most [`MAX_COMMENT_BYTES`].
    pub comment: String,
    /// Who says so. At most [`MAX_COMMENT_BYTES`].
    pub author: String,
    /// Revoke what exists, deny nothing.
    pub keep_issuing: bool,
    /// When the denial ends by itself.
    pub denial_expires: Option<SystemTime>,
    /// Most entries that a list may have: what the publisher can sign. A revocation over it is refused before anything
    /// is recorded; else the list could never be renewed, and whoever fails closed would refuse everybody.
    pub list_limit: usize,
    /// Time of the revocation.
    pub now: SystemTime,
}

/// What a revocation is aimed at. Room for prefix, pod, node and authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeTarget {
    /// One certificate: its key leaked. Denies nothing, its holder gets another at once.
    Serial {
        /// The certificate's serial.
        serial: SerialNumber,
        /// Its authority. Needed for a serial that the ledger lacks; where the ledger has the serial under another
        /// authority, the named one counts.
        authority: Option<AuthorityId>,
        /// Until when the list must name a certificate that the ledger lacks: the end of its authority. Without it,
        /// as long as the authority signs lists.
        expires_by: Option<SystemTime>,
    },
    /// All unexpired certificates of an identity, and it is denied from now on.
    SpiffeId(SpiffeId),
}

impl fmt::Display for RevokeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { serial, .. } => write!(f, "serial {serial}"),
            Self::SpiffeId(id) => id.fmt(f),
        }
    }
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// What is revoked now, by serial: newly, or already before.
    pub svids: Vec<RevokedSvid>,
    /// The denial, where one is in force.
    pub denial: Option<Denial>,
    /// A [`RevokedSet`] and a CRL of this revision or later contain all of it.
    pub revision: u64,
}

/// One revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedSvid {
    /// Its serial.
    pub serial: SerialNumber,
    /// Whose list names it.
    pub authority: AuthorityId,
    /// Its identity; `None` when the ledger lacks the certificate.
    pub spiffe_id: Option<SpiffeId>,
}

/// A standing order not to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Short, unique for ever.
    pub id: String,
    /// How to read the target.
    pub kind: DenialKind,
    /// What is denied.
    pub target: String,
    /// Who ordered it.
    pub author: String,
    /// Why, for people.
    pub comment: String,
    /// Since when.
    pub created: SystemTime,
    /// When it ends by itself.
    pub expires: Option<SystemTime>,
    /// Whether somebody has lifted it.
    pub lifted: Option<Lifted>,
}

impl Denial {
    /// Whether it is in force.
    pub fn is_active(&self, now: SystemTime) -> bool {
        self.lifted.is_none() && self.expires.is_none_or(|end| now < end)
    }
}

/// The end of a denial by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifted {
    /// When.
    pub at: SystemTime,
    /// By whom.
    pub by: String,
}

/// How the target of a denial is read. The names are stored. Room for `prefix`, `pod`, `node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenialKind {
    /// Exactly one SPIFFE ID.
    SpiffeId,
}

impl DenialKind {
    /// The name in lists and audit lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpiffeId => "spiffe-id",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        (text == Self::SpiffeId.as_str()).then_some(Self::SpiffeId)
    }
}

/// What a CRL has to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedSet {
    /// Sorted by serial.
    pub entries: Vec<RevokedEntry>,
    /// Which revocations it contains: all up to this one.
    pub revision: u64,
}

/// A signed CRL with what is needed to serve and to follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCrl {
    /// Whose.
    pub authority: AuthorityId,
    /// CRLNumber; grows with every save.
    pub number: CrlNumber,
    /// The list itself.
    pub der: Bytes,
    /// When the list says it was made.
    pub this_update: SystemTime,
    /// When the list says it ends.
    pub next_update: SystemTime,
    /// Revision of the [`RevokedSet`] it was made from.
    pub revision: u64,
}
