//! `signet.explain.v1` on the agent's Unix sockets: what a workload may know about itself that only the agent knows. Of nobody else,
//! and nothing secret: who it is taken for, until when its token proves it, how the agent stands with its server, and what was
//! answered. Who calls is known from the connection; the request is empty.

mod convert;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::id::TrustDomain;
use signet_proto::explain as wire;
use signet_proto::explain::explain_server::{Explain, ExplainServer};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::manager::Manager;
use crate::node::NodeState;
use crate::server_client::sync::Connection as Standing;
use crate::server_client::trust::TrustState;
use crate::sockets::{Call, Connection};
use crate::time::AgentTime;

/// Its call, which needs the security header, as those of the Workload API do.
pub(crate) const CALLS: [(&str, Call); 1] = [("/signet.explain.v1.Explain/Why", Call::Guarded)];

/// Longest request message; the only one is empty.
const MAX_REQUEST: usize = 1024;

/// How long a caller may take to be attested: its executable is read.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service behind one or many sockets.
pub(crate) struct Why {
    /// Whose agent.
    pub trust_domain: TrustDomain,
    /// What time it is, and by whom.
    pub time: Arc<AgentTime>,
    /// The agent's own certificate.
    pub node: watch::Receiver<NodeState>,
    /// How it stands with its server.
    pub connection: watch::Receiver<Standing>,
    /// What is believed.
    pub trust: watch::Receiver<Option<Arc<TrustState>>>,
    /// Since when the cluster's API server cannot be reached.
    pub outage: watch::Receiver<Option<SystemTime>>,
    /// Who knows the workloads.
    pub manager: Manager,
}

impl Why {
    /// Joins what a socket offers, with its bounds.
    pub(crate) fn join(self, routes: Routes) -> Routes {
        let service = ExplainServer::new(self).max_decoding_message_size(MAX_REQUEST);
        routes.add_service(service).prepare()
    }

    fn server(&self) -> wire::Server {
        let node = self.node.borrow().clone();
        let connection = self.connection.borrow().clone();
        convert::server(&node, connection, *self.outage.borrow())
    }
}

#[tonic::async_trait]
impl Explain for Why {
    async fn why(&self, request: Request<wire::WhyRequest>) -> Result<Response<wire::WhyResponse>, Status> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let connection = connection
            .ok_or_else(|| Status::unavailable("internal fault of the agent: the connection is not known"))?;
        // Attesting costs as much as it does for an identity.
        if !connection.try_attach() {
            return Err(Status::unavailable(
                "too many calls from this workload in a short time; retry later",
            ));
        }
        let account = timeout(PATIENCE, self.manager.account(connection.caller())).await;
        let account = account.map_err(|_| Status::unavailable("the caller could not be attested in time"))?;
        // A program that has taken the caller's place is told nothing of what it was.
        connection.unchanged().map_err(Status::unavailable)?;
        let trust = self.trust.borrow().clone();
        Ok(Response::new(wire::WhyResponse {
            server: Some(self.server()),
            ..convert::answer(&self.trust_domain, &self.time, account, trust.as_deref())
        }))
    }
}
