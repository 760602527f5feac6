//! A bounded HTTP/1.1 server, and the health and metrics endpoint built on it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::accept;
use crate::drain::Drain;
use crate::progress::Progress;
use crate::ready::{Level, Readiness};
use crate::telemetry::Metrics;

/// What the kernel holds of an answer that is on its way, in bytes; it doubles the number for its own needs. With the megabytes that
/// it would grow to, a slow reader's progress would show but once a minute.
const SEND_BUFFER: usize = 128 << 10;

/// What a stranger may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at once; further ones wait in the kernel's queue.
    pub connections: usize,
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
            header_timeout: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            connection_lifetime: Duration::from_secs(300),
        }
    }
}

/// Serves `router` until the drain starts; requests in hand are then finished. Never fails; `name` tells listeners apart
/// in the log. Handlers find the peer as `Extension<SocketAddr>`.
pub async fn serve(listener: TcpListener, name: &'static str, router: Router, limits: Limits, drain: Drain) {
    accept::bounded(listener, name, limits.connections, &drain, |stream, peer| {
        show_progress(&stream);
        serve_connection(stream, peer, router.clone(), limits, drain.clone())
    })
    .await;
}

fn show_progress(stream: &TcpStream) {
    if let Err(error) = setsockopt(stream, SndBuf, &SEND_BUFFER) {
        tracing::debug!(%error, "the send buffer of a connection keeps its size");
    }
}

