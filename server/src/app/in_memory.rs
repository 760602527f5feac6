//! The whole server with its store and its doors for agents and admins in memory, and a clock and an API server that
//! somebody else moves: for tests that live through days in a moment. Everything else is as in [`build`](super::build).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use signet_certs::id::TrustDomain;
use signet_runtime::{clock::Clock, config::load, drain::Drain, notify::Notify, signal::Reread};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_util::net::Listener;

use super::{
    Server,
    doors::{Doors, Entrances},
    rules,
};
use crate::{
    config::Config,
    kubernetes::{access::Access, api::Client},
    store::memory::MemoryStore,
};

/// Where admins come from.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Bytes under way in one direction of a connection.
const IN_FLIGHT: usize = 64 << 10;

/// What outlives the processes of a server: a store in memory. One process at a time may use it.
#[derive(Clone)]
pub struct KeptInMemory(Arc<MemoryStore>);

impl KeptInMemory {
    /// An empty store.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self(MemoryStore::new(trust_domain))
    }

    /// How many transactions the present process has made.
    #[must_use]
    pub fn transactions(&self) -> u32 {
        self.0.transactions.load(Ordering::Relaxed)
    }
}

/// The ways to a server in memory. Clones lead to the same one.
#[derive(Clone)]
pub struct Dial {
    agents: mpsc::UnboundedSender<(DuplexStream, SocketAddr)>,
    admin: mpsc::UnboundedSender<(DuplexStream, SocketAddr)>,
}

impl Dial {
    /// To the agents' door, from this address.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn agents(&self, from: SocketAddr) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(IN_FLIGHT);
        self.agents.send((far, from)).map_err(refused)?;
        Ok(near)
    }

    /// To the admins' door.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn admin(&self) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(IN_FLIGHT);
        self.admin.send((far, NOWHERE)).map_err(refused)?;
        Ok(near)
    }
}

fn refused<T>(_: mpsc::error::SendError<T>) -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

/// Doors that lead nowhere but to a [`Dial`].
struct Memory;

impl Entrances for Memory {
    type Agents = Incoming;
    type Admins = Incoming;
}

struct Incoming(mpsc::UnboundedReceiver<(DuplexStream, SocketAddr)>);

impl Listener for Incoming {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, SocketAddr)>> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(connection)) => Poll::Ready(Ok(connection)),
            // Nobody can call any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }
}

/// A server in memory that has not started yet.
pub struct InMemory {
    server: Server<Memory>,
    dial: Dial,
}

impl InMemory {
    /// With this configuration, but for the clusters: all of them are reached through `kube`. `clock` is the machine's.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn build(
        path: &Path,
        kept: &mut KeptInMemory,
        clock: Arc<dyn Clock>,
        kube: &Client,
    ) -> anyhow::Result<Self> {
        let loaded = load::<Config>(path);
        let (mut config, _) = loaded.map_err(|report| anyhow::anyhow!("{report}"))?;
        for cluster in &mut config.attestation.clusters {
            cluster.access = Access::Given(kube.clone().into());
        }
        let (agents, calling_agents) = mpsc::unbounded_channel();
        let (admin, calling_admins) = mpsc::unbounded_channel();
        let (agents_in, admins_in) = (Incoming(calling_agents), Incoming(calling_admins));
        let doors = Doors::open_others(
            &config.listen,
            config.attestation.clusters.len(),
            agents_in,
            admins_in,
        )
        .await?;
        let store = kept.0.reopened();
        kept.0 = store.clone();
        let rules = rules::source(path, &config);
        let server = Server::over(config, rules, doors, clock, |_| Ok(store)).await?;
        Ok(Self {
            server,
            dial: Dial { agents, admin },
        })
    }

    /// How to reach it.
    #[must_use]
    pub fn dial(&self) -> Dial {
        self.dial.clone()
    }

    /// Serves until `stop` is started, then ends in order.
    ///
    /// # Errors
    /// What kept it from starting, or that a part ended without which it is of no use.
    pub async fn run(self, stop: Drain) -> anyhow::Result<()> {
        self.server.run(stop, Reread::never(), Notify::nobody()).await
    }
}
