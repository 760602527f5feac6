//! The agents' door: TLS 1.3 with our own accept loop, so that one slow or hostile client costs one bounded task.

mod connection;
mod handshakes;
mod places;
mod rows;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ServerConfig, server::Acceptor};
use signet_certs::{
    tls::{RefusedPeer, peer_svid},
    verify::VerifiedSvid,
};
use signet_runtime::{accept, drain::Drain, places::Place, refusals::Refusals, source::Source};
use tokio::{sync::mpsc, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::net::Listener;

#[cfg(test)]
pub(super) use self::handshakes::UNPROVEN;
pub(crate) use self::{connection::Carrier, rows::limits};
use self::{
    connection::{self as open, PeerConnection, close_heard, guarded},
    handshakes::{Handshakes, Turn},
    places::Connections,
};
use super::{
    allowance::{CONNECTS, Caller, Line},
    opening::Opening,
    refusals,
};
use crate::{
    agents::{Agents, STREAM_AFTER_END},
    audit::AuditLog,
    clock::TrustedClock,
    store::{Generation, Standing},
};

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
pub(crate) const REASONS: &[&str] = &[WORK, PLACES, DISPLACED, SILENT];
/// Too many of their source wait for the work of a handshake.
const WORK: &str = "handshake_work";
/// There was no place.
const PLACES: &str = "places";
/// Their place went to another, during the handshake or after it.
const DISPLACED: &str = "displaced";
/// They did not say anything in time.
const SILENT: &str = "silent";

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
}

/// TLS for one connection, which tells why its peer is refused.
pub(crate) type Tls = dyn Fn(RefusedPeer) -> Result<ServerConfig, rustls::Error> + Send + Sync;

/// Accepts until `drain` is signalled; finished handshakes come out of the receiver.
pub(crate) fn accept<L>(
    listener: L,
    tls: Arc<Tls>,
    judges: Judges,
    rooms: Rooms,
    refusals: Refusals,
    drain: &Drain,
) -> mpsc::Receiver<io::Result<PeerConnection<L::Io>>>
where
    L: Listener<Io: Carrier, Addr = SocketAddr> + Send + Unpin + 'static,
{
    let (finished, receiver) = mpsc::channel(64);
    let loop_drain = drain.clone();
    drain.spawn(async move {
        let door = Arc::new(Door {
            tls,
            handshakes: Arc::new(Handshakes::new(rooms.handshakes)),
            connections: Connections::new(rooms),
            judges,
            refusals,
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

/// Who says what a certificate is worth.
pub(crate) struct Judges {
    /// The registry of agents.
    pub agents: Arc<Agents>,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// Where refused certificates are told.
    pub audit: AuditLog,
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
        tokio::spawn(async move {
            let shaken = timeout(HANDSHAKE_TIMEOUT, door.handshake(stream, address, &mut place)).await;
            match shaken {
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
        });
    }

    fn failed(&self, address: SocketAddr, error: &io::Error, refused: &RefusedPeer) {
        tracing::debug!(%address, error = refusals::words(error, refused), "handshake failed");
        if error.kind() == io::ErrorKind::TimedOut {
            return self.refusals.count(SILENT, address.ip());
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
        Ok(self.connected(stream, address, has_paid).await?)
    }

    async fn connected<C: Carrier>(
        &self,
        stream: TlsStream<C>,
        address: SocketAddr,
        has_paid: bool,
    ) -> io::Result<PeerConnection<C>> {
        let svid = peer_svid(stream.get_ref().1).map(Arc::new);
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
        };
        Ok(guarded(stream, peer, place, life, self.refusals.clone()))
    }
}

/// What a connection may claim by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// An agent's place.
    Agent(Generation),
    /// A place for its trust stream.
    Guest,
    /// Nothing.
    Stranger,
}

impl Claim {
    fn caller(self, svid: Option<&VerifiedSvid>, source: Source) -> Caller {
        match (self, svid) {
            (Self::Agent(_), Some(svid)) => Caller::Agent(svid.spiffe_id().clone()),
            (Self::Guest, Some(svid)) => Caller::Guest(svid.spiffe_id().clone()),
            (Self::Stranger, _) | (_, None) => Caller::Stranger(source),
        }
    }
}

impl Judges {
    /// The first use of a newer certificate is durable when this returns.
    async fn claim(&self, svid: &VerifiedSvid) -> Claim {
        let time = self.clock.time();
        if time.is_over_for(svid.not_after(), STREAM_AFTER_END) {
            return Claim::Stranger;
        }
        let Ok(presented) = self.agents.present(svid, time.now, time.earliest).await else {
            // What is public stays open while the store cannot be asked.
            return self.agents.in_use(svid).map_or(Claim::Guest, Claim::Agent);
        };
        match presented.standing {
            Standing::Counts if svid.not_after() >= time.now => Claim::Agent(presented.generation),
            Standing::Counts | Standing::Unknown => Claim::Guest,
            Standing::Superseded | Standing::Revoked | Standing::Denied(_) => Claim::Stranger,
        }
    }
}

#[cfg(test)]
mod tests;
