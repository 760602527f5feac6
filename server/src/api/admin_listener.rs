//! The admins' door: a Unix socket whose file mode is the check. It always lets in whoever comes last, so that connections that somebody
//! has forgotten, or opens without end, keep no admin out.

use std::{
    fmt::Debug,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use signet_runtime::{
    accept,
    drain::Drain,
    places::{Bounds, Loses, Place, Places},
    progress::Progress,
    refusals::Refusals,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::UnixStream,
    sync::mpsc,
};
use tokio_util::net::Listener;
use tonic::transport::server::Connected;

/// How long a write may wait for its reader.
const STALL: Duration = Duration::from_secs(20);
/// Why connections end before their time, as the [`Refusals`] of this door count them.
pub(crate) const REASONS: &[&str] = &[DISPLACED];
const DISPLACED: &str = "displaced";

/// What carries a connection.
pub(crate) trait AdminCarrier:
    AsyncRead + AsyncWrite + Connected + Debug + Send + Unpin + 'static
{
}

impl AdminCarrier for UnixStream {}

/// For tests: the server in memory.
impl AdminCarrier for DuplexStream {}

/// A connection of an admin.
#[derive(Debug)]
pub(crate) struct AdminConnection<C> {
    stream: Progress<C>,
    place: Place<()>,
    refusals: Refusals,
}

/// Accepts until `drain` is signalled, with this many connections at once.
pub(crate) fn accept<L>(
    listener: L,
    room: usize,
    refusals: Refusals,
    drain: &Drain,
) -> mpsc::Receiver<io::Result<AdminConnection<L::Io>>>
where
    L: Listener<Io: AdminCarrier, Addr: Send> + Send + Unpin + 'static,
{
    let (accepted, receiver) = mpsc::channel(room);
    let loop_drain = drain.clone();
    let places = Places::new(Bounds {
        total: room,
        cap: room,
        loses: Loses::Stalest,
    });
    drain.spawn_vital("admin socket", async move {
        accept::each(listener, refusals.door(), loop_drain.signalled(), |stream, _| {
            let Ok(place) = places.take(&()) else {
                return refusals.count(DISPLACED, "admin");
            };
            let connection = AdminConnection {
                stream: Progress::new(stream, STALL),
                place,
                refusals: refusals.clone(),
            };
            // As many wait to be served as there are places, so there is always room.
            let _ = accepted.try_send(Ok(connection));
        })
        .await;
    });
    receiver
}

/// Who it is says the stream below: calls are audited by it.
impl<C: Connected> Connected for AdminConnection<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> C::ConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

impl<C: AdminCarrier> AsyncRead for AdminConnection<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.place.poll_lost(cx).is_ready() {
            self.refusals.count(DISPLACED, "admin");
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "a newer connection needs the place",
            )));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<C: AdminCarrier> AsyncWrite for AdminConnection<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
