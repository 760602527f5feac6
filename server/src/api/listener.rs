//! The agents' door: TLS 1.3 with our own accept loop, so that one slow or hostile client costs one bounded task.

mod connection;
mod handshakes;
mod judges;
mod places;
mod rows;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ServerConfig, server::Acceptor};
use signet_certs::{
    tls::{KeyExchange, RefusedPeer, peer_svid},
    verify::VerifiedSvid,
};
use signet_runtime::{
    accept, drain::Drain, places::Place, refusals::Refusals, source::Source, spans::Connection,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::net::Listener;
use tracing::Instrument as _;

#[cfg(test)]
pub(super) use self::handshakes::UNPROVEN;
pub(crate) use self::{connection::Carrier, judges::Judges, rows::limits};
use self::{
    connection::{self as open, Ends, PeerConnection, close_heard, guarded},
    handshakes::{Handshakes, Turn},
    judges::Claim,
    places::Connections,
};
use super::{
    allowance::{CONNECTS, Caller, Line},
    opening::Opening,
    refusals,
};
use crate::metrics::KeyExchanges;

/// Longest life of a stranger's connection, and of one by a certificate that is worth nothing: time to attest a node, and to
/// connect again as its agent.
const STRANGERS_LIFE: Duration = Duration::from_secs(60);
/// Life of a connection on which nothing is served, for the answer that says so.
const REFUSED_LIFE: Duration = Duration::from_secs(5);
/// Longest wait for the first message of a handshake: whoever connects has it ready.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections of each kind are open at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rooms {
    /// Handshakes under way.
    pub handshakes: usize,
    /// Of agents.
    pub agents: usize,
    /// By certificates that are worth a trust stream and no more.
    pub guests: usize,
    /// Of strangers.
    pub strangers: usize,
}

/// Why connections are closed at this door, as its [`Refusals`] count them.
pub(crate) const REASONS: &[&str] = &[WORK, PLACES, DISPLACED, SILENT, KEY_EXCHANGE];
/// Too many of their source wait for the work of a handshake.
const WORK: &str = "handshake_work";
/// There was no place.
const PLACES: &str = "places";
/// Their place went to another, during the handshake or after it.
const DISPLACED: &str = "displaced";
/// They did not say anything in time.
const SILENT: &str = "silent";
/// They lack the key exchange that is required.
const KEY_EXCHANGE: &str = "key_exchange";

/// Who is at the other end of a connection: established once in the handshake, but for what Hello adds.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Source address.
    pub address: SocketAddr,
    /// The verified client certificate, if one was presented. Each call checks it again.
    pub svid: Option<Arc<VerifiedSvid>>,
    /// What was agreed on with it.
    pub opening: Opening,
    /// What it has under way.
    pub line: Line,
    /// Its key exchange.
    pub key_exchange: Option<KeyExchange>,
    /// Its story in the log.
    pub connection: Connection,
}

/// TLS for one connection, which tells why its peer is refused.
pub(crate) type Tls = dyn Fn(RefusedPeer) -> Result<ServerConfig, rustls::Error> + Send + Sync;

/// What is counted at the door.
pub(crate) struct Counts {
    /// What is refused.
    pub refusals: Refusals,
    /// Of finished handshakes.
    pub key_exchanges: KeyExchanges,
}

/// Accepts until `drain` is signalled; finished handshakes come out of the receiver.
pub(crate) fn accept<L>(
    listener: L,
    tls: Arc<Tls>,
    judges: Judges,
    rooms: Rooms,
    counts: Counts,
    drain: &Drain,
) -> mpsc::Receiver<io::Result<PeerConnection<L::Io>>>
where
    L: Listener<Io: Carrier, Addr = SocketAddr> + Send + Unpin + 'static,
{
    let (finished, receiver) = mpsc::channel(64);
    let loop_drain = drain.clone();
    drain.spawn_worker("agents' door", async move {
        let door = Arc::new(Door {
            tls,
            handshakes: Arc::new(Handshakes::new(rooms.handshakes)),
            connections: Connections::new(rooms),
            judges,
            refusals: counts.refusals,
            key_exchanges: counts.key_exchanges,
        });
        let stop = async {
            tokio::select! {
                () = loop_drain.signalled() => {}
                () = finished.closed() => {}
            }
        };
        accept::each(listener, "agents", stop, |stream, address| {
            door.admit(stream, address, &finished);
        })
        .await;
    });
    receiver
}

