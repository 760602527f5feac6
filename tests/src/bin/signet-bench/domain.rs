//! A real server process with a fake Kubernetes API, simulated agents, and their pods with tokens that are already
//! reviewed.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use signet_proto::agent::issue_result::Outcome;
use signet_tests::{
    agent_client::{RawAgent, new_csr, pod_item},
    domain::{self, Plan},
    fake_kube::PodSpec,
    part::Launch,
};

/// Nodes, each with an agent.
const AGENTS: usize = 4;
/// Pods on each node.
const PODS_PER_AGENT: usize = 64;

/// An agent with its pods' tokens.
pub(crate) struct Agent {
    pub(crate) connection: RawAgent,
    pub(crate) tokens: Vec<String>,
}

/// Everything that is measured against; ends when dropped.
pub(crate) struct Domain {
    pub(crate) agents: Vec<Agent>,
    /// The server's process.
    pub(crate) server: u32,
    _domain: domain::Domain,
}

impl Domain {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let launch = Launch::Itself {
            level: "warn".to_owned(),
            to_file: false,
        };
        let mut domain = Plan::default()
            .launch(launch)
            // The peer is measured without its limit too.
            .server("/svid/max_live", json!(100_000_000))
            // Nor do its certificates name a list.
            .server("/publish/url", Value::Null)
            .server("/listen/bundle", Value::Null)
            .start()
            .await?;
        let mut agents = Vec::new();
        for node in 0..AGENTS {
            agents.push(agent(&domain, &format!("node-{node}")).await?);
        }
        let server = domain.server.process()?.pid();
        Ok(Self {
            agents,
            server: server.context("the server has ended")?,
            _domain: domain,
        })
    }
}

/// Attests the agent, and has every pod's token reviewed by issuing once for it.
async fn agent(domain: &domain::Domain, node: &str) -> anyhow::Result<Agent> {
    let (mut connection, _) = domain.raw_agent(node).await?;
    let tokens = (0..PODS_PER_AGENT)
        .map(|pod| {
            let name = format!("worker-{node}-{pod}");
            let spec = PodSpec::new("bench", &name).service_account("worker").node(node);
            domain.kube.add_pod(&spec)?;
            domain.pod_token("bench", &name)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let items = tokens
        .iter()
        .map(|token| Ok(pod_item(new_csr()?, token)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for result in connection.issue(items).await? {
        ensure!(
            matches!(result.outcome, Some(Outcome::Issued(_))),
            "a certificate was not issued before the measurement: {result:?}"
        );
    }
    Ok(Agent { connection, tokens })
}
