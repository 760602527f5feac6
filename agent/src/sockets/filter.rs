//! Lets gRPC clients in that put a socket path into `:authority`.
//!
//! On a Unix socket grpc-python and grpc-java send the (percent-encoded) path of the socket as `:authority`. That is not
//! a URI authority, so the HTTP/2 library below tonic resets every one of their calls. [`AuthorityFilter`] sits on the
//! accepted stream, between the socket and that library. It reads the client's frames, decodes each header block, puts
//! `localhost` in place of a malformed `:authority` and encodes the block again without using the dynamic table. All
//! other frames, and everything the server writes, pass through unchanged.
//!
//! | `:authority` of the client | what the server sees |
//! |---|---|
//! | absent | absent |
//! | a URI authority (`localhost`, `a.sock`, `host:80`) | unchanged |
//! | empty, a path, a percent-encoded path, any other visible ASCII | `localhost` |
//! | more than 1024 bytes | a value the server refuses: that stream alone is reset |
//! | anything with control or non-ASCII bytes | unchanged, the server refuses it |
//!
//! The bytes come from hostile workloads into a privileged process. So the work is bounded (see [`limits`]), a frame
//! that breaks a bound or the rules of HTTP/2 ends its own connection only, and the part that parses
//! ([`Rewriter`]) does no I/O, is fuzzed and tested by properties.
//!
//! Padding and the deprecated priority fields of HEADERS frames are dropped; no other information is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

use super::budget::Budget;
use super::counts::{Bound, Counts};

pub use self::rewriter::Rewriter;
pub use self::violation::Violation;

mod headers;
pub(crate) mod limits;
mod rewriter;
mod strings;
#[cfg(test)]
mod tests;
mod violation;

/// The least that a connection pauses, so that many in a pause cost little.
const PAUSE: Duration = Duration::from_millis(100);

/// Without a pause for so long, a caller has stopped sending too much.
const CALM: Duration = Duration::from_secs(2);

/// What a connection may bring while its caller sends too much and have no part in it.
const QUIET: u32 = 100;

/// How much is read from the socket at once.
const READ_CHUNK: usize = 4096;

/// A DATA frame on stream 0. No valid peer sends one, and the server answers it with GOAWAY(PROTOCOL_ERROR) and closes:
/// the civil way to end a connection from below.
const GOAWAY_TRIGGER: Bytes = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0]);

/// An accepted stream whose client's header blocks are made acceptable. See the module documentation.
#[derive(Debug)]
pub struct AuthorityFilter<S> {
    inner: S,
    rewriter: Rewriter,
    /// Read from the socket, not yet parsed; at most one frame and one chunk.
    input: BytesMut,
    /// Parsed, not yet taken by the server.
    output: Bytes,
    /// Set after a violation: the server sees the end of the stream, the socket is not read any more.
    ended: bool,
    established: Option<oneshot::Sender<()>>,
    pace: Option<Pace>,
}

/// Who pays for what is read, and the pause while he cannot.
#[derive(Debug)]
struct Pace {
    budget: Arc<Budget>,
    counts: Counts,
    pause: Option<Pin<Box<Sleep>>>,
    over: Option<Over>,
}

/// The caller has sent more than he may, and goes on.
#[derive(Debug)]
struct Over {
    since: Instant,
    /// When the last pause ended: whoever has said nothing since is over no longer.
    last: Instant,
    /// What this connection has brought meanwhile.
    work: u32,
}

impl Pace {
    const fn new(budget: Arc<Budget>, counts: Counts) -> Self {
        Self {
            budget,
            counts,
            pause: None,
            over: None,
        }
    }

