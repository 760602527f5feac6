//! What an authority is made of: what readers get of it, and what signs with it.
//!
//! Everything that differs between materials is asked here or matched on these enums, so that another one, a bare key for tokens for
//! instance, is a variant that the compiler follows to each place.

use std::sync::Arc;

use signet_certs::authority::{AuthorityCertificate, AuthorityChain, AuthorityError, X509Authority};
use signet_certs::signer::AuthoritySigner;

/// The public part, as journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Material {
    /// Certificates, DER: its own, then those above it up to the root. One that signed itself has its own alone.
    X509(Arc<[Arc<[u8]>]>),
}

impl Material {
    /// Certificates as the journal holds them.
    pub(crate) fn of_chain(chain: &AuthorityChain) -> Self {
        Self::X509(chain.certificates().map(|one| one.der().into()).collect())
    }

    /// Whether it signs a revocation list. An authority that does may go only after a list which is later than the end of its last
    /// leaf; one whose readers know of no list, with that leaf.
    pub(crate) fn signs_list(&self) -> bool {
        let Self::X509(_) = self;
        true
    }

    /// Joined with its key.
    ///
    /// # Errors
    /// What is journalled does not parse, or does not belong to the key.
    pub(super) fn join(&self, signer: Arc<dyn AuthoritySigner>) -> Result<Held, AuthorityError> {
        let Self::X509(chain) = self;
        let certificates = chain.iter().map(|der| AuthorityCertificate::from_der(der));
        let chain = AuthorityChain::new(certificates.collect::<Result<_, _>>()?)?;
        X509Authority::new(chain, signer).map(Held::X509)
    }
}

/// Ready to sign.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// Signs certificates and lists.
    X509(X509Authority),
}

impl Held {
    /// What signs certificates and lists.
    pub(crate) fn x509(&self) -> &X509Authority {
        let Self::X509(authority) = self;
        authority
    }
}
