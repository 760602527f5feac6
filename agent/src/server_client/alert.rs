//! What is watched of a connection beside what is said over it: the alert with which the server ended it after its handshake, by which
//! TLS 1.3 says that a client certificate is refused, and of which HTTP/2 keeps only a text; and whether the server stays one that is
//! spoken with. A connection to one that is not is cut here, below HTTP/2, which would wait for what is under way.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::anchors::{Objection, VerifiedServer};

/// The alert of one connection, once it has come.
pub(super) type Alert = Arc<OnceLock<AlertDescription>>;

/// A TLS connection whose alert is remembered, and which ends when something speaks against the server.
pub(super) struct Listened<S> {
    stream: S,
    alert: Alert,
    /// `None` once something did.
    objected: Option<BoxFuture<'static, Objection>>,
}

impl<S> Listened<S> {
    pub(super) fn new(stream: S, server: VerifiedServer) -> (Self, Alert) {
        let alert = Alert::default();
        let listened = Self {
            stream,
            alert: alert.clone(),
            objected: Some(Box::pin(server.objected())),
        };
        (listened, alert)
    }

    fn still_stands(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(objected) = &mut self.objected {
            match objected.as_mut().poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(why) => tracing::warn!(%why, "a connection to a server is cut"),
            }
        }
        self.objected = None;
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the server is not to be spoken with any more",
        ))
    }

    fn note(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = cause {
            let _ = self.alert.set(*alert);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.still_stands(cx)?;
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.note(error);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.still_stands(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
