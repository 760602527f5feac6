//! A connection that ends when somebody else says so: its guard is asked whenever it is read, which a server of HTTP/2 always does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Says when a connection ends, and who is at its other end.
pub(crate) trait Guard<S>: Unpin {
    /// For the services behind it.
    type Info: Clone + Send + Sync + 'static;

    /// Why the connection ends. Wakes the task when that is so.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Who is at the other end of this stream.
    fn info(&self, stream: &S) -> Self::Info;
}

/// A stream with its guard.
#[derive(Debug)]
pub(crate) struct Guarded<S, G> {
    stream: S,
    guard: G,
}

impl<S, G> Guarded<S, G> {
    pub(super) const fn new(stream: S, guard: G) -> Self {
        Self { stream, guard }
    }
}

impl<S, G: Guard<S>> Connected for Guarded<S, G> {
    type ConnectInfo = G::Info;

    fn connect_info(&self) -> G::Info {
        self.guard.info(&self.stream)
    }
}

impl<S: AsyncRead + Unpin, G: Guard<S>> AsyncRead for Guarded<S, G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(why) = self.guard.poll_end(cx) {
            return Poll::Ready(Err(why));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, G: Guard<S>> AsyncWrite for Guarded<S, G> {
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
