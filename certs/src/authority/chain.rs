//! An authority's certificate with those that stand above it.

use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{AuthorityCertificate, AuthorityError};
use crate::certificate::Certificate;

/// Most certificates of a chain: with the leaf before it, what every reader looks at.
pub const MAX_AUTHORITY_CHAIN: usize = 7;

/// The certificates of an authority: its own first, then that of who signed it, and so on; the last one is the root. One that
/// signed itself is alone, own certificate and root in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityChain {
    own: AuthorityCertificate,
    above: Vec<AuthorityCertificate>,
}

impl AuthorityChain {
    /// Joins the certificates, own first.
    ///
    /// # Errors
    /// There is none, there are more than [`MAX_AUTHORITY_CHAIN`], one is not signed by the next, or outlives it.
    pub fn new(mut certificates: Vec<AuthorityCertificate>) -> Result<Self, AuthorityError> {
        if certificates.is_empty() || certificates.len() > MAX_AUTHORITY_CHAIN {
            return Err(AuthorityError::Chain("it has no certificate, or more than seven"));
        }
        for pair in certificates.windows(2) {
            let [below, above] = pair else { continue };
            if !is_made_by(&Certificate::parse(below.der())?, above) {
                return Err(AuthorityError::Chain("one is not signed by the next"));
            }
            if below.not_after() > above.not_after() {
                return Err(AuthorityError::Chain("one outlives the next, who signed it"));
            }
        }
        let longest = |(below, one): (usize, &AuthorityCertificate)| one.allows_below(below);
        if !certificates.iter().enumerate().all(longest) {
            return Err(AuthorityError::Chain("one allows fewer authorities below it"));
        }
        let above = certificates.split_off(1);
        let own = certificates.pop().ok_or(AuthorityError::Chain("it is empty"))?;
        Ok(Self { own, above })
    }

    /// The authority's own certificate: what signs leaves and lists.
    #[must_use]
    pub fn own(&self) -> &AuthorityCertificate {
        &self.own
    }

    /// All of them, own first.
    pub fn certificates(&self) -> impl Iterator<Item = &AuthorityCertificate> {
        std::iter::once(&self.own).chain(&self.above)
    }

    /// What a leaf's holder sends after its leaf, so that a peer which knows only the root finds the way: all but the root.
    pub fn presented(&self) -> impl Iterator<Item = &AuthorityCertificate> {
        self.certificates().take(self.above.len())
    }
}

impl From<AuthorityCertificate> for AuthorityChain {
    /// Of an authority that signed itself.
    fn from(own: AuthorityCertificate) -> Self {
        Self {
            own,
            above: Vec::new(),
        }
    }
}

/// Whether `maker`'s key signed `made` under `maker`'s name.
pub(crate) fn is_made_by(made: &Certificate<'_>, maker: &AuthorityCertificate) -> bool {
    // A signature is looked at only where the names agree: strangers may send what they like.
    if made.x509.issuer().as_raw() != maker.subject_der() {
        return false;
    }
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(maker.spki()) else {
        return false;
    };
    made.x509.verify_signature(Some(&key)).is_ok()
}
