//! What lies between client and server, and can be cut, or lead elsewhere.

use super::*;

#[derive(Clone, Default)]
pub(super) struct Wires {
    cut: Arc<Mutex<Vec<AbortHandle>>>,
    server: Arc<Mutex<Option<SocketAddr>>>,
}

impl Wires {
    /// Where the client finds the server from now on.
    pub(super) async fn lay(&self, server: SocketAddr) -> SocketAddr {
        self.lead_to(server);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wires = self.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let server = wires.server.lock().unwrap();
                let wire = tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
                wires.cut.lock().push(wire.abort_handle());
            }
        });
        address
    }

    /// New connections lead there.
    pub(super) fn lead_to(&self, server: SocketAddr) {
        *self.server.lock() = Some(server);
    }

    pub(super) fn cut(&self) {
        for wire in self.cut.lock().drain(..) {
            wire.abort();
        }
    }
}
