//! Why peers are not believed, in words for people.

use std::fmt;
use std::time::SystemTime;

use crate::authority::{AuthorityId, OutsideLife};
use crate::certificate::CertificateError;
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::serial::SerialNumber;
use crate::time::rfc3339;

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
    #[error("the certificate expired at {}", rfc3339(*.0))]
    Expired(SystemTime),
    /// Before notBefore.
    #[error("the certificate is not valid before {}; compare the clocks", rfc3339(*.0))]
    NotYetValid(SystemTime),
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
    #[error("the CRL of authority {0} is out of date, so revocation cannot be ruled out")]
    CrlStale(AuthorityId),
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

// rustls shows errors of its callers by `Debug` alone, inside its own messages: words serve people better there.
impl fmt::Debug for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
