//! The ways to the server: what carries bytes there. What is said over it is the business of [`connect`](super::connect).

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Something that carries bytes both ways.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Carrier for C {}

/// A way to the server.
pub(crate) trait Dialer: Send + Sync {
    /// A new way there, over which nothing has been said yet. It takes as long as it takes: the caller has a limit.
    ///
    /// # Errors
    /// When the server cannot be reached.
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Carrier>>>;

    /// Where it leads, for messages.
    fn address(&self) -> &str;
}

/// Over TCP. The name is resolved again for each connection.
pub(crate) struct Tcp(Arc<str>);

impl Tcp {
    /// To `host:port`.
    pub(crate) fn new(address: &str) -> Arc<Self> {
        Arc::new(Self(address.into()))
    }
}

impl Dialer for Tcp {
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Carrier>>> {
        Box::pin(async {
            let stream = TcpStream::connect(self.0.as_ref()).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Carrier>)
        })
    }

    fn address(&self) -> &str {
        &self.0
    }
}
