//! A connection of an agent, from its handshake to its end.

use std::{
    fmt::Debug,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use signet_certs::id::SpiffeId;
use signet_runtime::{places, progress::Progress, source::Source};
use tokio::{
    io::{self as tokio_io, AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{Peer, places::AgentPlace};

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
#[derive(Debug)]
pub(crate) struct PeerConnection<C> {
    stream: Progress<TlsStream<C>>,
    peer: Peer,
    /// Ends a connection that has a short life.
    end: Option<Pin<Box<Sleep>>>,
    look: Pin<Box<Sleep>>,
    place: Place,
}

/// What an open connection is counted against.
#[derive(Debug)]
pub(super) enum Place {
    Agent(AgentPlace),
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

impl<C> PeerConnection<C> {
    /// A connection that lives for as long as both want, or at most for `life`.
    pub(super) fn new(stream: TlsStream<C>, peer: Peer, place: Place, life: Option<Duration>) -> Self {
        Self {
            stream: Progress::new(stream, STALL),
            peer,
            end: life.map(|life| Box::pin(sleep(life))),
            look: Box::pin(sleep(LOOK)),
            place,
        }
    }

    /// Fails once the connection has lived for as long as it may, has lost its place, or has an answer that stands still; wakes its
    /// task at that moment.
    fn check_life(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let ended = self
            .end
            .as_mut()
            .is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if ended {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a connection without a client certificate that counts lives a minute",
            ));
        }
        if let Poll::Ready(why) = self.place.poll_lost(cx) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        while self.look.as_mut().poll(cx).is_ready() {
            if self.peer.line.is_stuck() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the reader of an answer takes nothing",
                ));
            }
            self.look.as_mut().reset(Instant::now() + LOOK);
        }
        Ok(())
    }
}

impl<C> Connected for PeerConnection<C> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<C: Carrier> AsyncRead for PeerConnection<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_life(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<C: Carrier> AsyncWrite for PeerConnection<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
