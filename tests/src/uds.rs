//! gRPC over Unix sockets, as kubelet and workloads speak it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Connects now, and again whenever a call needs it.
///
/// # Errors
/// When nobody listens at `path`.
pub async fn connect(path: &Path) -> Result<Channel> {
    let socket = path.to_owned();
    let connector = service_fn(move |_: Uri| dial(socket.clone()));
    let endpoint = endpoint();
    let channel = endpoint.connect_with_connector(connector).await;
    channel.with_context(|| format!("connect to {}", path.display()))
}

/// Connects only when a call needs it.
pub fn connect_lazy(path: &Path) -> Channel {
    let socket = path.to_owned();
    endpoint().connect_with_connector_lazy(service_fn(move |_: Uri| dial(socket.clone())))
}

/// Over a connection that is there already, and no other when it ends.
pub fn over(stream: UnixStream) -> Channel {
    let mut stream = Some(stream);
    let connector = service_fn(move |_: Uri| {
        let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
        async move { Ok::<_, std::io::Error>(TokioIo::new(stream?)) }
    });
    endpoint().connect_with_connector_lazy(connector)
}

fn endpoint() -> Endpoint {
    // Never resolved: the connector decides where to go.
    Endpoint::from_static("http://localhost")
}

async fn dial(path: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    Ok(TokioIo::new(UnixStream::connect(path).await?))
}
