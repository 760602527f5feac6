//! Connections of a listener as their handshakes end.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;

use super::{Acceptor, TlsError};
use crate::peer::Peer;

/// Most handshakes at a time; a further connection ends the oldest, so that no number of silent ones keeps a client out.
const MAX_HANDSHAKES: usize = 256;

/// Pause when the system gives no connection, such as when all files are in use.
const PAUSE: Duration = Duration::from_millis(100);

/// What a handshake gave.
type Shaken = Result<(TlsStream<TcpStream>, Peer), TlsError>;

/// Clients whose handshakes are done. None waits for another's: a slow one holds nobody up.
pub struct Incoming {
    listener: TcpListener,
    acceptor: Acceptor,
    handshakes: JoinSet<Shaken>,
    /// Those under way, the oldest first, and some that have ended.
    by_age: VecDeque<AbortHandle>,
}

impl Acceptor {
    /// Takes all connections of a listener.
    #[must_use]
    pub fn incoming(&self, listener: TcpListener) -> Incoming {
        Incoming {
            listener,
            acceptor: self.clone(),
            handshakes: JoinSet::new(),
            by_age: VecDeque::new(),
        }
    }
}

impl Incoming {
    /// The next client that is accepted. Whoever is not is logged. A call that is dropped before its end loses nothing.
    pub async fn next(&mut self) -> (TlsStream<TcpStream>, Peer) {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => self.begin(accepted).await,
                Some(shaken) = self.handshakes.join_next() => match shaken {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => tracing::info!(%error, "a connection is refused"),
                    Err(error) if error.is_cancelled() => tracing::info!("a newer connection needs the place of one that was too slow"),
                    Err(error) => tracing::warn!(%error, "a handshake did not end"),
                },
            }
        }
    }

    fn make_room(&mut self) {
        self.by_age.retain(|handshake| !handshake.is_finished());
        if self.by_age.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.by_age.pop_front()
        {
            oldest.abort();
        }
    }

    async fn begin(&mut self, accepted: io::Result<(TcpStream, std::net::SocketAddr)>) {
        match accepted {
            Ok((stream, _)) => {
                self.make_room();
                let acceptor = self.acceptor.clone();
                let begun = self
                    .handshakes
                    .spawn(async move { acceptor.accept(stream).await });
                self.by_age.push_back(begun);
            }
            Err(error) => {
                tracing::warn!(%error, "the listener gives no connection");
                sleep(PAUSE).await;
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}
