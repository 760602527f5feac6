//! A server, two hand-made nodes, and an agent of the first whose words are the test's.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use signet_certs::{csr::create_csr, verify::inspect_leaf};
use signet_proto::agent::{issue_result::Outcome, refusal::Reason};
use signet_tests::{
    agent_client::{RawAgent, new_csr, new_key},
    domain::{CLUSTER, Change, NODE_AUDIENCE, POD_AUDIENCE, TRUST_DOMAIN},
};

use crate::{
    api::{Cluster, Node, Pod},
    checks::World,
    server::Server,
};

/// What the token checks need.
pub(crate) struct TwoNodes {
    /// The server.
    pub(crate) server: Server,
    /// The API server.
    pub(crate) cluster: Arc<Cluster>,
    /// The node whose agent calls.
    pub(crate) node: Node,
    /// Another one.
    pub(crate) other_node: Node,
    /// The pod of the agent on `node`.
    pub(crate) agent_pod: Pod,
    /// That agent, attested.
    pub(crate) agent: RawAgent,
    /// A workload on `node`.
    pub(crate) web: Pod,
    pods: usize,
}

impl World for TwoNodes {
    fn log(&self) -> String {
        self.server.log()
    }
}

impl TwoNodes {
    /// Everything made and the agent attested.
    pub(crate) async fn set_up(cluster: Arc<Cluster>) -> Result<Self> {
        Self::behind(cluster, None).await
    }

    /// The same with a relay between server and API server.
    pub(crate) async fn behind(cluster: Arc<Cluster>, relay: Option<&str>) -> Result<Self> {
        let server = Server::start(&cluster, relay, "1h").await?;
        Self::of(server, cluster).await
    }

    /// The same with other keys of the server's configuration.
    pub(crate) async fn with(cluster: Arc<Cluster>, changes: &[Change]) -> Result<Self> {
        let server = Server::start_with(&cluster, changes).await?;
        Self::of(server, cluster).await
    }

    async fn of(server: Server, cluster: Arc<Cluster>) -> Result<Self> {
        let (node, other_node) = (
            cluster.create_node("one").await?,
            cluster.create_node("two").await?,
        );
        cluster.create_account("web").await?;
        let agent_pod = cluster.create_pod("agent", "signet-agent", &node.name).await?;
        let web = cluster.create_pod("web", "web", &node.name).await?;
        let token = cluster.pod_token(&agent_pod, NODE_AUDIENCE).await?;
        let attested = RawAgent::attested(server.agents(), CLUSTER, &token).await;
        let (agent, certificate) = attested.with_context(|| server.log())?;
        let own = inspect_leaf(certificate.chain.first().context("an empty chain")?)?;
        let expected = format!("spiffe://{TRUST_DOMAIN}/signet/agent/{CLUSTER}/{}", node.uid);
        ensure!(
            own.spiffe_id.as_str() == expected,
            "the agent is {}",
            own.spiffe_id
        );
        Ok(Self {
            server,
            cluster,
            node,
            other_node,
            agent_pod,
            agent,
            web,
            pods: 0,
        })
    }

    /// A new workload pod on the agent's node.
    pub(crate) async fn new_pod(&mut self) -> Result<Pod> {
        self.pods += 1;
        let name = format!("web-{}", self.pods);
        self.cluster.create_pod(&name, "web", &self.node.name).await
    }

    /// A pod's token as it should be.
    pub(crate) async fn token_of(&self, pod: &Pod) -> Result<String> {
        self.cluster.pod_token(pod, POD_AUDIENCE).await
    }

    /// Expects exactly the identity of the pod's service account on this token.
    pub(crate) async fn issued(&mut self, token: &str) -> Result<()> {
        let issued = self.agent.issue_good(token).await?;
        let expected = format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/web", self.cluster.namespace);
        ensure!(issued.spiffe_id == expected, "issued {}", issued.spiffe_id);
        let leaf = inspect_leaf(issued.certificate_chain.first().context("an empty chain")?)?;
        ensure!(
            leaf.spiffe_id.as_str() == expected,
            "the leaf names {}",
            leaf.spiffe_id
        );
        Ok(())
    }

    /// Expects a verdict with this reason, on the wire and in the audit log.
    pub(crate) async fn refused(&mut self, token: &str, reason: &str) -> Result<()> {
        let after = self.server.audit()?.len();
        match self.agent.issue_one(new_csr()?, token).await? {
            Outcome::Refusal(refusal) => {
                let kind = refusal.reason();
                ensure!(
                    kind == Reason::NotAttested,
                    "refused as {kind:?}: {}",
                    refusal.message
                );
                ensure!(
                    refusal.message.contains(reason),
                    "refused with: {}",
                    refusal.message
                );
            }
            other => bail!("not refused: {other:?}"),
        }
        let line = self.server.audited_refusal(after, "issue", reason).await?;
        let caller = line["caller"].as_str().unwrap_or_default();
        ensure!(caller.ends_with(&self.node.uid), "the audit log blames {caller}");
        Ok(())
    }

    /// Expects that this token makes nobody an agent, with this reason on the wire and in the audit log.
    pub(crate) async fn node_refused(&self, cluster: &str, token: &str, reason: &str) -> Result<()> {
        let after = self.server.audit()?.len();
        let mut stranger = RawAgent::connect(self.server.agents(), None).await?;
        stranger.hello().await?;
        match stranger.attest(create_csr(&new_key()?)?, cluster, token).await {
            Ok(attested) => bail!("attested as {}", attested.spiffe_id),
            Err(status) => {
                let code = status.code();
                ensure!(
                    code == tonic::Code::PermissionDenied,
                    "{code:?}: {}",
                    status.message()
                );
                ensure!(
                    status.message().contains(reason),
                    "refused with: {}",
                    status.message()
                );
            }
        }
        self.server.audited_refusal(after, "attest_node", reason).await?;
        Ok(())
    }
}
