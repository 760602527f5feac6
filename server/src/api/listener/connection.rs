//! A connection of an agent, from its handshake to its end.

use std::{
    fmt::Debug,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use signet_certs::id::SpiffeId;
use signet_runtime::{places, progress::Progress, refusals::Refusals, source::Source};
use tokio::{
    io::{self as tokio_io, AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::server::TlsStream;

use super::{DISPLACED, Peer};
use crate::{
    api::guarded::{Guard, Guarded},
    store::Generation,
};

/// How long a write may wait for the reader of a connection.
const STALL: Duration = Duration::from_secs(20);
/// How often it is asked whether an answer stands still.
const LOOK: Duration = Duration::from_secs(10);

/// What carries a connection.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {
    /// Makes it fit for short messages.
    ///
    /// # Errors
    /// When the system refuses.
    fn prepare(&self) -> io::Result<()>;
}

impl Carrier for TcpStream {
    fn prepare(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }
}

/// For tests: nothing is held back in memory.
impl Carrier for DuplexStream {
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }
}

/// How long a peer may take to hear an alert.
pub(super) const PARTING: Duration = Duration::from_secs(2);

/// Closes a connection whose last word is an alert, if there is one. What its peer sends meanwhile is taken and dropped: left
/// unread, it would have the system answer the close with a reset, which may overtake the alert.
pub(super) async fn close_heard<C: Carrier>(stream: Option<C>) {
    let Some(mut stream) = stream else {
        return;
    };
    let heard = async {
        stream.shutdown().await?;
        tokio_io::copy(&mut stream, &mut tokio_io::sink()).await
    };
    drop(timeout(PARTING, heard).await);
}

/// A TLS connection with its verified [`Peer`].
pub(crate) type PeerConnection<C> = Guarded<Progress<TlsStream<C>>, PeerGuard>;

/// Whose connection it is, and what ends it.
#[derive(Debug)]
pub(crate) struct PeerGuard {
    peer: Peer,
    /// Ends a connection that has a short life.
    end: Option<Pin<Box<Sleep>>>,
    look: Pin<Box<Sleep>>,
    place: Place,
    refusals: Refusals,
}

/// What an open connection is counted against.
#[derive(Debug)]
pub(super) enum Place {
    Agent(places::Place<SpiffeId, Generation>),
    Guest(places::Place<SpiffeId>),
    Stranger(places::Place<Source>),
}

impl Place {
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        match self {
            Self::Agent(place) => place
                .poll_lost(cx)
                .map(|()| "a newer certificate of this agent needs the place, or an agent that has fewer"),
            Self::Guest(place) => place.poll_lost(cx).map(|()| "another agent has fewer places"),
            Self::Stranger(place) => place.poll_lost(cx).map(|()| "a newer connection needs the place"),
        }
    }
}

/// A connection that lives for as long as both want, or at most for `life`.
pub(super) fn guarded<C: Carrier>(
    stream: TlsStream<C>,
    peer: Peer,
    place: Place,
    life: Option<Duration>,
    refusals: Refusals,
) -> PeerConnection<C> {
    let guard = PeerGuard {
        peer,
        end: life.map(|life| Box::pin(sleep(life))),
        look: Box::pin(sleep(LOOK)),
        place,
        refusals,
    };
    Guarded::new(Progress::new(stream, STALL), guard)
}

impl<S> Guard<S> for PeerGuard {
    type Info = Peer;

    /// Once the connection has lived for as long as it may, has lost its place, or has an answer that stands still.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let timed_out = |why| Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why));
        let ended = self
            .end
            .as_mut()
            .is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if ended {
            return timed_out("a connection without a client certificate that counts lives a minute");
        }
        if let Poll::Ready(why) = self.place.poll_lost(cx) {
            self.refusals.count(DISPLACED, self.peer.line.caller());
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        while self.look.as_mut().poll(cx).is_ready() {
            if self.peer.line.is_stuck() {
                return timed_out("the reader of an answer takes nothing");
            }
            self.look.as_mut().reset(Instant::now() + LOOK);
        }
        Poll::Pending
    }

    fn info(&self, _: &S) -> Peer {
        self.peer.clone()
    }
}
