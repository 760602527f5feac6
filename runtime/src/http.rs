//! A bounded HTTP/1.1 server, and the health and metrics endpoint built on it.

mod idle;
mod telemetry;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tracing::Instrument as _;

use self::idle::Marked;
pub use self::telemetry::{serve_telemetry, telemetry_router};
use crate::accept;
use crate::drain::Drain;
use crate::places::{Bounds, Loses, Marker, Place, Places};
use crate::progress::Progress;
use crate::refusals::Refusals;
use crate::source::Source;
use crate::spans::Connection;

/// What the kernel holds of an answer that is on its way, in bytes; it doubles the number for its own needs. With the megabytes that
/// it would grow to, a slow reader's progress would show but once a minute.
const SEND_BUFFER: usize = 128 << 10;

/// What a stranger may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at once. Beyond them, whoever has the most loses the one that has been idle for longest.
    pub connections: usize,
    /// Those of one source.
    pub per_source: usize,
    /// Longest time for the head of a request to arrive, idle time between requests included.
    pub header_timeout: Duration,
    /// How long an answer may stand still because its reader takes nothing. One that moves is never cut, however long it is.
    pub stall: Duration,
    /// After this a connection is closed once the answer in hand is out, so that nobody keeps a place for ever.
    pub connection_lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            per_source: 128,
            header_timeout: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            connection_lifetime: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// Room for connections within these limits.
    #[must_use]
    pub fn places(&self) -> Arc<Places<Source>> {
        Places::new(Bounds {
            total: self.connections,
            cap: self.per_source,
            loses: Loses::Stalest,
        })
    }
}

/// Why connections of an HTTP door end before their time, as its [`Refusals`] count them.
pub const REASONS: &[&str] = &[DISPLACED];
/// Their place went to another.
const DISPLACED: &str = "displaced";

/// Serves `router` until the drain starts; requests in hand are then finished. Never fails; `refusals` has the name that tells
/// listeners apart in the log. Handlers find the peer as `Extension<SocketAddr>`.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, refusals: Refusals, drain: Drain) {
    each(listener, limits, refusals, &drain, |stream, peer| {
        let drain = drain.clone();
        let router = router.clone();
        move |seat| serve_connection(stream, peer, router, limits, seat, drain)
    })
    .await;
}

/// Runs `serve` for each connection that has a place, until it ends or the place goes to another.
pub async fn each<S, F>(
    listener: TcpListener,
    limits: Limits,
    refusals: Refusals,
    drain: &Drain,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> S,
) where
    S: FnOnce(Seat) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = limits.places();
    accept::each(listener, refusals.door(), drain.signalled(), |stream, peer| {
        show_progress(&stream);
        let source = Source::from(peer.ip());
        let Ok(mut place) = places.take(&source) else {
            return refusals.count(DISPLACED, source);
        };
        let connection = serve(stream, peer)(Seat::new(&place));
        let refusals = refusals.clone();
        let span = Connection::new(refusals.door()).with(peer).span();
        let serving = async move {
            tokio::select! {
                () = connection => {}
                () = place.lost() => refusals.count(DISPLACED, source),
            }
        };
        drain.spawn(serving.instrument(span));
    })
    .await;
}

/// How a connection says that it is idle.
#[derive(Debug)]
pub struct Seat(Option<Marker<Source>>);

impl Seat {
    /// Of this place, idle to begin with: nothing is asked on it yet.
    fn new(place: &Place<Source>) -> Self {
        let marker = place.marker();
        marker.set_idle(true);
        Self(Some(marker))
    }

    /// Of no place that could be lost.
    #[must_use]
    pub const fn own() -> Self {
        Self(None)
    }

    fn set_idle(&self, idle: bool) {
        if let Some(marker) = &self.0 {
            marker.set_idle(idle);
        }
    }
}

fn show_progress(stream: &TcpStream) {
    if let Err(error) = setsockopt(stream, SndBuf, &SEND_BUFFER) {
        tracing::debug!(%error, "the send buffer of a connection keeps its size");
    }
}

/// Serves one accepted connection, plain or behind TLS, within `limits` (their bounds on connections are the caller's),
/// until it ends, or its life is over or the drain has started and the request in hand is finished.
pub async fn serve_connection<S>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    seat: Seat,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(axum::Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(64)
        .serve_connection(
            TokioIo::new(Marked::new(Progress::new(stream, limits.stall), seat)),
            service,
        );
    tokio::pin!(connection);
    let lifetime = tokio::time::sleep(limits.connection_lifetime);
    let outcome = tokio::select! {
        outcome = &mut connection => Some(outcome),
        () = drain.signalled() => None,
        () = lifetime => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, %peer, "an HTTP connection ended with an error");
    }
}

#[cfg(test)]
mod tests;
