//! The newest verified state of the Workload API, followed by a task of its own.

mod bundles;
mod call;
mod error;
mod follow;
mod health;
mod once;
mod options;
mod renewal;
mod shared;
mod state;

use std::fmt;
use std::sync::Arc;

use signet_certs::id::TrustDomain;
use signet_certs::svid::X509Svid;
use signet_certs::tls::TrustSource;
use signet_certs::verify::{TrustRoots, TrustedAuthority, VerifiedSvid, VerifyError};
use tokio::sync::watch;

use crate::endpoint::Endpoint;
use crate::message::GrantedSvid;

pub use bundles::BundleSource;
pub use error::SourceError;
use follow::Asks;
pub use health::Unhealthy;
pub use options::Options;
pub(crate) use shared::Core;
use shared::Shared;
pub use state::{SourceState, X509Context};

/// Follows the Workload API. Clones are the same source; it ends with the last of them, and every configuration,
/// acceptor, connector and peer made by it holds one.
#[derive(Clone)]
pub struct X509Source(pub(crate) Arc<Core>);

/// Starts the task behind a source.
fn begin(options: Options, asks: Asks) -> Arc<Core> {
    let shared = Arc::new(Shared::new(options.clock.clone()));
    let wait = options.wait;
    let task = tokio::spawn(follow::follow(options, asks, shared.clone()));
    Core::new(shared, wait, Some(task))
}

fn authorities_of(roots: &TrustRoots, domain: &TrustDomain) -> Option<Vec<TrustedAuthority>> {
    let known = roots.authorities(domain);
    (!known.is_empty()).then(|| known.to_vec())
}

impl X509Source {
    /// Follows the Workload API that `SPIFFE_ENDPOINT_SOCKET` names, and waits for the first identity.
    ///
    /// # Errors
    /// When the variable is missing or wrong, and as [`ready`](Self::ready) with the usual [`Options`].
    pub async fn from_env() -> Result<Self, Arc<SourceError>> {
        let endpoint = Endpoint::from_env().map_err(|error| Arc::new(error.into()))?;
        let source = Self::start(Options::new(endpoint));
        source.ready().await?;
        Ok(source)
    }

    /// Begins to follow without waiting. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        Self(begin(options, Asks::Svids))
    }

    /// Waits until there is a verified state, for as long as [`Options::wait`] says. An agent that is away, still starting or
    /// has nothing for us yet is waited for.
    ///
    /// # Errors
    /// When there is none in time, or there will be none; and at once when the agent denies us an identity. That may change
    /// when an operator grants one, and the source goes on asking: whoever wants to wait for it watches
    /// [`changes`](Self::changes).
    pub async fn ready(&self) -> Result<(), Arc<SourceError>> {
        self.0.ready(|state| state.context.is_some()).await
    }

    /// The newest verified state, without SVIDs that have ended; none where that leaves none.
    #[must_use]
    pub fn context(&self) -> Option<X509Context> {
        let context = self.0.state().context.clone()?;
        let now = self.0.now();
        let live = |granted: &&GrantedSvid| now <= granted.svid.not_after();
        let svids: Arc<[GrantedSvid]> = context.svids.iter().filter(live).cloned().collect();
        (!svids.is_empty()).then_some(X509Context { svids, ..context })
    }

    /// The SVID that is presented to peers; none before the first, and after the end of the last.
    #[must_use]
    pub fn svid(&self) -> Option<Arc<X509Svid>> {
        self.0.presented().live()
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

    /// Whether the source does what it is for: to be told to people. A readiness probe also says yes where
    /// [`Unhealthy::still_serves`] does.
    ///
    /// # Errors
    /// The worst of what is wrong.
    pub fn is_healthy(&self) -> Result<(), Unhealthy> {
        let problem = self.0.state().problem.clone();
        let svid = self.0.presented().newest();
        health::of_identity(svid.as_deref(), &self.roots(), problem, self.0.now())
    }

    /// Whether a peer verified before would still be accepted: not revoked, its authority still trusted, its CRL
    /// current, not expired. Cheap enough for every request.
    ///
    /// # Errors
    /// The reason why not.
    pub fn recheck(&self, peer: &VerifiedSvid) -> Result<(), VerifyError> {
        self.0.recheck(peer)
    }
}

impl fmt::Debug for X509Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X509Source")
    }
}

#[cfg(test)]
impl X509Source {
    /// A source that nothing feeds, with these roots.
    pub(crate) fn unfed(clock: Arc<dyn signet_runtime::clock::Clock>, roots: TrustRoots) -> Self {
        let shared = Arc::new(Shared::new(clock));
        shared.trust(&Arc::new(roots));
        Self(Core::new(shared, None, None))
    }

    /// Replaces the roots as a message would.
    pub(crate) fn put_in_force(&self, roots: TrustRoots) {
        self.0.shared.trust(&Arc::new(roots));
    }
}
