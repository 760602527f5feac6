//! One pod without any identity uses everything that it is granted at once, while its neighbour fetches: nobody else notices, the agent
//! stays small, and all of it is given back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use signet_tests::{domain::Domain, wait::within, workload::WorkloadClient};
use tokio::{io::AsyncWriteExt as _, net::UnixStream, task::JoinSet, time::Instant};

use super::support::pod_with_volume;

/// Largest that the agent may be, whatever one pod does (kilobytes).
const MOST: u64 = 128 * 1024;
/// How much larger than before it may be once the attack is over (kilobytes).
const KEPT: u64 = 32 * 1024;
/// How long the attack lasts.
const ATTACK: Duration = Duration::from_secs(12);
/// How soon what it took is given back.
const GIVEN_BACK: Duration = Duration::from_secs(30);
/// The largest window that HTTP/2 knows: whoever announces it is sent everything at once.
const WINDOW: u32 = (1 << 31) - 1;
/// The longest message that gRPC libraries take by default.
const LONG: usize = 4 * 1024 * 1024 - 64;

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// What `/proc` says of a process under this name (kilobytes).
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A gRPC message whose only field is a text of this length.
fn message(length: usize) -> Bytes {
    let mut field = vec![0x0a];
    let mut left = length;
    while left >= 0x80 {
        field.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    field.push(u8::try_from(left).unwrap());
    field.resize(field.len() + length, b'x');
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(field.len()).unwrap());
    bytes.put_slice(&field);
    bytes.freeze()
}

fn whole(message: &Bytes) -> Body {
    Full::new(message.clone()).boxed()
}

/// All but the last byte, and then nothing more.
fn half(message: &Bytes) -> Body {
    let part = message.slice(..message.len() - 1);
    let frames = stream::iter([Ok(Frame::data(part))]).chain(stream::pending());
    BodyExt::boxed(StreamBody::new(frames))
}

/// So many calls at once on one connection, whose answers nobody reads.
async fn calls(socket: PathBuf, path: &'static str, number: usize, body: impl Fn() -> Body) {
    let Ok(stream) = UnixStream::connect(&socket).await else {
        return;
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let Ok((sender, connection)) = builder.handshake(TokioIo::new(stream)).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    for _ in 0..number {
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body())
            .unwrap();
        let mut sender = sender.clone();
        tasks.spawn(async move {
            let _unread = sender.send_request(request).await;
            std::future::pending::<()>().await;
        });
    }
    std::future::pending::<()>().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_slice(&[kind, flags]);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame.to_vec()
}

/// Asks for much and reads nothing, not even that it is told to go.
async fn never_reads(socket: PathBuf) {
    let Ok(mut stream) = UnixStream::connect(&socket).await else {
        return;
    };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    bytes.extend(frame(8, 0, 0, &[0x7f, 0xff, 0, 0]));
    for call in 0..2000 {
        // GET / over http, from HPACK's static table.
        bytes.extend(frame(1, 5, 2 * call + 1, &[0x82, 0x84, 0x86]));
    }
    let _ = stream.write_all(&bytes).await;
    std::future::pending::<()>().await;
}

/// Connects, and says nothing.
async fn silent(socket: PathBuf) {
    let _stream = UnixStream::connect(&socket).await;
    std::future::pending::<()>().await;
}

fn attack(socket: &Path) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    let long = message(LONG);
    let longest_taken = message(4000);
    for _ in 0..4 {
        for (path, message) in [
            (REFLECTION, &long),
            (REFLECTION, &longest_taken),
            (HEALTH, &long),
            (FETCH, &long),
        ] {
            let (first, second) = (message.clone(), message.clone());
            attack.spawn(calls(socket.to_owned(), path, 100, move || whole(&first)));
            attack.spawn(calls(socket.to_owned(), path, 100, move || half(&second)));
        }
    }
    for _ in 0..200 {
        attack.spawn(never_reads(socket.to_owned()));
        attack.spawn(silent(socket.to_owned()));
    }
    attack
}

/// Fetches over a new connection each time until then; the slowest one.
async fn neighbour_until(socket: &Path, end: Instant, mut look: impl FnMut()) -> Duration {
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let begun = Instant::now();
        let fetched = WorkloadClient::new(socket).fetch().await;
        slowest = slowest.max(begun.elapsed());
        fetched.expect("the neighbour is served");
        look();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slowest
}

/// Covers BG-17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_with_all_that_it_may_use_takes_nothing_of_the_others() {
    signet_runtime::limits::raise_open_files().unwrap();
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let honest = pod_with_volume(&domain, &agent, "honest").await;
    let greedy = pod_with_volume(&domain, &agent, "greedy").await;
    let (honest, greedy) = (agent.socket(&honest), agent.socket(&greedy));
    let pid = agent.process().unwrap().pid().unwrap();
    WorkloadClient::new(&honest).fetch().await.unwrap();
    let before = memory(pid, "RssAnon");

    let attack = attack(&greedy);
    let mut most = 0;
    let slowest = neighbour_until(&honest, Instant::now() + ATTACK, || {
        most = most.max(memory(pid, "VmRSS"));
    })
    .await;
    println!("agent: {before} KiB before, at most {most} KiB; the neighbour's slowest fetch: {slowest:?}");
    assert!(most < MOST, "the agent grew to {most} KiB");

    drop(attack);
    let ended = Instant::now();
    let given_back = within(GIVEN_BACK, async || {
        (memory(pid, "RssAnon") < before + KEPT).then_some(())
    });
    let given_back = given_back.await.is_some();
    println!("after {:?}: {} KiB", ended.elapsed(), memory(pid, "RssAnon"));
    assert!(given_back);
}
