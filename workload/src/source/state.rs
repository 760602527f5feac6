//! What a source has at one moment.

use std::sync::Arc;

use signet_certs::svid::X509Svid;
use signet_certs::verify::TrustRoots;

use super::error::SourceError;
use crate::message::GrantedSvid;

/// One verified state: who we are and whom to trust.
#[derive(Clone, Debug)]
pub struct X509Context {
    /// Our identities, the default first; never empty.
    pub svids: Arc<[GrantedSvid]>,
    /// Authorities and their CRLs, by trust domain.
    pub roots: Arc<TrustRoots>,
}

impl X509Context {
    /// The identity that the agent means as the default.
    #[must_use]
    pub fn default_svid(&self) -> Option<&Arc<X509Svid>> {
        self.svids.first().map(|granted| &granted.svid)
    }
}

/// What a source has, and what keeps it from having more.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SourceState {
    /// The newest verified state, as it came: an SVID in it may have ended since. None before the first, and in a
    /// [`BundleSource`](crate::BundleSource), which has no identity.
    pub context: Option<X509Context>,
    /// Whom to trust, which may be newer than the context's identity; none before the first message.
    pub roots: Option<Arc<TrustRoots>>,
    /// The latest trouble, until a message is taken again.
    pub problem: Option<Arc<SourceError>>,
}
