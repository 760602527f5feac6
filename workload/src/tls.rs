//! Mutual TLS 1.3 whose certificate and trust follow the source.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, ServerConfig};
use signet_certs::tls::{PeerRule, SpiffeVerifier, client_config, server_config, time_provider};
use signet_certs::verify::{Role, VerifyError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::peer::Peer;
use crate::source::X509Source;

/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum TlsError {
    /// One side refused the other, or the stream broke. rustls' reason is inside.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// The peer is valid but not one whom the rule accepts, or it stopped being trusted since the handshake.
    #[error("the peer is refused: {0}")]
    Peer(#[from] VerifyError),
    /// The peer was too slow.
    #[error("the TLS handshake took longer than {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

/// Takes connections of clients that a rule accepts. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    source: X509Source,
}

impl Acceptor {
    /// Does the handshake over a stream that a client opened.
    ///
    /// # Errors
    /// When the client is not accepted, is too slow, or we have no certificate yet.
    pub async fn accept<S>(&self, stream: S) -> Result<(server::TlsStream<S>, Peer), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = finish(self.tls.accept(stream)).await?;
        let peer = self.source.peer(stream.get_ref().1, Role::Client)?;
        Ok((stream, peer))
    }
}

/// Opens connections to servers that a rule accepts. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    source: X509Source,
}

impl Connector {
    /// Does the handshake over a stream that we opened. Host names play no part. That the server refuses *us* shows only
    /// at the first read, as always in TLS 1.3.
    ///
    /// # Errors
    /// When the server is not accepted or is too slow.
    pub async fn connect<S>(&self, stream: S) -> Result<(client::TlsStream<S>, Peer), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = finish(self.tls.connect(any_server_name(), stream)).await?;
        let peer = self.source.peer(stream.get_ref().1, Role::Server)?;
        Ok((stream, peer))
    }
}

async fn finish<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, TlsError> {
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(_) => Err(TlsError::Timeout),
    }
}

/// Takes our own verifier's reason out of rustls' wrapping where there is one, for its words name the peer.
fn failed(error: io::Error) -> TlsError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) = inner
        && let Some(reason) = other.0.downcast_ref::<VerifyError>()
    {
        return TlsError::Peer(reason.clone());
    }
    TlsError::Handshake(error)
}

impl X509Source {
    /// Takes clients that `allow` accepts.
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn acceptor(&self, allow: PeerRule) -> Result<Acceptor, rustls::Error> {
        let config = self.server_config(allow, &[])?;
        Ok(Acceptor {
            tls: TlsAcceptor::from(Arc::new(config)),
            source: self.clone(),
        })
    }

    /// Reaches servers that `allow` accepts.
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn connector(&self, allow: PeerRule) -> Result<Connector, rustls::Error> {
        let config = self.client_config(allow, &[])?;
        Ok(Connector {
            tls: TlsConnector::from(Arc::new(config)),
            source: self.clone(),
        })
    }

    /// A server side for hyper, tonic and others that want rustls' own type. Every client must show a certificate that
    /// `allow` accepts. Use [`peer`](Self::peer) after the handshake, and keep session tickets off.
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn server_config(&self, allow: PeerRule, alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        let mut config = server_config(self.presented(), self.verifier(allow), true, alpn)?;
        config.time_provider = self.time();
        Ok(config)
    }

    /// A client side for others; see [`server_config`](Self::server_config). Connect with any server name, such as
    /// [`any_server_name`].
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn client_config(&self, allow: PeerRule, alpn: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
        let mut config = client_config(Some(self.presented()), self.verifier(allow), alpn)?;
        config.time_provider = self.time();
        Ok(config)
    }

    /// Lets rustls judge by the source's clock.
    fn time(&self) -> Arc<dyn TimeProvider> {
        let clock = self.clock();
        time_provider(move || clock.now())
    }

    fn verifier(&self, allow: PeerRule) -> SpiffeVerifier {
        SpiffeVerifier::new(Arc::new(self.clone()), allow)
    }
}

/// A server name for rustls' interface, which demands one. It is neither sent nor checked: SPIFFE IDs are.
#[must_use]
pub fn any_server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
}
