//! TLS 1.3 whose certificate and trust follow the source: mutual, or with the server's certificate alone.

mod incoming;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, ServerConfig};
use signet_certs::tls::{
    PeerRule, SpiffeVerifier, client_config, one_way_server_config, server_config, time_provider,
};
use signet_certs::verify::{Role, VerifyError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::peer::Peer;
use crate::source::{BundleSource, Core, Unhealthy, X509Source};

pub use incoming::Incoming;

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
    /// We have nothing to show: no certificate has come yet, or the last one has ended.
    #[error("there is no certificate to show: {0}")]
    NoIdentity(Unhealthy),
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
        shown(&self.source)?;
        let stream = finish(self.tls.accept(stream)).await?;
        let peer = self.source.peer(stream.get_ref().1, Role::Client)?;
        Ok((stream, peer))
    }
}

/// Opens connections to servers that a rule accepts. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    source: Arc<Core>,
    /// Whose certificate is shown, in mutual TLS.
    own: Option<X509Source>,
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
        if let Some(own) = &self.own {
            shown(own)?;
        }
        let stream = finish(self.tls.connect(any_server_name(), stream)).await?;
        let peer = Peer::of(&self.source, stream.get_ref().1, Role::Server)?;
        Ok((stream, peer))
    }
}

/// Says why, where a handshake would only fail.
fn shown(source: &X509Source) -> Result<(), TlsError> {
    if source.svid().is_some() {
        return Ok(());
    }
    source.is_healthy().map_err(TlsError::NoIdentity)
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
    /// Takes clients that `allow` accepts. For servers that choose their protocol in the handshake there is
    /// [`acceptor_for`](Self::acceptor_for).
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn acceptor(&self, allow: PeerRule) -> Result<Acceptor, rustls::Error> {
        self.acceptor_for(allow, &[])
    }

    /// As [`acceptor`](Self::acceptor), with the application protocols that are offered, the preferred one first, such as
    /// `h2` and `http/1.1`.
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn acceptor_for(&self, allow: PeerRule, alpn: &[&[u8]]) -> Result<Acceptor, rustls::Error> {
        let config = self.server_config(allow, alpn)?;
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
            source: self.0.clone(),
            own: Some(self.clone()),
        })
    }

    /// A server side for hyper, tonic and others that want rustls' own type. Every client must show a certificate that
    /// `allow` accepts. Use [`peer`](Self::peer) after the handshake, and keep session tickets off.
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn server_config(&self, allow: PeerRule, alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        let mut config = server_config(self.0.presented(), verifier(&self.0, allow), true, alpn)?;
        config.time_provider = time(&self.0);
        Ok(config)
    }

    /// A server side that shows our certificate and asks clients for none: whoever connects is nobody in particular. Clients
    /// verify the SPIFFE ID, as those of [`BundleSource`] do; browsers and others of the web's PKI do not know our authorities.
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn one_way_server_config(&self, alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        let mut config = one_way_server_config(self.0.presented(), alpn)?;
        config.time_provider = time(&self.0);
        Ok(config)
    }

    /// A client side for others; see [`server_config`](Self::server_config). Connect with any server name, such as
    /// [`any_server_name`].
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn client_config(&self, allow: PeerRule, alpn: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
        let mut config = client_config(Some(self.0.presented()), verifier(&self.0, allow), alpn)?;
        config.time_provider = time(&self.0);
        Ok(config)
    }
}

impl BundleSource {
    /// Reaches servers that `allow` accepts, and shows them no certificate: for servers that ask for none, such as those of
    /// [`X509Source::one_way_server_config`].
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn connector(&self, allow: PeerRule) -> Result<Connector, rustls::Error> {
        let config = self.client_config(allow, &[])?;
        Ok(Connector {
            tls: TlsConnector::from(Arc::new(config)),
            source: self.0.clone(),
            own: None,
        })
    }

    /// A client side for others that shows no certificate. Connect with any server name, such as [`any_server_name`].
    ///
    /// # Errors
    /// When rustls refuses the setup.
    pub fn client_config(&self, allow: PeerRule, alpn: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
        let mut config = client_config(None, verifier(&self.0, allow), alpn)?;
        config.time_provider = time(&self.0);
        Ok(config)
    }
}

/// Lets rustls judge by the source's clock.
fn time(source: &Core) -> Arc<dyn TimeProvider> {
    let clock = source.clock();
    time_provider(move || clock.now())
}

fn verifier(source: &Arc<Core>, allow: PeerRule) -> SpiffeVerifier {
    SpiffeVerifier::new(source.clone(), allow)
}

/// A server name for rustls' interface, which demands one. It is neither sent nor checked: SPIFFE IDs are.
#[must_use]
pub fn any_server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
}
