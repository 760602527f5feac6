//! An API server that is away says nothing about anybody.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use signet_certs::csr::create_csr;
use signet_proto::agent::issue_result::Outcome;
use signet_tests::{
    agent_client::{RawAgent, new_csr, new_key},
    domain::{CLUSTER, NODE_AUDIENCE},
};

use crate::{
    api::{Cluster, wait_for},
    checks::{Check, World, checks},
    relay::{Line, Relay},
    world::TwoNodes,
};

pub(crate) const CHECKS: &[Check<Outage>] = checks![
    "while the API server is not reachable, no pod is denied and none gets an identity" => cut,
    "after that they get their identities" => mended,
    "while the API server accepts connections and says nothing, it is the same" => frozen,
    "after that, too" => mended,
];

/// A server that reaches the cluster through a relay on 127.0.0.1, for which the API server's certificate must be good.
pub(crate) struct Outage {
    relay: Relay,
    world: TwoNodes,
}

impl World for Outage {
    fn log(&self) -> String {
        self.world.log()
    }
}

impl Outage {
    /// Everything up.
    pub(crate) async fn set_up(cluster: Arc<Cluster>) -> Result<Self> {
        let relay = Relay::to(&cluster.url).await?;
        let url = relay.url();
        Ok(Self {
            world: TwoNodes::behind(cluster, Some(&url)).await?,
            relay,
        })
    }
}

async fn cut(outage: &mut Outage) -> Result<()> {
    away(outage, Line::Cut).await
}

async fn frozen(outage: &mut Outage) -> Result<()> {
    away(outage, Line::Frozen).await
}

async fn away(outage: &mut Outage, line: Line) -> Result<()> {
    let world = &mut outage.world;
    let pod = world.new_pod().await?;
    let token = world.token_of(&pod).await?;
    let node_token = world.cluster.pod_token(&world.agent_pod, NODE_AUDIENCE).await?;
    let before = world.server.audit()?.len();
    outage.relay.set(line);
    match world.agent.issue_one(new_csr()?, &token).await? {
        Outcome::Unavailable(unavailable) => {
            ensure!(unavailable.retry_after_ms > 0, "no hint when to come back");
            ensure!(
                unavailable.message.contains("API server"),
                "told: {}",
                unavailable.message
            );
        }
        other => bail!("not unavailable: {other:?}"),
    }
    let mut stranger = RawAgent::connect(world.server.agents(), None).await?;
    stranger.hello().await?;
    match stranger
        .attest(create_csr(&new_key()?)?, CLUSTER, &node_token)
        .await
    {
        Err(status) if status.code() == tonic::Code::Unavailable => {}
        other => bail!("not unavailable: {other:?}"),
    }
    let lines = world.server.audit()?;
    let verdict = lines
        .iter()
        .skip(before)
        .find(|line| line["event"] == "refused" || line["event"] == "issued");
    ensure!(verdict.is_none(), "a verdict during the outage: {verdict:?}");
    Ok(())
}

async fn mended(outage: &mut Outage) -> Result<()> {
    outage.relay.set(Line::Up);
    let world = &mut outage.world;
    let pod = world.new_pod().await?;
    let token = world.token_of(&pod).await?;
    wait_for("an identity after the outage", async || {
        match world.agent.issue_one(new_csr()?, &token).await? {
            Outcome::Issued(_) => Ok(Some(())),
            Outcome::Unavailable(_) => Ok(None),
            Outcome::Refusal(refusal) => bail!("refused: {}", refusal.message),
        }
    })
    .await?;
    let token = world.cluster.pod_token(&world.agent_pod, NODE_AUDIENCE).await?;
    let (agent, _) = RawAgent::attested(world.server.agents(), CLUSTER, &token).await?;
    world.agent = agent;
    Ok(())
}