/// Serves one accepted connection, plain or behind TLS, within `limits` (their bound on connections is the caller's),
/// until it ends, or its life is over or the drain has started and the request in hand is finished.
pub async fn serve_connection<S>(stream: S, peer: SocketAddr, router: Router, limits: Limits, drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(axum::Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(64)
        .serve_connection(TokioIo::new(Progress::new(stream, limits.stall)), service);
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

#[derive(Clone)]
struct Telemetry {
    readiness: Readiness,
    metrics: Metrics,
    drain: Drain,
}

/// Serves `/live`, `/ready` and `/ready/issue` (503 with what stands in the way) and `/metrics` until the drain has started.
/// It is not ready while draining, so it should be the last listener to go: give it a drain of its own if so.
pub async fn serve_telemetry(listener: TcpListener, readiness: Readiness, metrics: Metrics, drain: Drain) {
    let router = telemetry_router(readiness, metrics, drain.clone());
    serve(
        listener,
        "telemetry",
        router,
        Limits {
            connections: 32,
            ..Limits::default()
        },
        drain,
    )
    .await;
}

/// The routes of [`serve_telemetry`], for those who serve them beside others.
pub fn telemetry_router(readiness: Readiness, metrics: Metrics, drain: Drain) -> Router {
    Router::new()
        .route("/live", get(async || "ok\n"))
        .route(
            Level::Serve.path(),
            get(async |state: State<Telemetry>| ready(Level::Serve, state)),
        )
        .route(
            Level::Issue.path(),
            get(async |state: State<Telemetry>| ready(Level::Issue, state)),
        )
        .route("/metrics", get(metrics_text))
        .with_state(Telemetry {
            readiness,
            metrics,
            drain,
        })
}

fn ready(level: Level, State(telemetry): State<Telemetry>) -> Response {
    let standing = telemetry.readiness.standing(level);
    let mut reasons: Vec<_> = standing
        .iter()
        .map(|standing| json!({ "reason": standing.reason.name, "detail": standing.detail }))
        .collect();
    if telemetry.drain.is_draining() {
        reasons.push(json!({ "reason": "stopping", "detail": "" }));
    }
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({ "ready": reasons.is_empty(), "not_ready": reasons });
    (status, axum::Json(body)).into_response()
}

async fn metrics_text(State(telemetry): State<Telemetry>) -> Result<impl IntoResponse, Infallible> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], telemetry.metrics.encode()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::ready::Reason;

    const SYNC: Reason = Reason {
        name: "first_sync",
        level: Level::Serve,
        meaning: "nothing is known yet",
    };
    const AWAY: Reason = Reason {
        name: "server_away",
        level: Level::Issue,
        meaning: "nobody answers",
    };

    async fn started(readiness: Readiness, drain: Drain) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve_telemetry(listener, readiness, Metrics::new("signet_test"), drain.clone());
        drain.spawn(server);
        address
    }

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The status, and what stands in the way.
    async fn readiness_at(address: SocketAddr, path: &str) -> (u16, serde_json::Value) {
        let answer = fetch(address, path).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(body["ready"], status == 200, "{answer}");
        (status, body["not_ready"].clone())
    }

    #[tokio::test]
    async fn both_levels_of_readiness_name_what_stands_in_the_way() {
        let (readiness, drain) = (Readiness::new(&[SYNC, AWAY]), Drain::new());
        let (sync, away) = (readiness.hold(SYNC), readiness.condition(AWAY));
        let address = started(readiness.clone(), drain.clone()).await;
        assert!(fetch(address, "/live").await.starts_with("HTTP/1.1 200"));
        let first_sync = json!([{ "reason": "first_sync", "detail": "" }]);
        assert_eq!(readiness_at(address, "/ready").await, (503, first_sync.clone()));
        assert_eq!(readiness_at(address, "/ready/issue").await, (503, first_sync));
        sync.done();
        away.set(Some("connection refused".to_owned()));
        let server_away = json!([{ "reason": "server_away", "detail": "connection refused" }]);
        assert_eq!(readiness_at(address, "/ready").await, (200, json!([])));
        assert_eq!(readiness_at(address, "/ready/issue").await, (503, server_away));
        away.set(None);
        assert_eq!(readiness_at(address, "/ready/issue").await, (200, json!([])));
        let metrics = fetch(address, "/metrics").await;
        assert!(
            metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
        assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));
        assert!(drain.finish(Duration::from_secs(5)).await);
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_hold_the_drain() {
        let drain = Drain::new();
        let address = started(Readiness::new(&[]), drain.clone()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        assert!(drain.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut() {
        let (listener, drain) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Drain::new());
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            header_timeout: Duration::from_millis(50),
            ..Limits::default()
        };
        drain.spawn(serve(listener, "a test's", Router::new(), limits, drain.clone()));
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut rest = Vec::new();
        // Ends only because the server hangs up.
        let _ = slow.read_to_end(&mut rest).await;
        assert!(drain.finish(Duration::from_secs(5)).await);
    }

    const BODY: usize = 6_900_000;

    /// A server of [`BODY`] bytes at the other end of a pipe, for one request.
    async fn asked(limits: Limits) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
        let (mut reader, stream) = tokio::io::duplex(64 << 10);
        let router = Router::new().route("/list", get(async || vec![7_u8; BODY]));
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let server = tokio::spawn(serve_connection(stream, peer, router, limits, Drain::new()));
        reader
            .write_all(b"GET /list HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        (reader, server)
    }

    /// 30 kB a second make nearly four minutes, longer than a connection lives that does nothing.
    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_makes_progress_is_not_cut() {
        let limits = Limits {
            connection_lifetime: Duration::from_secs(60),
            ..Limits::default()
        };
        let (mut reader, server) = asked(limits).await;
        let (mut taken, mut piece) = (0, vec![0; 30_000]);
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match reader.read(&mut piece).await.unwrap() {
                0 => break,
                count => taken += count,
            }
        }
        assert!(taken > BODY, "{taken} bytes of head and body");
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go() {
        let limits = Limits::default();
        let (mut reader, server) = asked(limits).await;
        let mut first = vec![0; 10_000];
        reader.read_exact(&mut first).await.unwrap();
        let started = tokio::time::Instant::now();
        server.await.unwrap();
        assert_eq!(started.elapsed().as_secs(), limits.stall.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_only_asks_again_has_an_end() {
        let limits = Limits::default();
        let (mut reader, stream) = tokio::io::duplex(64 << 10);
        let router = Router::new().route("/", get(async || "ok"));
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let server = tokio::spawn(serve_connection(stream, peer, router, limits, Drain::new()));
        let (started, mut answer) = (tokio::time::Instant::now(), [0; 1000]);
        while reader
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .is_ok()
        {
            if reader.read(&mut answer).await.unwrap() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
        server.await.unwrap();
        assert!(started.elapsed() < limits.connection_lifetime + limits.header_timeout);
    }
}
