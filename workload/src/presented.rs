//! Our certificate as peers see it, until its end and not a second longer.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use signet_certs::svid::X509Svid;
use signet_certs::tls::RotatingIdentity;
use signet_runtime::clock::Clock;

/// The SVID in use. The clock is asked at each handshake, so neither a timer nor a machine that slept can be late.
#[derive(Debug)]
pub(crate) struct Presented {
    identity: RotatingIdentity,
    svid: ArcSwapOption<X509Svid>,
    clock: Arc<dyn Clock>,
}

impl Presented {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            identity: RotatingIdentity::new(),
            svid: ArcSwapOption::empty(),
            clock,
        }
    }

    /// Presents `svid` from the next handshake on.
    pub(crate) fn set(&self, svid: &Arc<X509Svid>) -> Result<(), rustls::Error> {
        self.identity.set(svid)?;
        self.svid.store(Some(svid.clone()));
        Ok(())
    }

    /// The newest one, whether it has ended or not.
    pub(crate) fn newest(&self) -> Option<Arc<X509Svid>> {
        self.svid.load_full()
    }

    /// The newest one, if it has not ended.
    pub(crate) fn live(&self) -> Option<Arc<X509Svid>> {
        self.newest().filter(|svid| self.clock.now() <= svid.not_after())
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.live()?;
        ResolvesServerCert::resolve(&self.identity, client_hello)
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.live()?;
        ResolvesClientCert::resolve(&self.identity, hints, schemes)
    }

    fn has_certs(&self) -> bool {
        self.live().is_some()
    }
}
