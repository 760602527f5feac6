//! `signet.local.v1`: what a person at the node asks the running agent, over its admin socket. The socket's mode, 0600,
//! says who may call: the agent's own user and root.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::id::TrustDomain;
use signet_certs::time::unix_millis;
use signet_certs::tls::KeyExchange;
use signet_proto::local as wire;
use signet_proto::local::local_server::{Local, LocalServer};
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::ready::{Level, Readiness, Standing};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::cache::SlotStatus;
use crate::manager::{Manager, WorkloadStatus};
use crate::node::NodeState;
use crate::server_client::anchors::ControlAnchors;
use crate::server_client::sync::Connection;
use crate::server_client::trust::TrustState;
use crate::sockets::incoming::{call_span, incoming};
use crate::time::AgentTime;

/// Longest request; the only one is empty.
const MAX_REQUEST: usize = 4096;

/// What the admin socket shows.
#[derive(Clone)]
pub(crate) struct Admin {
    /// Whose agent.
    pub trust_domain: TrustDomain,
    /// What time it is, and by whom.
    pub time: Arc<AgentTime>,
    /// What keeps the agent from being ready.
    pub readiness: Readiness,
    /// The agent's own certificate.
    pub node: watch::Receiver<NodeState>,
    /// How it stands with its server.
    pub connection: watch::Receiver<Connection>,
    /// Which key exchange its newest connection has had.
    pub key_exchange: watch::Receiver<Option<KeyExchange>>,
    /// What is believed.
    pub trust: watch::Receiver<Option<Arc<TrustState>>>,
    /// Since when the cluster's API server cannot be reached.
    pub outage: watch::Receiver<Option<SystemTime>>,
    /// Whom it does not trust.
    pub anchors: Arc<ControlAnchors>,
    /// The workloads.
    pub manager: Manager,
    /// Why keys do not outlive a restart; empty when they do.
    pub not_kept: String,
    /// What is wrong with the folder of the pods' volumes; empty when nothing is.
    pub volumes: watch::Receiver<String>,
}

impl Admin {
    /// Serves until draining starts.
    pub(crate) async fn serve(self, listener: UnixListener, drain: Drain) {
        let service = LocalServer::new(self).max_decoding_message_size(MAX_REQUEST);
        let served = tonic::transport::Server::builder()
            .trace_fn(call_span)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming(listener, "admin socket"), async move {
                drain.signalled().await;
            });
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin socket failed");
        }
    }

    async fn answer(&self) -> wire::StatusResponse {
        let node = self.node.borrow().clone();
        let connection = self.connection.borrow().clone();
        let identity = node.identity.as_ref();
        let sequence_number = self
            .trust
            .borrow()
            .as_ref()
            .map_or(0, |trust| trust.bundle.sequence_number);
        let key_exchange = self.key_exchange.borrow().filter(|_| connection.connected);
        let workloads = self.manager.status().await.into_iter().map(workload).collect();
        // Without a certificate the reason is there; later the trust stream is what matters.
        let problem = if node.problem.is_empty() {
            connection.problem
        } else {
            node.problem
        };
        wire::StatusResponse {
            trust_domain: self.trust_domain.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_id: identity
                .map(|identity| identity.spiffe_id.as_str().to_owned())
                .unwrap_or_default(),
            agent_expires_unix_ms: identity.map_or(0, |identity| unix_millis(identity.not_after)),
            ready: self.readiness.is_ready(Level::Serve),
            ready_issue: self.readiness.is_ready(Level::Issue),
            not_ready: self
                .readiness
                .standing(Level::Issue)
                .into_iter()
                .map(not_ready)
                .collect(),
            server_connected: connection.connected,
            key_exchange: key_exchange.map_or("", KeyExchange::name).to_owned(),
            server_problem: problem,
            sequence_number,
            workloads,
            now_unix_ms: unix_millis(self.time.now()),
            not_kept: self.not_kept.clone(),
            clock_problem: self.time.problem(),
            volumes_problem: self.volumes.borrow().clone(),
            distrusted: self.anchors.distrusted().into_iter().map(distrusted).collect(),
            anchors_problem: self.anchors.file_problem(),
            cluster_unreachable_since_unix_ms: self.outage.borrow().map_or(0, unix_millis),
        }
    }
}

#[tonic::async_trait]
impl Local for Admin {
    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        Ok(Response::new(self.answer().await))
    }
}

fn not_ready(standing: Standing) -> wire::NotReady {
    wire::NotReady {
        reason: standing.reason.name.to_owned(),
        detail: standing.detail,
        serves: standing.reason.level == Level::Issue,
    }
}

fn distrusted((id, by): (AuthorityId, &'static str)) -> wire::Distrusted {
    wire::Distrusted {
        authority_id: id.to_string(),
        by: by.to_owned(),
    }
}

fn workload(status: WorkloadStatus) -> wire::Workload {
    wire::Workload {
        kind: status.kind.to_owned(),
        name: status.name,
        pod_uid: status.pod_uid,
        socket: status.socket,
        streams: u32::try_from(status.streams).unwrap_or(u32::MAX),
        svids: status.slots.into_iter().filter_map(svid).collect(),
        problem: status.problem,
    }
}

fn svid(slot: SlotStatus) -> Option<wire::Svid> {
    let planned = slot.planned();
    let leaf = slot.leaf?;
    Some(wire::Svid {
        spiffe_id: leaf.svid.spiffe_id,
        serial: leaf.serial.to_string(),
        not_after_unix_ms: unix_millis(leaf.svid.not_after),
        renew_unix_ms: planned.map_or(0, unix_millis),
    })
}
