//! One call of gRPC over HTTP/2: a request without content, and a stream of messages. All of gRPC that a workload needs, in
//! place of a stack that would be most of what its program is built from.

mod code;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client;
use h2::{Ping, PingPong, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use percent_encoding::percent_decode;
use signet_runtime::error::excerpt;
use signet_runtime::prefix::{self, Prefix};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

pub use code::Code;

/// Every call carries it, so that nobody can be tricked into calling on behalf of others (SPIFFE Workload Endpoint §3).
const SECURITY_HEADER: &str = "workload.spiffe.io";
/// Largest message taken, in bytes: agents keep to 4 MiB, some room is left for others.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Largest list of headers or trailers, in bytes.
const MAX_HEADERS: u32 = 64 * 1024;
/// Bytes that may be under way to us before we have read them.
const WINDOW: u32 = 1024 * 1024;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By the other side's word.
    Status(Code, String),
    /// It answered no ping.
    Silent,
}

impl Ended {
    fn because(code: Code, message: impl Into<String>) -> Self {
        Self::Status(code, message.into())
    }

    fn broken(error: &h2::Error) -> Self {
        Self::because(Code::Unavailable, format!("the connection broke: {error}"))
    }
}

/// The messages of one call as they come. The connection ends with it.
pub(crate) struct Answers {
    body: RecvStream,
    taken: BytesMut,
    connection: Driven,
}

