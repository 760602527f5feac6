//! Connections of those who are trusted, kubelet and the administrator, for tonic. kubelet's registration client puts the
//! percent-encoded path of the socket into `:authority`, as some clients of the Workload API do, so all are read through the same filter.

use std::io;
use std::time::Duration;

use signet_runtime::accept;
use signet_runtime::progress::Progress;
use signet_runtime::spans;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;
use tracing::Span;

use super::filter::AuthorityFilter;

/// How long a client may take nothing of what it is sent.
const STUCK_LIMIT: Duration = Duration::from_secs(20);

/// Connections that were accepted and are not served yet; those beyond are closed.
const QUEUE: usize = 64;

/// What tonic reads and writes.
pub(crate) type Trusted = AuthorityFilter<Progress<UnixStream>>;

impl Connected for Trusted {
    type ConnectInfo = spans::Connection;

    /// Its story in the log, and nothing else: only root can connect, and the calls tell kubelet from the administrator.
    fn connect_info(&self) -> spans::Connection {
        spans::Connection::new("local")
    }
}

/// The span of a call over such a connection.
pub(crate) fn call_span(request: &http::Request<()>) -> Span {
    let connection = request.extensions().get::<spans::Connection>();
    connection.map_or_else(Span::none, |connection| connection.call(request.uri().path()))
}

/// Accepts for as long as the stream lives. It never fails: what cannot be accepted is tried again after a pause.
pub(crate) fn incoming(
    listener: UnixListener,
    name: &'static str,
) -> impl Stream<Item = io::Result<Trusted>> {
    let (accepted, connections) = mpsc::channel(QUEUE);
    let unused = accepted.clone();
    spans::spawn(async move {
        accept::each(listener, name, unused.closed(), |stream, _| {
            // A full queue: the client sees the connection closed and comes back.
            let _ = accepted.try_send(stream);
        })
        .await;
    });
    ReceiverStream::new(connections)
        .map(|stream| Ok(AuthorityFilter::new(Progress::new(stream, STUCK_LIMIT)).0))
}
