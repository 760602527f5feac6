//! Certificate revocation lists: complete ones only, no deltas, no shards, no IssuingDistributionPoint.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
#[cfg(feature = "issue")]
use serde::{Deserialize, Serialize};

use crate::authority::{AuthorityCertificate, AuthorityError, AuthorityId};
use crate::der::DerError;
use crate::pem;
use crate::serial::{SerialError, SerialNumber};
use crate::time::{from_unix_millis, rfc3339};

mod inspect;
mod read;
mod reason;
#[cfg(feature = "issue")]
mod sign;
#[cfg(test)]
mod tests;

pub use inspect::{CrlInfo, inspect_crl};
pub use reason::{RevocationReason, UnknownReason};
#[cfg(feature = "issue")]
pub use sign::sign_crl;

/// How far a CRL's number or thisUpdate may lie ahead of our clock.
pub const MAX_AHEAD: Duration = Duration::from_secs(600);

/// Why a CRL was not made, not believed, or not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Not strict DER.
    #[error("the CRL is not DER: {0}")]
    Der(#[from] DerError),
    /// DER of something else, or a part that does not parse.
    #[error("the bytes are not a CRL: {0}")]
    Malformed(String),
    /// RFC 5280 §5: a required part is missing or a forbidden one present.
    #[error("the CRL is not one that may be used: {0}")]
    Unacceptable(String),
    /// A serial in it is none.
    #[error("the CRL lists a bad serial: {0}")]
    Serial(#[from] SerialError),
    /// Signed by another authority than expected.
    #[error("the CRL was not issued by authority {0}")]
    Issuer(AuthorityId),
    /// The signature does not verify.
    #[error("the CRL's signature by authority {0} does not verify")]
    Signature(AuthorityId),
    /// The authority may not sign CRLs or is not usable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// nextUpdate is not later than thisUpdate.
    #[error("nextUpdate {next_update} is not later than thisUpdate {this_update}")]
    Period {
        /// RFC 3339.
        this_update: String,
        /// RFC 3339.
        next_update: String,
    },
    /// The key did not sign.
    #[error("cannot sign the CRL: {0}")]
    Sign(String),
    /// An older list than the one in force.
    #[error("CRL number {offered} does not replace number {held}")]
    Rollback {
        /// The number in force.
        held: CrlNumber,
        /// The number offered.
        offered: CrlNumber,
    },
    /// Two different lists with one number: someone signed behind the store's back.
    #[error("two different CRLs have number {0}")]
    Conflict(CrlNumber),
    /// Number or thisUpdate lies in the future.
    #[error("the CRL's number or thisUpdate is more than 10 minutes ahead of this clock")]
    Ahead,
}

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedEntry {
    /// Its serial.
    pub serial: SerialNumber,
    /// When the revocation was recorded.
    pub revoked_at: SystemTime,
    /// Why.
    pub reason: RevocationReason,
    /// Since when whoever holds it is not to be believed, where somebody knows: often before anybody revoked it.
    pub invalid_since: Option<SystemTime>,
}

/// The number of a CRL; it never falls for one authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "issue", derive(Serialize, Deserialize), serde(transparent))]
pub struct CrlNumber(pub u64);

impl CrlNumber {
    /// The number after `stored`; the first of an authority is 1. None follows the clock: one wrong reading would raise all that
    /// come, and readers refuse a number that lies ahead of theirs, read as milliseconds.
    #[must_use]
    pub fn next(stored: Option<Self>) -> Self {
        Self(stored.map_or(1, |stored| stored.0.saturating_add(1)))
    }
}

impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A CRL whose signature was verified. Cheap to clone; equal when its bytes are.
#[derive(Clone)]
pub struct Crl(Arc<Inner>);

struct Inner {
    der: Bytes,
    sha256: [u8; 32],
    authority_id: AuthorityId,
    number: CrlNumber,
    this_update: SystemTime,
    next_update: SystemTime,
    /// By serial, none twice.
    entries: Vec<RevokedEntry>,
}

impl Crl {
    /// Reads a CRL and verifies it against its issuer (conformance CRL-27): v2, signed by this key under this
    /// name, with AuthorityKeyIdentifier, number and nextUpdate, nothing critical that is unknown, no serial
    /// twice. Whether it is current is a question of its own: [`is_current`](Self::is_current).
    pub fn verify(der: &[u8], issuer: &AuthorityCertificate) -> Result<Self, CrlError> {
        read::verify(Bytes::copy_from_slice(der), issuer).map(|inner| Self(Arc::new(inner)))
    }

    /// The bytes; cloning them copies nothing.
    #[must_use]
    pub fn der(&self) -> &Bytes {
        &self.0.der
    }

    /// The CRL as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("X509 CRL", &self.0.der)
    }

    /// SHA-256 of the bytes; made once, when the list was read.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.0.sha256
    }

    /// Who signed it.
    #[must_use]
    pub fn authority_id(&self) -> AuthorityId {
        self.0.authority_id
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> CrlNumber {
        self.0.number
    }

    /// Begin of its validity.
    #[must_use]
    pub fn this_update(&self) -> SystemTime {
        self.0.this_update
    }

    /// End of its validity.
    #[must_use]
    pub fn next_update(&self) -> SystemTime {
        self.0.next_update
    }

    /// How many certificates it lists.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether it lists this serial.
    #[must_use]
    pub fn is_revoked(&self, serial: &SerialNumber) -> bool {
        self.0
            .entries
            .binary_search_by(|entry| entry.serial.cmp(serial))
            .is_ok()
    }

    /// What it lists, by serial.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &RevokedEntry> {
        self.0.entries.iter()
    }

    /// Whether nextUpdate has not passed. thisUpdate may be ahead of our clock: a fresh list is not refused
    /// for skew.
    #[must_use]
    pub fn is_current(&self, now: SystemTime) -> bool {
        now <= self.0.next_update
    }

    /// Refuses a list from the future: whoever sets a far number could block every later one.
    pub fn check_not_ahead(&self, now: SystemTime) -> Result<(), CrlError> {
        let limit = now.checked_add(MAX_AHEAD).unwrap_or(now);
        let number = from_unix_millis(i64::try_from(self.0.number.0).unwrap_or(i64::MAX));
        if number > limit || self.0.this_update > limit {
            Err(CrlError::Ahead)
        } else {
            Ok(())
        }
    }

    /// Whether this list may take the place of `older` from the same authority: the number grows and thisUpdate does not
    /// fall, or it is the same list again. From a list that is dated ahead of our clock thisUpdate may fall: its signer's
    /// clock was ahead and has been set right, and what is revoked since must not wait until we get there.
    pub fn may_replace(&self, older: &Self, now: SystemTime) -> Result<(), CrlError> {
        if self.0.authority_id != older.0.authority_id {
            return Err(CrlError::Issuer(older.0.authority_id));
        }
        if self.0.der == older.0.der {
            return Ok(());
        }
        let (held, offered) = (older.0.number, self.0.number);
        if offered == held {
            return Err(CrlError::Conflict(offered));
        }
        let falls = self.0.this_update < older.0.this_update && older.0.this_update <= now;
        if offered < held || falls {
            return Err(CrlError::Rollback { held, offered });
        }
        self.check_not_ahead(now)
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Crl {}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("authority_id", &self.0.authority_id)
            .field("number", &self.0.number)
            .field("entries", &self.0.entries.len())
            .finish_non_exhaustive()
    }
}

fn check_period(this_update: SystemTime, next_update: SystemTime) -> Result<(), CrlError> {
    if next_update > this_update {
        return Ok(());
    }
    Err(CrlError::Period {
        this_update: rfc3339(this_update),
        next_update: rfc3339(next_update),
    })
}
