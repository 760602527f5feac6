//! Connections of those who are trusted, kubelet and the administrator, for tonic. kubelet's registration client puts the
//! percent-encoded path of the socket into `:authority`, as some clients of the Workload API do, so all are read through the same filter.

use std::io;
use std::time::Duration;

use signet_runtime::accept;
use signet_runtime::progress::Progress;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use super::filter::AuthorityFilter;

/// How long a client may take nothing of what it is sent.
const STUCK_LIMIT: Duration = Duration::from_secs(20);

/// Connections that were accepted and are not served yet; those beyond are closed.
const QUEUE: usize = 64;

/// What tonic reads and writes.
pub(crate) type Trusted = AuthorityFilter<Progress<UnixStream>>;

impl Connected for Trusted {
    type ConnectInfo = ();

    /// Nothing: only root can connect.
    fn connect_info(&self) {}
}

/// Accepts for as long as the stream lives. It never fails: what cannot be accepted is tried again after a pause.
pub(crate) fn incoming(
    listener: UnixListener,
    name: &'static str,
) -> impl Stream<Item = io::Result<Trusted>> {
    let (accepted, connections) = mpsc::channel(QUEUE);
    let unused = accepted.clone();
    tokio::spawn(async move {
        accept::each(listener, name, unused.closed(), |stream, _| {
            // A full queue: the client sees the connection closed and comes back.
            let _ = accepted.try_send(stream);
        })
        .await;
    });
    ReceiverStream::new(connections)
        .map(|stream| Ok(AuthorityFilter::new(Progress::new(stream, STUCK_LIMIT)).0))
}
