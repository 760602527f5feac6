//! The agents' door: TLS 1.3 with our own accept loop, so that one slow or hostile client costs one bounded task.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use signet_certs::{tls::peer_svid, verify::VerifiedSvid};
use signet_runtime::drain::Drain;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

/// Handshakes under way at once, over all addresses.
const HANDSHAKES: usize = 256;
/// Handshakes under way at once from one address: one address cannot hold them all.
const HANDSHAKES_PER_ADDRESS: usize = 32;
/// Open connections; a node agent holds one or two.
const CONNECTIONS: usize = 20_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept error such as EMFILE, which would otherwise spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection, established once in the handshake.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Source address.
    pub address: SocketAddr,
    /// The verified client certificate, if one was presented. Each call checks it again.
    pub svid: Option<Arc<VerifiedSvid>>,
}

/// A TLS connection with its verified [`Peer`].
#[derive(Debug)]
pub struct PeerConnection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _open: OwnedSemaphorePermit,
}

impl Connected for PeerConnection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Accepts until `drain` is signalled; finished handshakes come out of the receiver.
pub fn accept(
    tcp: TcpListener,
    tls: Arc<ServerConfig>,
    drain: &Drain,
) -> mpsc::Receiver<io::Result<PeerConnection>> {
    let (finished, receiver) = mpsc::channel(64);
    let loop_drain = drain.clone();
    drain.spawn(async move {
        let door = Arc::new(Door {
            tls: TlsAcceptor::from(tls),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            by_address: Mutex::new(HashMap::new()),
        });
        loop {
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted,
                () = loop_drain.signalled() => return,
                () = finished.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => door.admit(stream, address, &finished),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept agent connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    receiver
}

struct Door {
    tls: TlsAcceptor,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Door {
    /// Starts the handshake in its own task, or closes the connection when a bound is reached.
    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        finished: &mpsc::Sender<io::Result<PeerConnection>>,
    ) {
        let (Ok(handshake), Ok(open)) = (
            self.handshakes.clone().try_acquire_owned(),
            self.connections.clone().try_acquire_owned(),
        ) else {
            tracing::warn!(%address, "too many connections, one was closed");
            return;
        };
        let Some(slot) = AddressSlot::take(self, address.ip()) else {
            tracing::debug!(%address, "too many handshakes from one address, one was closed");
            return;
        };
        let door = self.clone();
        let finished = finished.clone();
        tokio::spawn(async move {
            let result = timeout(HANDSHAKE_TIMEOUT, door.handshake(stream, address, open)).await;
            drop((handshake, slot));
            match result {
                // A failed send means the server is draining: the connection closes by being dropped.
                Ok(Ok(connection)) => drop(finished.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%address, %error, "handshake failed"),
                Err(_) => tracing::debug!(%address, "handshake timed out"),
            }
        });
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        open: OwnedSemaphorePermit,
    ) -> io::Result<PeerConnection> {
        stream.set_nodelay(true)?;
        let stream = self.tls.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let svid = peer_svid(certificates).map(|leaf| {
            Arc::new(VerifiedSvid {
                spiffe_id: leaf.spiffe_id,
                serial: leaf.serial,
                authority_id: leaf.authority_id,
                not_after: leaf.not_after,
            })
        });
        Ok(PeerConnection {
            stream,
            peer: Peer { address, svid },
            _open: open,
        })
    }
}

/// One handshake counted against its address.
struct AddressSlot {
    door: Arc<Door>,
    ip: IpAddr,
}

impl AddressSlot {
    fn take(door: &Arc<Door>, ip: IpAddr) -> Option<Self> {
        let mut counts = door.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_insert(0);
        if *count >= HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self {
            door: door.clone(),
            ip,
        })
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut counts = self
            .door
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}
