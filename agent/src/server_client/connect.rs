//! Connections to the server: a way there, then TLS 1.3 in which the server proves its one SPIFFE ID before anything is sent, then
//! HTTP/2.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use signet_certs::id::TrustDomain;
use signet_certs::tls::{PeerRule, RotatingIdentity, SpiffeVerifier, client_config, time_provider};
use signet_runtime::clock::Clock;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;

use super::alert::{Alert, Listened};
use super::anchors::ControlAnchors;
use super::dial::{Carrier, Dialer};
use super::server_id;

/// Name resolution, TCP and handshakes together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A silent connection is asked for a sign of life this often, and given up after the second.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Makes connections to the server.
#[derive(Clone)]
pub(super) struct Connector {
    way: Arc<dyn Dialer>,
    tls: TlsConnector,
    anchors: Arc<ControlAnchors>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connector")
            .field("address", &self.way.address())
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// `identity` is presented where the agent has one; without it the agent stays unknown.
    pub(super) fn new(
        way: Arc<dyn Dialer>,
        trust_domain: &TrustDomain,
        anchors: Arc<ControlAnchors>,
        identity: Option<Arc<RotatingIdentity>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let verifier = SpiffeVerifier::new(anchors.roots(), PeerRule::Exactly(server_id(trust_domain)));
        let mut config: ClientConfig = client_config(identity, verifier, &[b"h2"])?;
        let own = clock.clone();
        config.time_provider = time_provider(move || own.now());
        Ok(Self {
            way,
            tls: TlsConnector::from(Arc::new(config)),
            anchors,
            clock,
        })
    }

    /// A new connection, over which nothing has been said yet.
    pub(super) async fn connect(&self) -> io::Result<Http2> {
        let limited = tokio::time::timeout(CONNECT_LIMIT, self.connect_unlimited()).await;
        limited.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                self.says("did not answer in time"),
            ))
        })
    }

    async fn connect_unlimited(&self) -> io::Result<Http2> {
        let (stream, alert) = Listened::new(self.connect_tls().await?);
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| io::Error::other(self.says(&error.to_string())))?;
        // Ends with the last of its requests once nobody can send another, or when it breaks.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the server broke");
            }
        });
        Ok(Http2 { requests, alert })
    }

    async fn connect_tls(&self) -> io::Result<TlsStream<Box<dyn Carrier>>> {
        let failed = |error: io::Error| io::Error::new(error.kind(), self.says(&error.to_string()));
        let stream = self.way.dial().await.map_err(failed)?;
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        match self.tls.connect(name, stream).await {
            Ok(stream) => Ok(stream),
            Err(error) => {
                self.look_for_newer_anchors(&error);
                Err(failed(error))
            }
        }
    }

    /// The next attempt may succeed with what the configured file says by now.
    fn look_for_newer_anchors(&self, error: &io::Error) {
        let cause = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if !matches!(cause, Some(rustls::Error::InvalidCertificate(_))) {
            return;
        }
        if let Err(error) = self.anchors.server_not_verified(self.clock.now()) {
            tracing::warn!(%error, "the server cannot be verified and no newer control anchors are there");
        }
    }

    fn says(&self, problem: &str) -> String {
        format!("server {}: {problem}", self.way.address())
    }
}

/// One HTTP/2 connection, as a gRPC client wants it. It does not connect again by itself, so that nothing is said over a
/// connection that has not been opened. Clones are the same connection.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    requests: SendRequest<Body>,
    alert: Alert,
}

impl Http2 {
    /// Takes no more requests: the server is gone, or is about to go.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// With which alert the server ended it after the handshake.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        self.alert.get().copied()
    }
}

impl tower::Service<http::Request<Body>> for Http2 {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}
