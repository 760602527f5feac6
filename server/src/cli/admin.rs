//! The admin's side of `signet.admin.v1`: calls the server over its admin socket and renders what it says.

mod audit;
mod ca;
mod explain;
mod render;

use std::{path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use signet_certs::time::{parse_rfc3339, unix_millis};
use signet_proto::admin::{self as wire, admin_client};
use signet_runtime::{cli::Answer, error};
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

pub use self::ca::CaOrder;

/// A revocation as asked for on the command line.
#[derive(Debug)]
pub struct Revoke {
    /// Serial number, hex.
    pub serial: Option<String>,
    /// SPIFFE ID.
    pub spiffe_id: Option<String>,
    /// Authority of the serial.
    pub authority: Option<String>,
    /// RFC 5280 name.
    pub reason: String,
    /// Free text.
    pub comment: String,
    /// Life of the denial.
    pub expires: Option<Duration>,
    /// Deny nothing.
    pub keep_issuing: bool,
    /// Allow a target of the control plane.
    pub force: bool,
}

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

    /// Revokes.
    ///
    /// # Errors
    /// What the server answered: then nothing was recorded.
    pub async fn revoke(&mut self, revoke: Revoke) -> anyhow::Result<Answer> {
        use wire::revoke_request::Target;
        let request = wire::RevokeRequest {
            target: revoke
                .serial
                .map(Target::Serial)
                .or_else(|| revoke.spiffe_id.map(Target::SpiffeId)),
            authority_id: revoke.authority.unwrap_or_default(),
            reason: revoke.reason,
            comment: revoke.comment,
            expires_after_seconds: revoke.expires.map_or(0, |expires| expires.as_secs()),
            keep_issuing: revoke.keep_issuing,
            force: revoke.force,
        };
        let response = self.inner.revoke(request).await.map_err(said)?.into_inner();
        let agents = self.agents_of(&response).await;
        Ok(render::revoked(&response, &agents))
    }

    /// The agents whose certificates were revoked. What does not come says less, and the revocation stands.
    async fn agents_of(&mut self, response: &wire::RevokeResponse) -> Vec<wire::AgentRecord> {
        let is_agent = |svid: &wire::RevokedSvid| svid.spiffe_id.contains("/signet/agent/");
        if !response.revoked.iter().any(is_agent) {
            return Vec::new();
        }
        let listed = self.inner.list_agents(wire::ListAgentsRequest {}).await;
        let agents = listed
            .map(|listed| listed.into_inner().agents)
            .unwrap_or_default();
        let named = |agent: &wire::AgentRecord| {
            response
                .revoked
                .iter()
                .any(|svid| svid.spiffe_id == agent.spiffe_id)
        };
        agents.into_iter().filter(named).collect()
    }

    /// Lifts a denial.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn allow(&mut self, denial_id: String) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .allow(wire::AllowRequest { denial_id })
            .await
            .map_err(said)?
            .into_inner();
        Ok(render::denials(response.denial.as_slice()))
    }

    /// Denials.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn denials(&mut self, include_lifted: bool) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .list_denials(wire::ListDenialsRequest { include_lifted })
            .await
            .map_err(said)?;
        Ok(render::denials(&response.into_inner().denials))
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

    /// Rules in force, and those that wait.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn rules(&mut self) -> anyhow::Result<Answer> {
        let response = self
            .inner
            .list_rules(wire::ListRulesRequest {})
            .await
            .map_err(said)?;
        Ok(render::rules(&response.into_inner()))
    }

    /// Puts in force the rules of this revision, which wait for it.
    ///
    /// # Errors
    /// What the server answered: then nothing has changed.
    pub async fn confirm_rules(&mut self, revision: String) -> anyhow::Result<Answer> {
        let request = wire::ConfirmRulesRequest { revision };
        let response = self.inner.confirm_rules(request).await.map_err(said)?;
        Ok(render::confirmed_rules(&response.into_inner()))
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
        let parsed = parse_rfc3339(time)
            .map_err(|_| anyhow::anyhow!("`{time}` is no time; write it as 2026-11-26T09:00:00Z"))?;
        let request = wire::ConfirmClockRequest {
            time_unix_ms: unix_millis(parsed),
            force,
        };
        let response = self.inner.confirm_clock(request).await.map_err(said)?;
        Ok(render::clock(&response.into_inner()))
    }
}

/// What the server said, without gRPC's wrapping.
fn said(status: Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}
