//! The agents' door: TLS 1.3 with our own accept loop, so that one slow or hostile client costs one bounded task.

mod connection;
mod places;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;
use signet_certs::{id::SpiffeId, tls::peer_svid, verify::VerifiedSvid};
use signet_runtime::{accept, drain::Drain};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::net::Listener;

pub(crate) use self::connection::Carrier;
use self::{
    connection::{PeerConnection, Place},
    places::AgentPlaces,
};
use super::{opening::Opening, refusals};
use crate::{
    admission::Admission,
    agents::{Agents, STREAM_AFTER_END},
    audit::AuditLog,
    clock::TrustedClock,
    store::{Generation, Standing},
};

/// Handshakes under way at once, over all addresses.
const HANDSHAKES: usize = 256;
/// Handshakes under way at once from one address: one address cannot hold them all.
const HANDSHAKES_PER_ADDRESS: usize = 32;
/// Open connections of agents whose certificate is worth a trust stream and no more, in all and of one of them: the stream,
/// and one to attest by.
const GUESTS: usize = 2_048;
const CONNECTIONS_PER_GUEST: usize = 2;
/// Open connections of strangers, in all and from one address. They are counted apart from those of agents, so that
/// nobody without a certificate can lock the agents out.
const STRANGERS: usize = 2_048;
const STRANGERS_PER_ADDRESS: usize = 64;
/// Longest life of a stranger's connection, and of one by a certificate that is worth nothing: time to attest a node, and to
/// connect again as its agent.
const STRANGERS_LIFE: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection: established once in the handshake, but for what Hello adds.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Source address.
    pub address: SocketAddr,
    /// The verified client certificate, if one was presented. Each call checks it again.
    pub svid: Option<Arc<VerifiedSvid>>,
    /// What was agreed on with it.
    pub opening: Opening,
}

