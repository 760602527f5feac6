//! Our own certificate on a connection.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::Error;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Hybrid, provider};
use crate::authority::AuthorityCertificate;
use crate::link::LINKS_PROTOCOL;
use crate::svid::X509Svid;

/// Our own certificate, replaced while listeners and clients use it. New handshakes see the new one.
#[derive(Debug, Default)]
pub struct RotatingIdentity {
    key: ArcSwapOption<CertifiedKey>,
    links: ArcSwap<Vec<CertificateDer<'static>>>,
}

impl RotatingIdentity {
    /// Without a certificate: handshakes that need one fail until [`set`](Self::set).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Presents `svid` from the next handshake on.
    pub fn set(&self, svid: &X509Svid) -> Result<(), Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key().pkcs8_der().to_vec()));
        let key = provider(Hybrid::default()).key_provider.load_private_key(key)?;
        let chain = svid
            .chain()
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        self.key.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }

    /// Sends these links (see [`link`](crate::link)) after the chain, from the next handshake on: as a server, and only to clients
    /// that offer [`LINKS_PROTOCOL`]. Everybody else takes what follows a leaf for intermediates, and may refuse those.
    pub fn set_links(&self, links: &[AuthorityCertificate]) {
        let der = |link: &AuthorityCertificate| CertificateDer::from(link.der().to_vec());
        self.links.store(Arc::new(links.iter().map(der).collect()));
    }

    fn with_links(&self, own: &CertifiedKey) -> CertifiedKey {
        let links = self.links.load();
        let chain = own.cert.iter().chain(links.iter()).cloned().collect();
        CertifiedKey::new(chain, own.key.clone())
    }
}

impl ResolvesServerCert for RotatingIdentity {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.key.load_full()?;
        let wants_links = client_hello
            .alpn()
            .is_some_and(|mut offered| offered.any(|protocol| protocol == LINKS_PROTOCOL));
        if wants_links {
            Some(Arc::new(self.with_links(&own)))
        } else {
            Some(own)
        }
    }
}

impl ResolvesClientCert for RotatingIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }

    fn has_certs(&self) -> bool {
        self.key.load().is_some()
    }
}
