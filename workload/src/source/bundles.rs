//! Whom to trust, for a program that needs no identity of its own.

use std::fmt;
use std::sync::Arc;

use signet_certs::id::TrustDomain;
use signet_certs::tls::TrustSource;
use signet_certs::verify::{TrustRoots, TrustedAuthority, VerifiedSvid, VerifyError};
use tokio::sync::watch;

use super::error::SourceError;
use super::follow::Asks;
use super::health::{Unhealthy, of_bundles};
use super::options::Options;
use super::shared::Core;
use super::state::SourceState;
use super::{authorities_of, begin};
use crate::endpoint::Endpoint;

/// Follows the trust bundles of the Workload API: for a client that verifies servers and shows no certificate itself. It
/// lives as an [`X509Source`](crate::X509Source) does; of its [`Options`], `pick` plays no part.
#[derive(Clone)]
pub struct BundleSource(pub(crate) Arc<Core>);

impl BundleSource {
    /// Follows the Workload API that `SPIFFE_ENDPOINT_SOCKET` names, and waits for the first bundles.
    ///
    /// # Errors
    /// As [`X509Source::from_env`](crate::X509Source::from_env).
    pub async fn from_env() -> Result<Self, Arc<SourceError>> {
        let endpoint = Endpoint::from_env().map_err(|error| Arc::new(error.into()))?;
        let source = Self::start(Options::new(endpoint));
        source.ready().await?;
        Ok(source)
    }

    /// Begins to follow without waiting. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        Self(begin(options, Asks::Bundles))
    }

    /// Waits until there are bundles.
    ///
    /// # Errors
    /// As [`X509Source::ready`](crate::X509Source::ready).
    pub async fn ready(&self) -> Result<(), Arc<SourceError>> {
        self.0.ready(|state| state.roots.is_some()).await
    }

    /// The authorities of all trust domains with their CRLs; empty before the first message.
    #[must_use]
    pub fn roots(&self) -> Arc<TrustRoots> {
        self.0.roots()
    }

    /// The authorities of one trust domain with their CRLs; `None` when it is not trusted here.
    #[must_use]
    pub fn bundle(&self, domain: &TrustDomain) -> Option<Vec<TrustedAuthority>> {
        authorities_of(&self.roots(), domain)
    }

    /// Hears of every change, and sees the newest state only.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<SourceState> {
        self.0.changes()
    }

    /// Whether the source does what it is for.
    ///
    /// # Errors
    /// The worst of what is wrong.
    pub fn is_healthy(&self) -> Result<(), Unhealthy> {
        let state = self.0.state();
        of_bundles(state.roots.as_deref(), state.problem.clone(), self.0.now())
    }

    /// Whether a peer verified before would still be accepted; see [`X509Source::recheck`](crate::X509Source::recheck).
    ///
    /// # Errors
    /// The reason why not.
    pub fn recheck(&self, peer: &VerifiedSvid) -> Result<(), VerifyError> {
        self.0.recheck(peer)
    }
}

impl fmt::Debug for BundleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundleSource")
    }
}
