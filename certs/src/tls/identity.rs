//! Our own certificate on a connection.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::Error;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::svid::X509Svid;

/// Our own certificate, replaced while listeners and clients use it. New handshakes see the new one.
#[derive(Debug, Default)]
pub struct RotatingIdentity(ArcSwapOption<CertifiedKey>);

impl RotatingIdentity {
    /// Without a certificate: handshakes that need one fail until [`set`](Self::set).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Presents `svid` from the next handshake on.
    pub fn set(&self, svid: &X509Svid) -> Result<(), Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key().pkcs8_der()));
        let key = provider::sign::any_ecdsa_type(&key)?;
        let chain = svid
            .chain()
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        self.0.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }
}

impl ResolvesServerCert for RotatingIdentity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesClientCert for RotatingIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