/// The task that moves a connection's bytes, and why it ended it.
struct Driven {
    task: AbortHandle,
    silent: Arc<OnceLock<()>>,
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driven {
    /// The connection's own reason where it has one, else what the stream says.
    fn ended(&self, error: &h2::Error) -> Ended {
        match self.silent.get() {
            Some(()) => Ended::Silent,
            None => Ended::broken(error),
        }
    }
}

/// Calls `path`. A connection whose other side leaves a ping unanswered for `keep_alive` is ended; one is sent as often.
pub(crate) async fn call(socket: UnixStream, path: &str, keep_alive: Duration) -> Result<Answers, Ended> {
    let shaken = client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEADERS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(socket)
        .await;
    let (requests, mut connection) = shaken.map_err(|error| Ended::broken(&error))?;
    let silent = Arc::new(OnceLock::new());
    let pings = connection.ping_pong();
    let said = silent.clone();
    let task = tokio::spawn(async move {
        tokio::select! {
            // Whoever reads the stream is told of a broken connection there.
            _ = connection => {}
            () = unanswered(pings, keep_alive) => {
                let _ = said.set(());
            }
        }
    });
    let connection = Driven {
        task: task.abort_handle(),
        silent,
    };
    let broken = |error: h2::Error| connection.ended(&error);
    let mut requests = requests.ready().await.map_err(broken)?;
    let (response, mut content) = requests.send_request(request(path)?, false).map_err(broken)?;
    content
        .send_data(Bytes::from_static(&[0; prefix::LENGTH]), true)
        .map_err(broken)?;
    let response = response.await.map_err(broken)?;
    check_head(&response)?;
    Ok(Answers {
        body: response.into_body(),
        taken: BytesMut::new(),
        connection,
    })
}

fn request(path: &str) -> Result<Request<()>, Ended> {
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        // gRPC's `:authority` for Unix sockets.
        .uri(format!("http://localhost{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(
            header::USER_AGENT,
            concat!("signet-workload/", env!("CARGO_PKG_VERSION")),
        )
        .header(SECURITY_HEADER, "true")
        .body(())
        .map_err(|error| Ended::because(Code::Internal, error.to_string()))
}

/// No answer comes sooner over a socket of a busy machine.
const SHORTEST: Duration = Duration::from_millis(10);

/// Resolves when a ping is left unanswered for `every`.
async fn unanswered(pings: Option<PingPong>, every: Duration) {
    let every = every.max(SHORTEST);
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(every).await;
        match timeout(every, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

fn check_head(response: &Response<RecvStream>) -> Result<(), Ended> {
    if let Some(status) = status(response.headers()) {
        return Err(status);
    }
    let code = match response.status() {
        StatusCode::OK => return check_type(response.headers()),
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    Err(Ended::because(
        code,
        format!("it answers with HTTP status {}", response.status()),
    ))
}

fn check_type(headers: &HeaderMap) -> Result<(), Ended> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    match kind {
        Some(kind) if kind.starts_with("application/grpc") => Ok(()),
        _ => Err(Ended::because(Code::Unknown, "it does not speak gRPC")),
    }
}

/// What headers or trailers say of the call's end.
fn status(headers: &HeaderMap) -> Option<Ended> {
    let code = Code::from_text(headers.get("grpc-status")?.as_bytes());
    let message = headers
        .get("grpc-message")
        .map(|message| percent_decode(message.as_bytes()).decode_utf8_lossy());
    let message = match (code, message) {
        (Code::Ok, _) | (_, None) => "it gave no reason".to_owned(),
        (_, Some(message)) => excerpt(&message, 300),
    };
    Some(Ended::Status(code, message))
}

impl Answers {
    /// The next message. A call never ends without a reason: the other side's status, OK too, or what broke.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Ended> {
        loop {
            if let Some(message) = take_message(&mut self.taken)? {
                return Ok(message);
            }
            let Some(chunk) = self.body.data().await else {
                return Err(self.end().await);
            };
            let chunk = chunk.map_err(|error| self.connection.ended(&error))?;
            // An error here is the stream's end, which the next read tells.
            let _ = self.body.flow_control().release_capacity(chunk.len());
            self.taken.extend_from_slice(&chunk);
        }
    }

    async fn end(&mut self) -> Ended {
        match self.body.trailers().await {
            Ok(trailers) => trailers
                .as_ref()
                .and_then(status)
                .unwrap_or_else(|| Ended::because(Code::Unknown, "it ended the call without a status")),
            Err(error) => self.connection.ended(&error),
        }
    }
}

/// Takes a whole message off the front, if there is one.
fn take_message(taken: &mut BytesMut) -> Result<Option<Bytes>, Ended> {
    let Some((prefix, rest)) = taken.split_first_chunk() else {
        return Ok(None);
    };
    let Prefix { compressed, length } = Prefix::read(*prefix);
    if compressed {
        return Err(Ended::because(
            Code::Internal,
            "it compresses messages, which was not offered",
        ));
    }
    if length > MAX_MESSAGE {
        return Err(Ended::because(
            Code::OutOfRange,
            format!("its message has {length} bytes, at most {MAX_MESSAGE} are read"),
        ));
    }
    if rest.len() < length {
        return Ok(None);
    }
    taken.advance(prefix::LENGTH);
    Ok(Some(taken.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut all = Vec::new();
        for message in messages {
            all.extend_from_slice(&Prefix::of(message.len()));
            all.extend_from_slice(message);
        }
        all
    }

    proptest! {
        /// However the bytes are cut on their way, the messages are the same.
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1usize..50,
        ) {
            let (mut taken, mut read) = (BytesMut::new(), Vec::new());
            for piece in framed(&messages).chunks(cut) {
                taken.extend_from_slice(piece);
                while let Some(message) = take_message(&mut taken).unwrap() {
                    read.push(message.to_vec());
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert!(taken.is_empty());
        }
    }

    #[test]
    fn what_was_not_offered_or_is_too_long_ends_the_call() {
        let taken = |bytes: &[u8]| take_message(&mut BytesMut::from(bytes));
        assert!(matches!(
            taken(&[1, 0, 0, 0, 0]),
            Err(Ended::Status(Code::Internal, _))
        ));
        assert!(matches!(
            taken(&[0, 1, 0, 0, 1]),
            Err(Ended::Status(Code::OutOfRange, _))
        ));
        assert_eq!(taken(&[0, 1, 0, 0, 0]), Ok(None));
    }

    #[test]
    fn a_status_is_told_in_the_other_sides_words() {
        let mut trailers = HeaderMap::new();
        assert_eq!(status(&trailers), None);
        trailers.insert("grpc-status", "7".parse().unwrap());
        trailers.insert("grpc-message", "no%20identity issued".parse().unwrap());
        let said = Ended::because(Code::PermissionDenied, "no identity issued");
        assert_eq!(status(&trailers), Some(said));
        trailers.insert("grpc-status", "many".parse().unwrap());
        assert!(matches!(status(&trailers), Some(Ended::Status(Code::Unknown, _))));
    }
}
