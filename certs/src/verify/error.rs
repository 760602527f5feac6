//! Why peers are not believed, in words for people.

use std::fmt;

use crate::authority::{AuthorityId, OutsideLife};
use crate::certificate::CertificateError;
use crate::dates::{OutsideDates, WhoseClock};
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::serial::SerialNumber;

/// Why a certificate was not believed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Nothing was presented.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// Not a certificate.
    #[error("the certificate is unusable: {0}")]
    Malformed(#[from] CertificateError),
    /// A leaf that breaks a rule of the X509-SVID standard.
    #[error("the certificate is no X.509-SVID: {0}")]
    NotAnSvid(&'static str),
    /// Its URI name is no SPIFFE ID.
    #[error("the certificate's URI name is no SPIFFE ID: {0}")]
    BadId(#[from] IdError),
    /// What follows the leaf is not usable.
    #[error("a certificate above the leaf is unusable: {0}")]
    Chain(String),
    /// Chain and private key do not belong together.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// No authorities are known for its trust domain.
    #[error("trust domain {0} is not trusted here")]
    UnknownTrustDomain(TrustDomain),
    /// No path to an authority of its trust domain.
    #[error("{id} does not chain to an authority of its trust domain: {reason}")]
    Untrusted {
        /// The ID it claims.
        id: SpiffeId,
        /// What path building said.
        reason: String,
    },
    /// Past notAfter.
    #[error("the certificate {0}")]
    Expired(OutsideDates),
    /// Before notBefore.
    #[error("the certificate {0}")]
    NotYetValid(OutsideDates),
    /// The authority is no longer, or not yet, valid.
    #[error(transparent)]
    AuthorityNotValid(#[from] OutsideLife),
    /// The authority left the bundle.
    #[error("authority {0} is no longer trusted")]
    AuthorityGone(AuthorityId),
    /// No CRL is at hand.
    #[error("no CRL of authority {0} is at hand, so revocation cannot be ruled out")]
    CrlMissing(AuthorityId),
    /// The CRL at hand has ended.
    #[error("the CRL of authority {} {}; so revocation cannot be ruled out", .0.authority, .0.dates)]
    CrlStale(OutsideLife),
    /// Listed in the CRL.
    #[error("certificate {serial} of {id} is revoked")]
    Revoked {
        /// Its ID.
        id: SpiffeId,
        /// Its serial.
        serial: SerialNumber,
    },
    /// Valid, but not whom we talk to.
    #[error("{0} is not accepted as a peer here")]
    NotAllowed(SpiffeId),
}

impl VerifyError {
    /// The same, where it is about dates judged by this clock.
    #[must_use]
    pub fn by(self, clock: WhoseClock) -> Self {
        match self {
            Self::Expired(dates) => Self::Expired(dates.by(clock)),
            Self::NotYetValid(dates) => Self::NotYetValid(dates.by(clock)),
            Self::AuthorityNotValid(life) => Self::AuthorityNotValid(life.by(clock)),
            Self::CrlStale(life) => Self::CrlStale(life.by(clock)),
            other => other,
        }
    }

    /// The dates of the certificate, where the moment was outside of them.
    #[must_use]
    pub fn dates(&self) -> Option<OutsideDates> {
        match self {
            Self::Expired(dates) | Self::NotYetValid(dates) => Some(*dates),
            _ => None,
        }
    }
}

impl From<OutsideDates> for VerifyError {
    fn from(dates: OutsideDates) -> Self {
        if dates.has_ended() {
            Self::Expired(dates)
        } else {
            Self::NotYetValid(dates)
        }
    }
}

// rustls shows errors of its callers by `Debug` alone, inside its own messages: words serve people better there.
impl fmt::Debug for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
