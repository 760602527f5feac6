//! The server's addresses.

use std::net::SocketAddr;

use anyhow::Context;
use signet_runtime::uds;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;

/// Every address, taken before anything is started, so that a port in use costs nothing but the message.
pub(super) struct Doors {
    pub(super) agents: TcpListener,
    pub(super) admin: UnixListener,
    pub(super) publish: TcpListener,
    pub(super) bundle: Option<TcpListener>,
    pub(super) telemetry: TcpListener,
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

impl Doors {
    pub(super) async fn open(listen: &Listen) -> anyhow::Result<Self> {
        Ok(Self {
            agents: bind("listen.agents", listen.agents).await?,
            admin: uds::bind(&listen.admin_socket, 0o660, None, None).context("listen.admin_socket")?,
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
