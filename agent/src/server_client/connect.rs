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
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use signet_certs::id::TrustDomain;
use signet_certs::link::LINKS_PROTOCOL;
use signet_certs::tls::{
    KeyExchange, PeerRule, RefusedPeer, RotatingIdentity, SpiffeVerifier, TrustSource, client_config,
    peer_svid, time_provider,
};
use signet_certs::verify::VerifyError;
use signet_runtime::clock::Clock;
use signet_runtime::spans;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tracing::Instrument as _;

use super::alert::{Alert, Listened};
use super::anchors::{ControlAnchors, Following, Objection, VerifiedServer};
use super::dial::{Carrier, Dialer};
use super::trust::Said;
use super::{KeyExchanges, server_id};
use crate::time::AgentTime;

/// Name resolution, TCP and handshakes together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What is spoken with the server.
const HTTP_2: &[u8] = b"h2";

/// A silent connection is asked for a sign of life this often, and given up after the second.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Makes connections to the server.
#[derive(Clone)]
pub(super) struct Connector {
    way: Arc<dyn Dialer>,
    trust_domain: TrustDomain,
    identity: Option<Arc<RotatingIdentity>>,
    anchors: Arc<ControlAnchors>,
    time: Arc<AgentTime>,
    key_exchanges: KeyExchanges,
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
        time: Arc<AgentTime>,
        key_exchanges: KeyExchanges,
    ) -> Self {
        Self {
            way,
            trust_domain: trust_domain.clone(),
            identity,
            anchors,
            time,
            key_exchanges,
        }
    }

    /// A new connection, over which nothing has been said yet.
    pub(super) async fn connect(&self) -> io::Result<Http2> {
        let connection = spans::Connection::to(self.way.address());
        let connecting = self.connect_unlimited().instrument(connection.span());
        let limited = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
        limited.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                self.says("did not answer in time"),
            ))
        })
    }

    async fn connect_unlimited(&self) -> io::Result<Http2> {
        let stream = self.connect_tls().await?;
        if self.identity.is_some() {
            self.key_exchanges.had(KeyExchange::of(stream.get_ref().1));
        }
        let nobody = || io::Error::other(self.says("it has shown no certificate"));
        let svid = peer_svid(stream.get_ref().1).ok_or_else(nobody)?;
        let server = VerifiedServer::new(self.anchors.clone(), &svid);
        let (stream, alert) = Listened::new(stream, server.clone());
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| io::Error::other(self.says(&error.to_string())))?;
        // Ends with the last of its requests once nobody can send another, or when it breaks.
        spans::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the server broke");
            }
        });
        Ok(Http2 {
            requests,
            alert,
            server,
        })
    }

    /// The server is verified by the anchors at hand, then by those that the configured file holds by now, then by the machine's clock
    /// where that and the time that was told differ, then by what its links lead to from the anchors. A certificate that none of that
    /// vouches for ends each attempt before anything is said.
    async fn connect_tls(&self) -> io::Result<Secured> {
        if let Some(outcome) = self.connect_by_anchors().await {
            return outcome;
        }
        if self.finds_newer_anchors()
            && let Some(outcome) = self.connect_by_anchors().await
        {
            return outcome;
        }
        if let Some(stream) = self.connect_by_the_machine().await {
            return Ok(stream);
        }
        self.connect_by_links().await
    }

    /// A time that was told by a server whose own was wrong would keep every server away, and with it whoever could tell a
    /// better one. Before the first contact the machine's clock is all there is, and here it is again.
    async fn connect_by_the_machine(&self) -> Option<Secured> {
        if !self.time.is_doubtful() {
            return None;
        }
        let stream = self
            .handshake(self.anchors.roots(), &[HTTP_2], self.time.of_the_machine())
            .await
            .ok()?;
        tracing::warn!(
            "the server is believed by this machine's clock, and not by the time that was told last"
        );
        Some(stream)
    }

    /// `None` when no anchor lives, or none vouches for the server.
    async fn connect_by_anchors(&self) -> Option<io::Result<Secured>> {
        if !self.anchors.one_lives(self.time.now()) {
            return None;
        }
        let outcome = self
            .handshake(self.anchors.roots(), &[HTTP_2], self.time.clone())
            .await;
        match outcome {
            Err(Failed { refusal: Some(_), .. }) => None,
            outcome => Some(outcome.map_err(|failed| self.failed(failed))),
        }
    }

    async fn connect_by_links(&self) -> io::Result<Secured> {
        let following = Following::new(self.anchors.clone());
        let outcome = self
            .handshake(following.clone(), &[HTTP_2, LINKS_PROTOCOL], self.time.clone())
            .await;
        let now = self.time.now();
        match &outcome {
            Ok(_) => following.verified(now),
            Err(failed) if failed.is_of_a_stranger() => {
                let words = self.anchors.cannot_recognise(following.authority(), now);
                return Err(io::Error::new(failed.kind, self.says(&words)));
            }
            Err(_) => {}
        }
        outcome.map_err(|failed| self.failed(failed))
    }

    /// The server proves its one SPIFFE ID by `source`, judged by `clock`. What it showed is this attempt's alone.
    async fn handshake(
        &self,
        source: Arc<dyn TrustSource>,
        protocols: &[&[u8]],
        clock: Arc<dyn Clock>,
    ) -> Result<Secured, Failed> {
        let refused = RefusedPeer::default();
        let verifier = SpiffeVerifier::new(source, PeerRule::Exactly(server_id(&self.trust_domain)))
            .with_key_exchange(self.key_exchanges.offered());
        let config = client_config(
            self.identity
                .clone()
                .map(|own| -> Arc<dyn ResolvesClientCert> { own }),
            verifier.telling(refused.clone()),
            protocols,
        );
        let mut config: ClientConfig = config.map_err(io::Error::other)?;
        config.time_provider = time_provider(move || clock.now());
        let stream = self.way.dial().await?;
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| Failed {
            kind: error.kind(),
            words: match error.get_ref().and_then(|cause| cause.downcast_ref()) {
                Some(tls) => match self.key_exchanges.words(tls) {
                    Some(words) => words.to_owned(),
                    None => refused.words(tls),
                },
                None => error.to_string(),
            },
            refusal: refused.get().cloned(),
        })
    }

    /// Another attempt may succeed with what the configured file says by now.
    fn finds_newer_anchors(&self) -> bool {
        let newer = self.anchors.server_not_verified(self.time.now());
        newer.unwrap_or_else(|error| {
            tracing::warn!(%error, "the server cannot be verified and no newer control anchors are there");
            false
        })
    }

    /// For people. Dates of a certificate that is the server's own say something about the clocks.
    fn failed(&self, failed: Failed) -> io::Error {
        let whose = self.time.whose();
        let words = match failed.refusal.map(|refusal| refusal.by(whose)) {
            Some(refusal) => match refusal.dates() {
                Some(dates) => format!("{refusal}; {}", self.time.contradicted(dates)),
                None => refusal.to_string(),
            },
            None => failed.words,
        };
        io::Error::new(failed.kind, self.says(&words))
    }

    fn says(&self, problem: &str) -> String {
        format!("server {}: {problem}", self.way.address())
    }
}

