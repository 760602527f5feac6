//! The server's addresses.

use std::net::SocketAddr;

use anyhow::Context;
use signet_runtime::{files::make_parent, uds};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::net::Listener;

use super::rooms::Rooms;
use crate::{
    api::{admin_listener::AdminCarrier, listener::Carrier},
    config::Listen,
};

/// How agents and admins come in: over the machine's network or, in tests, through memory.
pub(crate) trait Entrances: 'static {
    /// Connections of agents.
    type Agents: Listener<Io: Carrier, Addr = SocketAddr> + Send + Unpin + 'static;
    /// Connections of admins.
    type Admins: Listener<Io: AdminCarrier, Addr: Send> + Send + Unpin + 'static;
}

/// TCP for agents, a Unix socket for admins.
pub(crate) struct Network;

impl Entrances for Network {
    type Agents = TcpListener;
    type Admins = UnixListener;
}

/// Every address, taken before anything is started, so that a port in use costs nothing but the message.
pub(super) struct Doors<E: Entrances> {
    pub(super) agents: E::Agents,
    pub(super) admin: E::Admins,
    pub(super) publish: TcpListener,
    pub(super) bundle: Option<TcpListener>,
    pub(super) telemetry: TcpListener,
    /// How many connections each has, and calls to API servers.
    pub(super) rooms: Rooms,
}

/// Where the server can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// gRPC for agents.
    pub agents: SocketAddr,
    /// CRLs over HTTP.
    pub publish: SocketAddr,
    /// The bundle over HTTPS.
    pub bundle: Option<SocketAddr>,
    /// Health and metrics.
    pub telemetry: SocketAddr,
}

impl Doors<Network> {
    /// Beside calls to the API servers of so many clusters.
    pub(super) async fn open(listen: &Listen, clusters: usize) -> anyhow::Result<Self> {
        let agents = bind("listen.agents", listen.agents).await?;
        make_parent(&listen.admin_socket).context("listen.admin_socket")?;
        let admin = uds::bind(&listen.admin_socket, 0o660, None, None).context("listen.admin_socket")?;
        Self::open_others(listen, clusters, agents, admin).await
    }
}

impl<E: Entrances> Doors<E> {
    /// The other doors beside these.
    pub(super) async fn open_others(
        listen: &Listen,
        clusters: usize,
        agents: E::Agents,
        admin: E::Admins,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            rooms: Rooms::of_process(clusters)?,
            agents,
            admin,
            publish: bind("listen.publish", listen.publish).await?,
            bundle: match listen.bundle {
                Some(address) => Some(bind("listen.bundle", address).await?),
                None => None,
            },
            telemetry: bind("listen.telemetry", listen.telemetry).await?,
        })
    }

    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            agents: self.agents.local_addr()?,
            publish: self.publish.local_addr()?,
            bundle: self.bundle.as_ref().map(TcpListener::local_addr).transpose()?,
            telemetry: self.telemetry.local_addr()?,
        })
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{key}: cannot listen on {address}; choose another address or stop what holds it")
    })
}
