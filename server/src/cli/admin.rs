//! The admin's side of `signet.admin.v1`: calls the server over its admin socket and renders what it says.

mod audit;
mod ca;
mod explain;
mod render;
mod revoke;
mod rules;

use std::{path::Path, time::SystemTime};

use hyper_util::rt::TokioIo;
use signet_certs::time::{parse_rfc3339, unix_millis};
use signet_proto::admin::{self as wire, admin_client};
use signet_runtime::{cli::Answer, error};
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

pub(super) use self::audit::{AuditQuestion, AuditTold};
pub use self::ca::CaOrder;
pub use self::revoke::{Revoke, Target};
pub use self::rules::TestRule;

/// A connection to the admin socket.
#[derive(Debug)]
pub struct AdminClient {
    inner: admin_client::AdminClient<Channel>,
}

/// Large listings of certificates fit.
const MAX_MESSAGE: usize = 64 << 20;

impl AdminClient {
    /// Connects to `socket`.
    ///
    /// # Errors
    /// Names the socket and what to check.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let path = socket.to_owned();
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .map_err(|error| {
                anyhow::anyhow!(
                    "cannot reach the server at {} ({}): is it running, and may you open its socket? Set --admin-socket or SIGNET_ADMIN_SOCKET",
                    socket.display(),
                    error::root(&error)
                )
            })?;
        Ok(Self {
            inner: admin_client::AdminClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    /// Whether a pod gets a usable certificate now; with `serving`, only whether what the server gives is true. If not, the
    /// answer's problem says what stands in the way.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn healthcheck(&mut self, serving: bool) -> anyhow::Result<Answer> {
        let response = self.inner.status(wire::StatusRequest {}).await.map_err(said)?;
        Ok(render::health(&response.into_inner()).answer(serving))
    }

    /// Status of the server.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn status(&mut self) -> anyhow::Result<Answer> {
        let response = self.inner.status(wire::StatusRequest {}).await.map_err(said)?;
        Ok(render::status(&response.into_inner()))
    }

    /// Issued certificates.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn svids(
        &mut self,
        id: Option<String>,
        pod: Option<String>,
        node: Option<String>,
        live: bool,
        limit: u32,
    ) -> anyhow::Result<Answer> {
        let request = wire::ListSvidsRequest {
            spiffe_id_prefix: id.unwrap_or_default(),
            pod: pod.unwrap_or_default(),
            node: node.unwrap_or_default(),
            live,
            limit,
        };
        Ok(render::svids(
            &self.inner.list_svids(request).await.map_err(said)?.into_inner(),
        ))
    }

    /// CRLs.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn crls(&mut self) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .show_crls(wire::ShowCrlsRequest {})
            .await
            .map_err(said)?;
        Ok(render::crls(&response.into_inner().crls))
    }

    /// Agents.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn agents(&mut self) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .list_agents(wire::ListAgentsRequest {})
            .await
            .map_err(said)?;
        Ok(render::agents(&response.into_inner().agents))
    }

    /// How the server's clocks stand.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn clock(&mut self) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .show_clock(wire::ShowClockRequest {})
            .await
            .map_err(said)?;
        Ok(render::clock(&response.into_inner()))
    }

    /// Says that it is `time` (RFC 3339), which is what the server's machine must say too, and without `force` the API servers.
    ///
    /// # Errors
    /// The text is no time, or the server refused.
    pub async fn confirm_clock(&mut self, time: &str, force: bool) -> anyhow::Result<Answer> {
        let parsed = self::time(time)?;
        let request = wire::ConfirmClockRequest {
            time_unix_ms: unix_millis(parsed),
            force,
        };
        let response = self.inner.confirm_clock(request).await.map_err(said)?;
        Ok(render::clock(&response.into_inner()))
    }
}

/// A time as people write it.
fn time(text: &str) -> anyhow::Result<SystemTime> {
    parse_rfc3339(text).map_err(|_| anyhow::anyhow!("`{text}` is no time; write it as 2026-11-26T09:00:00Z"))
}

/// What the server said, without gRPC's wrapping.
fn said(status: Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}