/// A connection on which the server has proved who it is.
type Secured = TlsStream<Box<dyn Carrier>>;

/// A handshake that came to nothing.
struct Failed {
    kind: io::ErrorKind,
    /// Why, for people.
    words: String,
    /// Why the server's certificate was not believed, if that is what went wrong.
    refusal: Option<VerifyError>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self {
            kind: error.kind(),
            words: error.to_string(),
            refusal: None,
        }
    }
}

impl Failed {
    /// Other anchors could change it: nothing at hand vouches for the server.
    fn is_of_a_stranger(&self) -> bool {
        matches!(
            self.refusal,
            Some(VerifyError::Untrusted { .. } | VerifyError::AuthorityNotValid(_))
        )
    }
}

/// One HTTP/2 connection, as a gRPC client wants it. It does not connect again by itself, so that nothing is said over a
/// connection that has not been opened. Clones are the same connection.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    requests: SendRequest<Body>,
    alert: Alert,
    server: VerifiedServer,
}

impl Http2 {
    /// Takes no more requests: the server is gone, is about to go, or is not to be spoken with any more.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed() || self.objection().is_some()
    }

    /// What speaks against the server since it was verified.
    pub(super) fn objection(&self) -> Option<Objection> {
        self.server.objection()
    }

    /// Who says what comes over this connection.
    pub(super) fn said(&self) -> Said {
        self.server.said()
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
