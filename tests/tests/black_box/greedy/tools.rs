//! What a greedy client of a workload socket does.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::Frame,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use signet_tests::workload::WorkloadClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinSet,
};

/// The largest window that HTTP/2 knows: whoever announces it is sent everything at once.
const WINDOW: u32 = (1 << 31) - 1;
/// The longest message that gRPC libraries take by default.
const LONG: usize = 4 * 1024 * 1024 - 64;

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";

pub(super) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A gRPC message whose only field is a text of this length.
pub(super) fn message(length: usize) -> Bytes {
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
pub(super) fn half(message: &Bytes) -> Body {
    let part = message.slice(..message.len() - 1);
    let frames = stream::iter([Ok(Frame::data(part))]).chain(stream::pending());
    BodyExt::boxed(StreamBody::new(frames))
}

/// A connection whose peer may send so much on each stream before anybody reads it; it ends with the second value.
pub(super) async fn connection(socket: &Path, window: u32) -> Option<(SendRequest<Body>, JoinSet<()>)> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(window)
        .initial_connection_window_size(WINDOW);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.ok()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    Some((sender, tasks))
}

/// A call of gRPC.
pub(super) fn request(path: &str, body: Body) -> http::Request<Body> {
    http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("workload.spiffe.io", "true")
        .body(body)
        .unwrap()
}

/// So many calls at once on one connection, whose answers nobody reads.
pub(super) async fn calls(socket: PathBuf, path: &'static str, number: usize, body: impl Fn() -> Body) {
    let Some((sender, mut tasks)) = connection(&socket, WINDOW).await else {
        return;
    };
    for _ in 0..number {
        let request = request(path, body());
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

fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    bytes.extend(frame(8, 0, 0, &[0x7f, 0xff, 0, 0]));
    bytes
}

/// Asks for much and reads nothing, not even that it is told to go.
async fn never_reads(socket: PathBuf) {
    let Ok(mut stream) = UnixStream::connect(&socket).await else {
        return;
    };
    let mut bytes = preface();
    for call in 0..2000 {
        // GET / over http, from HPACK's static table.
        bytes.extend(frame(1, 5, 2 * call + 1, &[0x82, 0x84, 0x86]));
    }
    let _ = stream.write_all(&bytes).await;
    std::future::pending::<()>().await;
}

/// Sends frames that want an answer, as fast as they are taken.
async fn floods(socket: PathBuf) {
    let pings = frame(6, 0, 0, &[0; 8]).repeat(200);
    loop {
        let Ok(stream) = UnixStream::connect(&socket).await else {
            return;
        };
        let (mut answers, mut stream) = stream.into_split();
        let mut read = [0; 4096];
        let reading = async { while answers.read(&mut read).await.is_ok_and(|read| read > 0) {} };
        let writing = async {
            if stream.write_all(&preface()).await.is_ok() {
                while stream.write_all(&pings).await.is_ok() {}
            }
        };
        tokio::join!(reading, writing);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Connects, fetches and leaves, again and again.
async fn comes_and_goes(socket: PathBuf) {
    loop {
        if WorkloadClient::new(&socket).fetch().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Connects, and says nothing.
pub(super) async fn silent(socket: PathBuf) {
    let _stream = UnixStream::connect(&socket).await;
    std::future::pending::<()>().await;
}

/// Everything that needs no identity.
pub(crate) fn attack(socket: &Path) -> JoinSet<()> {
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

/// Everything that somebody with an identity may do: watch and never read, fetch again and again, and flood.
pub(crate) fn attack_with_identity(socket: &Path) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    let nothing = Bytes::from_static(&[0; 5]);
    for _ in 0..4 {
        for path in [FETCH, BUNDLES] {
            let body = nothing.clone();
            attack.spawn(calls(socket.to_owned(), path, 64, move || whole(&body)));
        }
        let long = message(LONG);
        attack.spawn(calls(socket.to_owned(), FETCH, 64, move || half(&long)));
        attack.spawn(floods(socket.to_owned()));
        attack.spawn(comes_and_goes(socket.to_owned()));
    }
    for _ in 0..32 {
        attack.spawn(never_reads(socket.to_owned()));
        attack.spawn(silent(socket.to_owned()));
    }
    attack
}