/// Accepts until `drain` is signalled; finished handshakes come out of the receiver.
pub(crate) fn accept<L>(
    listener: L,
    tls: Arc<ServerConfig>,
    judges: Judges,
    drain: &Drain,
) -> mpsc::Receiver<io::Result<PeerConnection<L::Io>>>
where
    L: Listener<Io: Carrier, Addr = SocketAddr> + Send + Unpin + 'static,
{
    let (finished, receiver) = mpsc::channel(64);
    let loop_drain = drain.clone();
    drain.spawn(async move {
        let door = Arc::new(Door {
            tls: TlsAcceptor::from(tls),
            handshakes: Admission::new(HANDSHAKES, HANDSHAKES_PER_ADDRESS),
            places: Places::new(),
            judges,
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

struct Door {
    tls: TlsAcceptor,
    judges: Judges,
    handshakes: Arc<Admission<IpAddr>>,
    places: Places,
}

impl Door {
    /// Starts the handshake in its own task, or closes the connection when a bound is reached.
    fn admit<C: Carrier>(
        self: &Arc<Self>,
        stream: C,
        address: SocketAddr,
        finished: &mpsc::Sender<io::Result<PeerConnection<C>>>,
    ) {
        let Some(handshake) = self.handshakes.admit(&address.ip(), 1) else {
            tracing::debug!(%address, "too many handshakes, one connection was closed");
            return;
        };
        let door = self.clone();
        let finished = finished.clone();
        tokio::spawn(async move {
            let result = timeout(HANDSHAKE_TIMEOUT, door.handshake(stream, address)).await;
            drop(handshake);
            match result {
                // A failed send means the server is draining: the connection closes by being dropped.
                Ok(Ok(connection)) => drop(finished.send(Ok(connection)).await),
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "handshake failed");
                    let refused = refusals::of_handshake(address.ip(), &error, door.judges.clock.now());
                    refused
                        .into_iter()
                        .for_each(|event| door.judges.audit.record(event));
                }
                Err(_) => tracing::debug!(%address, "handshake timed out"),
            }
        });
    }

    async fn handshake<C: Carrier>(&self, stream: C, address: SocketAddr) -> io::Result<PeerConnection<C>> {
        stream.prepare()?;
        let stream = self.tls.accept(stream).await?;
        let svid = peer_svid(stream.get_ref().1).map(Arc::new);
        let claim = match svid.as_deref() {
            Some(svid) => self.judges.claim(svid).await,
            None => Claim::Stranger,
        };
        let id = svid.as_deref().map(VerifiedSvid::spiffe_id);
        let place = self
            .places
            .take(claim, id, address.ip())
            .ok_or_else(|| io::Error::other("too many open connections"))?;
        let is_stranger = matches!(place, Place::Stranger { .. });
        Ok(PeerConnection {
            stream,
            end: is_stranger.then(|| Box::pin(sleep(STRANGERS_LIFE))),
            peer: Peer {
                address,
                svid,
                opening: Opening::default(),
            },
            place,
        })
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

impl Judges {
    /// The first use of a newer certificate is durable when this returns.
    async fn claim(&self, svid: &VerifiedSvid) -> Claim {
        let time = self.clock.time();
        if time.is_over_for(svid.not_after(), STREAM_AFTER_END) {
            return Claim::Stranger;
        }
        let Ok(presented) = self.agents.present(svid, time.now).await else {
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

/// Room for open connections.
struct Places {
    agents: Arc<AgentPlaces>,
    guests: Arc<Admission<SpiffeId>>,
    strangers: Arc<Admission<IpAddr>>,
}

impl Places {
    fn new() -> Self {
        Self {
            agents: Arc::default(),
            guests: Admission::new(GUESTS, CONNECTIONS_PER_GUEST),
            strangers: Admission::new(STRANGERS, STRANGERS_PER_ADDRESS),
        }
    }

    fn take(&self, claim: Claim, agent: Option<&SpiffeId>, address: IpAddr) -> Option<Place> {
        Some(match (claim, agent) {
            (Claim::Agent(generation), Some(agent)) => Place::Agent(self.agents.take(agent, generation)?),
            (Claim::Guest, Some(agent)) => Place::Guest {
                _counted: self.guests.admit(agent, 1)?,
            },
            (Claim::Stranger, _) | (_, None) => Place::Stranger {
                _counted: self.strangers.admit(&address, 1)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{places::CONNECTIONS_PER_AGENT, *};

    #[test]
    fn strangers_take_no_agents_place_and_one_address_or_agent_not_everyones() {
        let places = Places::new();
        let agent =
            |n: usize| SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap();
        let address = |n: usize| IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]);
        let stranger = |n| places.take(Claim::Stranger, None, address(n));
        let mut open: Vec<Place> = std::iter::from_fn(|| stranger(0)).collect();
        assert_eq!(open.len(), STRANGERS_PER_ADDRESS);
        let others =
            (1..STRANGERS).flat_map(|n| std::iter::from_fn(move || Some(n)).take(STRANGERS_PER_ADDRESS));
        open.extend(others.map_while(stranger));
        assert_eq!(open.len(), STRANGERS, "every place of strangers is taken");
        let by = |claim, n: usize| places.take(claim, Some(&agent(n)), address(0));
        let guests: Vec<Place> = std::iter::from_fn(|| by(Claim::Guest, 0)).collect();
        assert_eq!(guests.len(), CONNECTIONS_PER_GUEST);
        let first = Claim::Agent(Generation { epoch: 1, number: 1 });
        let of_one: Vec<Place> = std::iter::from_fn(|| by(first, 0)).collect();
        assert_eq!(of_one.len(), CONNECTIONS_PER_AGENT, "guests take none of them");
        assert!(by(first, 1).is_some());
        assert!(
            by(Claim::Stranger, 1).is_none(),
            "what counts no more is a stranger's"
        );
        drop(open);
        assert!(stranger(0).is_some());
    }
}
