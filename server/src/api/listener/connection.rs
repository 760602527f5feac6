//! A connection of an agent, from its handshake to its end.

use std::{
    fmt::Debug,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use signet_certs::id::SpiffeId;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{Peer, places::AgentPlace};
use crate::admission::Admitted;

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

/// A TLS connection with its verified [`Peer`].
#[derive(Debug)]
pub(crate) struct PeerConnection<C> {
    pub(super) stream: TlsStream<C>,
    pub(super) peer: Peer,
    /// Ends a stranger's connection.
    pub(super) end: Option<Pin<Box<Sleep>>>,
    pub(super) place: Place,
}

/// What an open connection is counted against.
#[derive(Debug)]
pub(super) enum Place {
    Agent(AgentPlace),
    Guest { _counted: Admitted<SpiffeId> },
    Stranger { _counted: Admitted<IpAddr> },
}

impl<C> PeerConnection<C> {
    /// Fails once the connection has lived for as long as it may, or has lost its place; wakes its task at that moment.
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
        if let Place::Agent(place) = &mut self.place
            && place.poll_lost(cx).is_ready()
        {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "a newer certificate of this agent needs the place",
            ));
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
