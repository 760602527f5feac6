//! The admins' door: a Unix socket whose file mode is the check. It always lets in whoever comes last, so that connections that somebody
//! has forgotten, or opens without end, keep no admin out.

use std::{
    fmt::Debug,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::guarded::{Guard, Guarded};
use signet_runtime::{
    accept,
    drain::Drain,
    places::{Bounds, Loses, Place, Places},
    progress::Progress,
    refusals::Refusals,
    spans::Connection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::UnixStream,
    sync::mpsc,
};
use tokio_util::net::Listener;

/// How long a write may wait for its reader.
const STALL: Duration = Duration::from_secs(20);
/// Why connections end before their time, as the [`Refusals`] of this door count them.
pub(crate) const REASONS: &[&str] = &[DISPLACED];
const DISPLACED: &str = "displaced";

/// What carries a connection.
pub(crate) trait AdminCarrier: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {
    /// The user at its other end, as the kernel says it.
    fn user(&self) -> Option<u32>;
}

impl AdminCarrier for UnixStream {
    fn user(&self) -> Option<u32> {
        self.peer_cred().ok().map(|peer| peer.uid())
    }
}

/// For tests: the server in memory.
impl AdminCarrier for DuplexStream {
    fn user(&self) -> Option<u32> {
        None
    }
}

/// Who is at the other end of a connection of an admin: calls are audited by it.
#[derive(Clone, Debug)]
pub(crate) struct AdminPeer {
    /// The user, where the kernel tells it.
    pub user: Option<u32>,
    /// Its story in the log.
    pub connection: Connection,
}

impl AdminPeer {
    fn new(user: Option<u32>) -> Self {
        let connection = Connection::new("admin");
        Self {
            user,
            connection: match user {
                Some(user) => connection.of_user(user),
                None => connection,
            },
        }
    }
}

/// A connection of an admin.
pub(crate) type AdminConnection<C> = Guarded<Progress<C>, HasPlace>;

/// Ends a connection whose place another one needs.
#[derive(Debug)]
pub(crate) struct HasPlace {
    place: Place<()>,
    refusals: Refusals,
    peer: AdminPeer,
}

impl<C: AdminCarrier> Guard<Progress<C>> for HasPlace {
    type Info = AdminPeer;

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.place.poll_lost(cx));
        self.refusals.count(DISPLACED, "admin");
        Poll::Ready(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "a newer connection needs the place",
        ))
    }

    fn info(&self, _: &Progress<C>) -> AdminPeer {
        self.peer.clone()
    }
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
            let guard = HasPlace {
                place,
                refusals: refusals.clone(),
                peer: AdminPeer::new(stream.user()),
            };
            let connection = Guarded::new(Progress::new(stream, STALL), guard);
            // As many wait to be served as there are places, so there is always room.
            let _ = accepted.try_send(Ok(connection));
        })
        .await;
    });
    receiver
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::UnixListener, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_admin_that_takes_nothing_is_let_go() {
        let folder = signet_testkit::folder();
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let drain = Drain::new();
        let mut accepted = accept(listener, 8, Refusals::untold("admin"), &drain);
        let client = UnixStream::connect(&path).await.unwrap();
        let mut connection = accepted.recv().await.unwrap().unwrap();
        let begun = Instant::now();
        let written = connection.write_all(&vec![0; 16 << 20]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= STALL, "{:?}", begun.elapsed());
        drop(client);
    }
}