/// A handshake that came to nothing.
enum Failed<C> {
    /// A bound was reached, which is counted.
    Bound(&'static str),
    /// One side refused the other, or the stream broke.
    Broken {
        error: io::Error,
        /// Whether it was for the peer's certificate.
        refused: RefusedPeer,
        /// Where an alert has told the peer why.
        stream: Option<C>,
    },
}

impl<C> From<io::Error> for Failed<C> {
    fn from(error: io::Error) -> Self {
        Self::Broken {
            error,
            refused: RefusedPeer::default(),
            stream: None,
        }
    }
}

/// Does this for as long as the handshake has its place.
async fn unless_lost<C, T>(place: &mut Place<Source>, work: impl Future<Output = T>) -> Result<T, Failed<C>> {
    tokio::select! {
        done = work => Ok(done),
        () = place.lost() => Err(Failed::Bound(DISPLACED)),
    }
}

struct Door {
    tls: Arc<Tls>,
    judges: Judges,
    handshakes: Arc<Handshakes>,
    connections: Connections,
    refusals: Refusals,
    key_exchanges: KeyExchanges,
}

impl Door {
    /// Starts the handshake in its own task, or closes the connection when a bound is reached.
    fn admit<C: Carrier>(
        self: &Arc<Self>,
        stream: C,
        address: SocketAddr,
        finished: &mpsc::Sender<io::Result<PeerConnection<C>>>,
    ) {
        let source = Source::from(address.ip());
        let Some(mut place) = self.handshakes.begin(source) else {
            return self.refusals.count(DISPLACED, source);
        };
        let door = self.clone();
        let finished = finished.clone();
        let connection = Connection::new(self.refusals.door()).with(address);
        let span = connection.span();
        let shaking = async move {
            let shaking = door.handshake(stream, address, connection, &mut place);
            match timeout(HANDSHAKE_TIMEOUT, shaking).await {
                Ok(Ok(connection)) => {
                    drop(place);
                    // A failed send means the server is draining: the connection closes by being dropped.
                    drop(finished.send(Ok(connection)).await);
                }
                Ok(Err(Failed::Bound(reason))) => door.refusals.count(reason, source),
                Ok(Err(Failed::Broken {
                    error,
                    refused,
                    stream,
                })) => {
                    door.failed(address, &error, &refused);
                    // Whoever comes may have its place.
                    place.marker().set_idle(true);
                    tokio::select! {
                        () = close_heard(stream) => {}
                        () = place.lost() => {}
                    }
                }
                Err(_) => door.refusals.count(SILENT, source),
            }
        };
        tokio::spawn(shaking.instrument(span));
    }

    fn failed(&self, address: SocketAddr, error: &io::Error, refused: &RefusedPeer) {
        tracing::debug!(%address, error = refusals::words(error, refused), "handshake failed");
        if error.kind() == io::ErrorKind::TimedOut {
            return self.refusals.count(SILENT, address.ip());
        }
        if refusals::lacks_key_exchange(error) {
            return self.refusals.count(KEY_EXCHANGE, address.ip());
        }
        let refused = refusals::of_handshake(address.ip(), error, refused, self.judges.clock.now());
        refused
            .into_iter()
            .for_each(|event| self.judges.audit.record(event));
    }

    async fn handshake<C: Carrier>(
        &self,
        stream: C,
        address: SocketAddr,
        connection: Connection,
        place: &mut Place<Source>,
    ) -> Result<PeerConnection<C>, Failed<C>> {
        stream.prepare()?;
        let hello = timeout(
            HELLO_TIMEOUT,
            LazyConfigAcceptor::new(Acceptor::default(), stream),
        );
        let hello = unless_lost(place, hello).await?;
        let hello = hello.map_err(io::Error::from)??;
        place.marker().set_idle(false);
        let turn = unless_lost(place, self.handshakes.turn(address.ip().into())).await?;
        let has_paid = match turn.map_err(|_| Failed::Bound(WORK))? {
            Turn::Paid => true,
            Turn::Reserved(reserved) => {
                *place = reserved;
                false
            }
        };
        let refused = RefusedPeer::default();
        let tls = (self.tls)(refused.clone()).map_err(io::Error::other)?;
        let accepted = hello.into_stream(Arc::new(tls)).into_fallible();
        let stream = unless_lost(place, accepted)
            .await?
            .map_err(|(error, stream)| Failed::Broken {
                error,
                refused,
                stream: Some(stream),
            })?;
        Ok(self.connected(stream, address, connection, has_paid).await?)
    }

    async fn connected<C: Carrier>(
        &self,
        stream: TlsStream<C>,
        address: SocketAddr,
        connection: Connection,
        has_paid: bool,
    ) -> io::Result<PeerConnection<C>> {
        let svid = peer_svid(stream.get_ref().1).map(Arc::new);
        let key_exchange = KeyExchange::of(stream.get_ref().1);
        // Strangers are whoever likes to call.
        if let Some(svid) = &svid {
            self.key_exchanges.count(key_exchange);
            connection.proved(svid.spiffe_id());
        }
        // Before it is judged: a revocation in between ends the connection.
        let leash = svid
            .as_deref()
            .map(|svid| self.judges.agents.leash(svid.spiffe_id()));
        let claim = match svid.as_deref() {
            Some(svid) => self.judges.claim(svid).await,
            None => Claim::Stranger,
        };
        let caller = claim.caller(svid.as_deref(), address.ip().into());
        let wait = match &caller {
            Caller::Agent(agent) => {
                let source = address.ip().into();
                self.handshakes.proved(agent, source, has_paid).err()
            }
            Caller::Guest(_) | Caller::Stranger(_) | Caller::Admin => None,
        };
        let Some(place) = self.connections.take(claim, &caller) else {
            self.refusals.count(PLACES, &caller);
            return Err(io::Error::other("too many open connections"));
        };
        if wait.is_some() {
            self.refusals.count(CONNECTS, &caller);
        }
        let life = match place {
            _ if wait.is_some() => Some(REFUSED_LIFE),
            open::Place::Stranger(_) => Some(STRANGERS_LIFE),
            open::Place::Agent(_) | open::Place::Guest(_) => None,
        };
        let peer = Peer {
            address,
            svid,
            opening: Opening::default(),
            line: Line::new(caller).waiting(wait),
            key_exchange,
            connection,
        };
        let ends = Ends { life, leash };
        Ok(guarded(stream, peer, place, ends, self.refusals.clone()))
    }
}

#[cfg(test)]
mod tests;
