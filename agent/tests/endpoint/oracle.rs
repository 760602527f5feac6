//! What h2 makes of a client's bytes, directly and through the authority filter. Whatever comes in, both see the same requests, but for a mended
//! `:authority` and for the filter's bounds, which are stricter. Used by a test and by a fuzz target, so it stands alone.

use std::collections::HashMap;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use loona_hpack::Decoder;
use signet_agent::testing::{AuthorityFilter, MAX_AUTHORITY, MAX_FRAME_PAYLOAD, MAX_HEADER_LIST, Rewriter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// A request as a service would get it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    /// Method, scheme and path.
    line: (String, Option<String>, Option<String>),
    authority: Option<String>,
    headers: HeaderMap,
}

/// What one header block said, by another decoder.
struct Sent {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    is_fragmented: bool,
}

/// Bytes that arrive in pieces, then silence; nobody reads what is answered.
struct Script {
    input: Bytes,
    piece: usize,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let count = self.piece.min(self.input.len()).min(buf.remaining());
        buf.put_slice(&self.input.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Panics where a request comes out changed, or is made up, or is lost without a bound to blame. Says how many came through.
pub(crate) fn compare(input: &[u8], piece: usize) -> usize {
    let script = || Script {
        input: Bytes::copy_from_slice(input),
        piece: piece.max(1),
    };
    let direct = requests(script());
    let filtered = requests(AuthorityFilter::new(script()).0);
    let sent = sent(input);
    // h2 resets a stream for a bad authority, or ends the connection; then what comes on that stream, and on others, has another fate.
    let any_mended = sent.values().any(is_mended);
    // Of a bad field in a middle fragment of a block h2 makes an error of the connection, and of one in the filter's one frame an error of
    // the stream; and it forgets one in the first fragment.
    let any_fragmented = sent.values().any(|sent| sent.is_fragmented);
    for (stream, seen) in &filtered {
        match direct.get(stream) {
            Some(other) => assert_eq!(seen, other, "stream {stream} was changed"),
            None => {
                assert!(
                    any_mended || any_fragmented,
                    "stream {stream} was made up: {seen:?}"
                );
                let sent = sent.get(stream).expect("a request that was sent");
                assert_eq!(seen, &expected(sent), "stream {stream} was changed");
            }
        }
    }
    let is_bounded = breaks_a_bound(input);
    for (stream, seen) in direct.iter().filter(|(stream, _)| !filtered.contains_key(stream)) {
        let long = seen
            .authority
            .as_ref()
            .is_some_and(|authority| authority.len() > MAX_AUTHORITY);
        assert!(
            is_bounded || long || any_fragmented || any_mended,
            "stream {stream} was lost: {seen:?}"
        );
    }
    filtered.len()
}

/// Drives a future as far as it comes without waiting for anything. Who does so much at once that it lets others go first is asked again.
fn settled<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut cx = Context::from_waker(Waker::noop());
    (0..8).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    })
}

/// As the workload sockets are set up.
fn requests(io: impl AsyncRead + AsyncWrite + Unpin) -> HashMap<u32, Seen> {
    let mut builder = h2::server::Builder::new();
    builder
        .max_header_list_size(MAX_HEADER_LIST as u32)
        .max_concurrent_streams(1000);
    let mut seen = HashMap::new();
    let Some(Ok(mut connection)) = settled(pin!(builder.handshake::<_, Bytes>(io))) else {
        return seen;
    };
    while let Some(Some(Ok((request, answer)))) = settled(pin!(connection.accept())) {
        seen.insert(answer.stream_id().as_u32(), of(&request));
    }
    seen
}

fn of<B>(request: &Request<B>) -> Seen {
    let uri = request.uri();
    Seen {
        line: (
            request.method().to_string(),
            uri.scheme_str().map(str::to_owned),
            uri.path_and_query().map(ToString::to_string),
        ),
        authority: uri.authority().map(ToString::to_string),
        headers: request.headers().clone(),
    }
}

/// Whether the filter ends the connection.
fn breaks_a_bound(input: &[u8]) -> bool {
    let (mut rewriter, mut input) = (Rewriter::new(), BytesMut::from(input));
    loop {
        match rewriter.next(&mut input) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

fn is_mended(sent: &Sent) -> bool {
    let mut authorities = sent.fields.iter().filter(|(name, _)| name == b":authority");
    authorities.any(|(_, value)| Authority::try_from(value.as_slice()).is_err())
}

/// The request that a block makes once its authority is mended.
fn expected(sent: &Sent) -> Seen {
    let text = |wanted: &str| {
        let found = sent.fields.iter().find(|(name, _)| name == wanted.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in sent.fields.iter().filter(|(name, _)| !name.starts_with(b":")) {
        // As h2 makes names; `from_bytes` refuses some of them.
        let name = HeaderName::from_lowercase(name).expect("a name that h2 took");
        headers.append(
            name,
            HeaderValue::from_bytes(value).expect("a value that h2 took"),
        );
    }
    let authority = text(":authority").map(|sent_as| {
        let is_mended = is_mended(sent);
        if is_mended {
            "localhost".to_owned()
        } else {
            sent_as
        }
    });
    let path = text(":path").and_then(|path| PathAndQuery::try_from(path).ok());
    let path = path.map(|path| path.to_string());
    // A URI has a scheme only beside an authority.
    let scheme = text(":scheme").filter(|_| authority.is_some());
    Seen {
        line: (text(":method").unwrap_or_default(), scheme, path),
        authority,
        headers,
    }
}

/// The first block of each stream, as far as they can be read.
fn sent(input: &[u8]) -> HashMap<u32, Sent> {
    let (mut found, mut decoder) = (HashMap::new(), Decoder::new());
    let mut rest = input.strip_prefix(PREFACE).unwrap_or_default();
    let mut open: Option<(u32, Vec<u8>, bool)> = None;
    while let Some((kind, flags, stream, payload, later)) = frame(rest) {
        rest = later;
        let (stream, mut block, is_fragmented) = match (kind, open.take()) {
            (HEADERS, None) => match fragment(flags, payload) {
                Some(fragment) => (stream, fragment.to_vec(), false),
                None => return found,
            },
            (CONTINUATION, Some((stream, block, _))) => (stream, [&block, payload].concat(), true),
            (_, None) => continue,
            (_, Some(_)) => return found,
        };
        if flags & END_HEADERS == 0 {
            open = Some((stream, block, is_fragmented));
            continue;
        }
        let Ok(fields) = decoder.decode(&std::mem::take(&mut block)) else {
            return found;
        };
        found.entry(stream).or_insert(Sent {
            fields,
            is_fragmented,
        });
    }
    found
}

/// Kind, flags, stream, payload, and what follows.
type Frame<'a> = (u8, u8, u32, &'a [u8], &'a [u8]);

fn frame(input: &[u8]) -> Option<Frame<'_>> {
    let (header, rest) = input.split_at_checked(FRAME_HEADER)?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let (payload, later) = rest.split_at_checked(length)?;
    let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
    (length <= MAX_FRAME_PAYLOAD).then_some((header[3], header[4], stream, payload, later))
}

fn fragment(flags: u8, mut payload: &[u8]) -> Option<&[u8]> {
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*first), rest);
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(padding)?)
}
