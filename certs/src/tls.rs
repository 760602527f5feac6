//! SPIFFE mutual TLS for rustls: peers are judged by their SPIFFE ID and the CRLs, host names play no part.
//!
//! TLS 1.3 with the [`provider()`], named explicitly. Sessions are never resumed: resumption would skip the
//! verifier, and with it every revocation since the first handshake.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use crate::id::{SpiffeId, TrustDomain};
use crate::verify::{TrustRoots, VerifiedSvid, inspect_leaf};

#[cfg(feature = "hybrid")]
mod hybrid;
mod identity;
mod key_exchange;
mod provider;
mod refused;
#[cfg(test)]
mod tests;
mod verifier;

pub use identity::RotatingIdentity;
pub use key_exchange::KeyExchange;
pub use provider::{AlreadyInstalled, Hybrid, install, provider};
pub use refused::RefusedPeer;
pub use verifier::SpiffeVerifier;

/// Where a verifier finds whom to trust at this moment.
pub trait TrustSource: Send + Sync + fmt::Debug {
    /// The roots as they are now; cheap.
    fn roots(&self) -> Arc<TrustRoots>;

    /// The roots that judge a server which presents this chain, where what follows its leaf is [links](crate::link) to a reader:
    /// the leaf alone is then judged by them. `None`, which is the default, judges the chain as it is by [`roots`](Self::roots).
    fn roots_by_links(&self, _chain: &[CertificateDer<'_>], _now: SystemTime) -> Option<Arc<TrustRoots>> {
        None
    }
}

/// Roots that can be replaced while verifiers use them.
#[derive(Debug, Default)]
pub struct SharedRoots(ArcSwap<TrustRoots>);

impl SharedRoots {
    /// Begins with these roots.
    #[must_use]
    pub fn new(roots: impl Into<Arc<TrustRoots>>) -> Self {
        Self(ArcSwap::new(roots.into()))
    }

    /// Replaces the roots for every check from now on.
    pub fn store(&self, roots: impl Into<Arc<TrustRoots>>) {
        self.0.store(roots.into());
    }

    /// The roots as they are now.
    #[must_use]
    pub fn load(&self) -> Arc<TrustRoots> {
        self.0.load_full()
    }
}

impl TrustSource for SharedRoots {
    fn roots(&self) -> Arc<TrustRoots> {
        self.load()
    }
}

/// Which valid identities are accepted.
#[derive(Clone)]
pub enum PeerRule {
    /// This one.
    Exactly(SpiffeId),
    /// One of these.
    OneOf(Vec<SpiffeId>),
    /// Any of this trust domain.
    TrustDomain(TrustDomain),
    /// Any that verifies.
    Any,
    /// Whom the function accepts; [`SpiffeId::is_within`] compares whole segments of a path.
    Predicate(Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync>),
}

impl PeerRule {
    /// Whether `id` is accepted.
    #[must_use]
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exactly(expected) => expected == id,
            Self::OneOf(expected) => expected.contains(id),
            Self::TrustDomain(domain) => domain.as_str() == id.trust_domain_name(),
            Self::Any => true,
            Self::Predicate(accepts) => accepts(id),
        }
    }
}

impl fmt::Debug for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(id) => f.debug_tuple("Exactly").field(id).finish(),
            Self::OneOf(ids) => f.debug_tuple("OneOf").field(ids).finish(),
            Self::TrustDomain(domain) => f.debug_tuple("TrustDomain").field(domain).finish(),
            Self::Any => f.write_str("Any"),
            Self::Predicate(_) => f.write_str("Predicate"),
        }
    }
}

/// A server side that asks every client for its certificate, and refuses those without one if
/// `client_cert_required`. A test that owns the time replaces the config's `time_provider`.
pub fn server_config(
    identity: Arc<dyn ResolvesServerCert>,
    mut verifier: SpiffeVerifier,
    client_cert_required: bool,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    verifier.client_cert_required = client_cert_required;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(identity);
    set_server(&mut config, alpn);
    Ok(config)
}

/// A server side that shows its certificate and asks clients for none.
pub fn one_way_server_config(
    identity: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider(Hybrid::default()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    set_server(&mut config, alpn);
    Ok(config)
}

fn set_server(config: &mut ServerConfig, alpn: &[&[u8]]) {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// A client side that presents `identity` where it has one. Host names are neither sent nor checked.
/// A test that owns the time replaces the config's `time_provider`.
pub fn client_config(
    identity: Option<Arc<dyn ResolvesClientCert>>,
    verifier: SpiffeVerifier,
    alpn: &[&[u8]],
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Lets rustls judge by the caller's clock instead of the machine's: for the `time_provider` of a configuration. Before
/// 1970 there is no time, and every handshake fails.
pub fn time_provider(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Arc<dyn TimeProvider> {
    Arc::new(Judged(now))
}

struct Judged<F>(F);

impl<F> fmt::Debug for Judged<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a caller's clock")
    }
}

impl<F: Fn() -> SystemTime + Send + Sync> TimeProvider for Judged<F> {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// Who the peer of a finished handshake is; `None` before its end, and for a client without a certificate.
///
/// Nothing is verified again: this relies on a connection by [`server_config`] or [`client_config`], whose verifier has
/// judged the chain before rustls finishes the handshake. Of a connection with another verifier it says nothing.
#[must_use]
pub fn peer_svid(connection: &CommonState) -> Option<VerifiedSvid> {
    if connection.is_handshaking() {
        return None;
    }
    let leaf = connection.peer_certificates()?.first()?;
    inspect_leaf(leaf).ok().map(VerifiedSvid::of_verified_leaf)
}
