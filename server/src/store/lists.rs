//! The lists that tell the world, and the number of the bundle they come with.

use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::crl::{CrlNumber, RevokedEntry};

use super::{ListRoom, StoreError, StoreFuture};

/// What a store keeps of what is published.
pub(crate) trait Lists: Send + Sync {
    /// Lets revoked certificates that no list names onto the lists where there is room: in the order of their class, those
    /// that end last first. Nothing that is listed leaves for them. A list that is in no room has no bound. What has
    /// ended by `earliest`, the earliest time it may be, stays where it is.
    fn admit(&self, rooms: Vec<ListRoom>, earliest: SystemTime) -> StoreFuture<'_, Admitted>;

    /// What the next CRL of `authority` has to list: all that was let onto it and is either unexpired or not yet listed
    /// on a CRL issued after its expiry (RFC 5280 §3.3, CRL-19). Sorted by serial.
    fn revoked(&self, authority: AuthorityId) -> StoreFuture<'_, RevokedSet>;

    /// Keeps a signed CRL as the one to serve. Refuses a number that does not grow and a list older than the one
    /// stored ([`StoreError::NotNewer`]).
    fn save_crl(&self, crl: StoredCrl) -> StoreFuture<'_, ()>;

    /// The newest CRL of every authority.
    fn load_crls(&self) -> StoreFuture<'_, Vec<StoredCrl>>;

    /// The sequence number of a bundle with this content: the current one when the content is the current one, else
    /// the next. Never goes back.
    fn next_sequence(&self, content_digest: [u8; 32]) -> StoreFuture<'_, u64>;
}

/// What became of those that wait for a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// A [`RevokedSet`] of this revision contains all that was ever let in.
    pub revision: u64,
    /// How many go on waiting, by room.
    pub waiting: Vec<usize>,
}

/// What a CRL has to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevokedSet {
    /// Sorted by serial.
    pub entries: Vec<RevokedEntry>,
    /// Which revocations it contains: all up to this one that were let onto the list.
    pub revision: u64,
}

/// A signed CRL with what is needed to serve and to follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredCrl {
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

impl StoredCrl {
    /// Whether it may follow the stored one with this number and revision.
    pub(super) fn check_follows(&self, number: CrlNumber, revision: u64) -> Result<(), StoreError> {
        let (what, stored, offered) = if self.number <= number {
            ("number", number.0, self.number.0)
        } else if self.revision < revision {
            // A higher number on an older set would take revocations back.
            ("revision", revision, self.revision)
        } else {
            return Ok(());
        };
        Err(StoreError::NotNewer {
            authority: self.authority,
            what,
            stored,
            offered,
        })
    }
}
