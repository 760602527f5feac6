//! kubelet's connections. Its registration client puts the percent-encoded path of the socket into `:authority`, as some
//! clients of the Workload API do, so both sockets of the driver are read through the same filter.

use std::io;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::transport::server::Connected;

use crate::sockets::filter::AuthorityFilter;

impl Connected for AuthorityFilter<UnixStream> {
    type ConnectInfo = ();

    /// Nothing: only root can connect.
    fn connect_info(&self) {}
}

/// Accepted connections, for tonic.
pub(super) fn incoming(
    listener: UnixListener,
) -> impl Stream<Item = io::Result<AuthorityFilter<UnixStream>>> {
    UnixListenerStream::new(listener).map(|accepted| accepted.map(|stream| AuthorityFilter::new(stream).0))
}
