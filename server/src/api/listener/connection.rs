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
    sync::oneshot,
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

/// How long the last answers of a connection may take that is cut: it ends within a second.
const LAST_WORDS: Duration = Duration::from_millis(300);

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
    /// Ends one whose certificate is revoked.
    leash: Option<oneshot::Receiver<()>>,
    /// Ends that, when its last answers have had time to leave.
    cut: Option<Pin<Box<Sleep>>>,
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

/// What ends a connection before its peer does.
#[derive(Debug)]
pub(super) struct Ends {
    /// When it has lived for as long as it may.
    pub(super) life: Option<Duration>,
    /// When its agent is revoked or denied.
    pub(super) leash: Option<oneshot::Receiver<()>>,
}

/// A connection that lives for as long as both want, or until one of these.
pub(super) fn guarded<C: Carrier>(
    stream: TlsStream<C>,
    peer: Peer,
    place: Place,
    ends: Ends,
    refusals: Refusals,
) -> PeerConnection<C> {
    let guard = PeerGuard {
        peer,
        end: ends.life.map(|life| Box::pin(sleep(life))),
        leash: ends.leash,
        cut: None,
        look: Box::pin(sleep(LOOK)),
        place,
        refusals,
    };
    Guarded::new(Progress::new(stream, STALL), guard)
}

impl PeerGuard {
    /// Its calls are refused already, and are told why; what they are told leaves before the connection ends.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_cut = self
            .leash
            .as_mut()
            .is_some_and(|leash| Pin::new(leash).poll(cx).is_ready());
        if is_cut {
            self.leash = None;
            self.cut = Some(Box::pin(sleep(LAST_WORDS)));
        }
        match &mut self.cut {
            Some(cut) => cut.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<S> Guard<S> for PeerGuard {
    type Info = Peer;

    /// Once the connection has lived for as long as it may, its agent is revoked, it has lost its place, or an answer stands still.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let timed_out = |why| Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why));
        let ended = self
            .end
            .as_mut()
            .is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if ended {
            return timed_out("a connection without a client certificate that counts lives a minute");
        }
        if self.poll_cut(cx).is_ready() {
            let why = "its certificate is revoked, or its agent is denied";
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, why));
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
