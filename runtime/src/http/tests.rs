use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use axum::routing::get;
use serde_json::json;

use super::*;
use crate::ready::{Level, Readiness, Reason};
use crate::telemetry::Metrics;

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
    let server = serve_telemetry(
        listener,
        readiness,
        Metrics::new("signet_test"),
        32,
        Refusals::untold("telemetry"),
        drain.clone(),
    );
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
    let refusals = Refusals::untold("a test's");
    drain.spawn(serve(listener, Router::new(), limits, refusals, drain.clone()));
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Ends only because the server hangs up.
    let _ = slow.read_to_end(&mut rest).await;
    assert!(drain.finish(Duration::from_secs(5)).await);
}

/// Asks once, and leaves the connection open.
async fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn idle_connections_make_room_the_oldest_first() {
    let (listener, drain) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Drain::new());
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        connections: 6,
        per_source: 4,
        ..Limits::default()
    };
    let router = Router::new()
        .route("/live", get(async || "ok"))
        .route("/list", get(async || vec![7_u8; BODY]));
    let refusals = Refusals::untold("a test's");
    drain.spawn(serve(listener, router, limits, refusals, drain.clone()));
    let mut reading = TcpStream::connect(address).await.unwrap();
    reading
        .write_all(b"GET /list HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 12];
    reading.read_exact(&mut head).await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(ask(address).await);
    }
    let mut ended = 0;
    for mut stream in kept.drain(..17) {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        ended += 1;
    }
    assert_eq!(ended, 17, "three are left beside the one that reads");
    let mut list = Vec::new();
    let outcome = tokio::time::timeout(Duration::from_secs(1), reading.read_to_end(&mut list)).await;
    assert!(
        outcome.is_err() && list.len() > BODY,
        "the answer in hand went on to its end"
    );
    drop((kept, reading));
    assert!(drain.finish(Duration::from_secs(5)).await);
}

const BODY: usize = 6_900_000;

/// A server of [`BODY`] bytes at the other end of a pipe, for one request.
async fn asked(limits: Limits) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
    let (mut reader, stream) = tokio::io::duplex(64 << 10);
    let router = Router::new().route("/list", get(async || vec![7_u8; BODY]));
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let server = tokio::spawn(serve_connection(
        stream,
        peer,
        router,
        limits,
        Seat::own(),
        Drain::new(),
    ));
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
    let server = tokio::spawn(serve_connection(
        stream,
        peer,
        router,
        limits,
        Seat::own(),
        Drain::new(),
    ));
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
