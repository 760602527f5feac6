//! Why trust is not taken over. Pure.

use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlError;
use thiserror::Error;

/// Why a bundle is not believed. The one that was held before stays in force.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    /// No authority of one kind.
    #[error("the update holds no {0} authority")]
    Empty(&'static str),
    /// The sequence number fell.
    #[error(
        "the bundle's sequence number fell from {held} to {offered}; was the server restored from a backup?"
    )]
    Rollback {
        /// In force.
        held: u64,
        /// In the update.
        offered: u64,
    },
    /// One number, two contents.
    #[error("two different bundles carry sequence number {0}; was the server restored from a backup?")]
    Conflict(u64),
    /// The store's epoch fell.
    #[error(
        "the server's epoch fell from {held} to {offered}; was an old store put in place without a restore?"
    )]
    Epoch {
        /// In force.
        held: u64,
        /// In the update.
        offered: u64,
    },
    /// Whoever said it may have the key of an authority that the anchors file distrusts.
    #[error("it came over a connection to a server whose control authority the anchors file distrusts")]
    Distrusted,
    /// An authority that had to leave is back.
    #[error("authority {0} left because it was not to be trusted any more; rotate it out of the bundle")]
    Departed(AuthorityId),
    /// Not an authority, or one of another trust domain.
    #[error("an authority is not usable: {0}")]
    Authority(String),
    /// One authority in two roles, or named twice.
    #[error("authority {0} appears twice")]
    Twice(AuthorityId),
    /// An authority of which no CRL is held comes with one that is on its way still, or was kept with one that is damaged.
    #[error("authority {authority} comes without a usable CRL: {problem}")]
    Crl {
        /// Whose.
        authority: AuthorityId,
        /// Why not.
        problem: CrlError,
    },
}