    /// Ready when there may be more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                if let Some(over) = &mut self.over {
                    over.last = now;
                }
            }
            match self.budget.check_work() {
                Ok(()) => {
                    let is_calm = |over: &Over| now.duration_since(over.last) > CALM;
                    if self.over.as_ref().is_some_and(is_calm) {
                        self.over = None;
                    }
                    return Poll::Ready(());
                }
                Err(wait) => {
                    self.over.get_or_insert(Over {
                        since: now,
                        last: now,
                        work: 0,
                    });
                    self.pause = Some(Box::pin(sleep(wait.max(PAUSE))));
                }
            }
        }
    }

    fn spend(&mut self, work: u32) {
        self.budget.spend_work(work);
        if let Some(over) = &mut self.over {
            over.work = over.work.saturating_add(work);
        }
    }

    /// Whether this connection has gone on for too long; one that only waits for what others of its caller bring goes on.
    fn is_too_much(&self) -> bool {
        let limit = self.budget.over_limit();
        let too_much = |over: &Over| over.last.duration_since(over.since) > limit && over.work > QUIET;
        self.over.as_ref().is_some_and(too_much)
    }
}

impl<S> AuthorityFilter<S> {
    /// Wraps an accepted stream. The receiver gets its message once the client has shown that it speaks HTTP/2 (preface
    /// and the head of a SETTINGS frame), so that the caller can close clients that never do.
    pub fn new(inner: S) -> (Self, oneshot::Receiver<()>) {
        let (established, receiver) = oneshot::channel();
        let filter = Self {
            inner,
            rewriter: Rewriter::new(),
            input: BytesMut::new(),
            output: Bytes::new(),
            ended: false,
            established: Some(established),
            pace: None,
        };
        (filter, receiver)
    }

    /// As [`new`](Self::new); what is read costs this caller, and nothing more is read while he has no more to spend.
    pub(super) fn paced(inner: S, budget: Arc<Budget>, counts: Counts) -> (Self, oneshot::Receiver<()>) {
        let (mut filter, receiver) = Self::new(inner);
        filter.pace = Some(Pace::new(budget, counts));
        (filter, receiver)
    }

    /// The server says so to the client, and nothing more is read.
    fn end(&mut self) {
        self.ended = true;
        self.input = BytesMut::new();
        self.output = GOAWAY_TRIGGER;
    }

    /// Moves the next piece from `input` to `output`. False when more input is needed.
    fn advance(&mut self) -> io::Result<bool> {
        let next = self.rewriter.next(&mut self.input);
        if let Some(pace) = &mut self.pace {
            pace.spend(self.rewriter.take_work());
            if pace.is_too_much() {
                pace.counts.met(Bound::Work);
                tracing::debug!("closing a connection that goes on bringing more than may be sent");
                self.end();
                return Ok(true);
            }
        }
        match next {
            Ok(Some(piece)) => self.output = piece,
            Ok(None) => return Ok(false),
            Err(violation @ Violation::NotHttp2) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, violation));
            }
            Err(violation) => {
                tracing::debug!(%violation, "closing a workload connection");
                self.end();
            }
        }
        if self.rewriter.is_established()
            && let Some(established) = self.established.take()
        {
            // Nobody listening is fine: then there is no deadline to lift.
            let _ = established.send(());
        }
        Ok(true)
    }
}

impl<S: AsyncRead + Unpin> AuthorityFilter<S> {
    /// Reads a chunk from the socket into `input`. False at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll(cx));
        }
        if self.input.is_empty() {
            // Idle connections hold no buffer; what was handed out shares it.
            self.input = BytesMut::new();
            self.output = Bytes::new();
        }
        let mut chunk = [0_u8; READ_CHUNK];
        let mut chunk = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut chunk))?;
        self.input.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(!chunk.filled().is_empty()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityFilter<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !this.output.is_empty() {
                let count = this.output.len().min(buf.remaining());
                buf.put_slice(&this.output[..count]);
                this.output.advance(count);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if !this.advance()? && !ready!(this.poll_fill(cx))? {
                // The client closed. A frame cut short is dropped, as the server would do with it.
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AuthorityFilter<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
