//! A listener that can be taken away and put back on the same port, connections included.

use std::{io, net::SocketAddr, sync::Arc};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::{JoinHandle, JoinSet},
};

/// Serves one router on one address, while it is not told to refuse.
pub(crate) struct Listener {
    address: SocketAddr,
    router: Router,
    serving: Mutex<Option<Serving>>,
}

/// Ends with everything it accepted when dropped.
struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listener {
    /// Binds and serves. Port 0 takes a free one, which is then kept for good.
    pub(crate) async fn start(address: SocketAddr, router: Router) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(address).await?;
        Ok(Arc::new(Self {
            address: listener.local_addr()?,
            serving: Mutex::new(Some(serve(listener, router.clone()))),
            router,
        }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection: connects are refused from now on.
    pub(crate) async fn refuse(&self) {
        if let Some(mut serving) = self.serving.lock().await.take() {
            serving.0.abort();
            // The port is closed only once the task is really gone.
            let _ = (&mut serving.0).await;
        }
    }

    /// Opens the same port again; nothing happens when it is open.
    pub(crate) async fn accept(&self) -> io::Result<()> {
        let mut serving = self.serving.lock().await;
        if serving.is_none() {
            let listener = TcpListener::bind(self.address).await?;
            *serving = Some(serve(listener, self.router.clone()));
        }
        Ok(())
    }
}

fn serve(listener: TcpListener, router: Router) -> Serving {
    Serving(tokio::spawn(async move {
        // Dropping the set aborts what is in it.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(connection(stream, router.clone()));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }))
}

async fn connection(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let served = Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the fake API server ended");
    }
}
