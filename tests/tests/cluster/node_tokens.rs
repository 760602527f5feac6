//! What a token must be for its bearer to become a node's agent.

use anyhow::{Result, ensure};
use serde_json::json;
use signet_certs::{csr::create_csr, verify::inspect_leaf};
use signet_tests::{
    agent_client::{RawAgent, new_key},
    domain::{CLUSTER, NODE_AUDIENCE, POD_AUDIENCE, TRUST_DOMAIN},
};

use crate::{
    api::wait_for,
    checks::{Check, checks},
    world::TwoNodes,
};

pub(crate) const CHECKS: &[Check<TwoNodes>] = checks![
    "an agent's pod becomes the agent of its node" => good,
    "a service account that is not listed makes no agent" => not_listed,
    "a pod's token is no agent's token" => for_pods,
    "a token without a pod makes no agent" => without_a_pod,
    "a token for another cluster's name makes no agent" => for_another_cluster,
    "a token with a broken signature makes no agent" => tampered,
    "one token makes no second agent" => used_twice,
    "a deleted agent's pod makes no agent" => of_a_deleted_pod,
    "an ended agent's pod makes no agent" => of_a_completed_pod,
    "a node made anew under its name is another node" => of_a_replaced_node,
];

async fn good(world: &mut TwoNodes) -> Result<()> {
    let node = world.other_node.clone();
    let pod = world
        .cluster
        .create_pod("agent-two", "signet-agent", &node.name)
        .await?;
    let token = world.cluster.pod_token(&pod, NODE_AUDIENCE).await?;
    let (_, certificate) = RawAgent::attested(world.server.agents(), CLUSTER, &token).await?;
    let own = inspect_leaf(&certificate.chain[0])?;
    let expected = format!("spiffe://{TRUST_DOMAIN}/signet/agent/{CLUSTER}/{}", node.uid);
    ensure!(
        own.spiffe_id.as_str() == expected,
        "the agent is {}",
        own.spiffe_id
    );
    let attested = wait_for("an audit line about the agent", async || {
        let lines = world.server.audit()?;
        Ok(lines
            .into_iter()
            .find(|line| line["event"] == "node_attested" && line["node_uid"] == node.uid))
    });
    let line = attested.await?;
    ensure!(
        line["pod"] == format!("{}/agent-two", world.cluster.namespace) && line["node_name"] == node.name,
        "the audit log says {line}"
    );
    Ok(())
}

async fn not_listed(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.pod_token(&world.web, NODE_AUDIENCE).await?;
    world
        .node_refused(CLUSTER, &token, "may not act as a node agent")
        .await
}

async fn for_pods(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.pod_token(&world.agent_pod, POD_AUDIENCE).await?;
    world.node_refused(CLUSTER, &token, "not for the audience").await
}

async fn without_a_pod(world: &mut TwoNodes) -> Result<()> {
    let token = world
        .cluster
        .token("signet-agent", &[NODE_AUDIENCE], 600, None)
        .await?;
    world.node_refused(CLUSTER, &token, "not bound to a pod").await
}

async fn for_another_cluster(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.pod_token(&world.agent_pod, NODE_AUDIENCE).await?;
    world
        .node_refused("elsewhere", &token, "no cluster `elsewhere`")
        .await
}

async fn tampered(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.pod_token(&world.agent_pod, NODE_AUDIENCE).await?;
    let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
    let swapped: String = signature.chars().rev().collect();
    world
        .node_refused(CLUSTER, &format!("{signed}.{swapped}"), "the token is refused")
        .await
}

async fn used_twice(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.pod_token(&world.agent_pod, NODE_AUDIENCE).await?;
    let (agent, _) = RawAgent::attested(world.server.agents(), CLUSTER, &token).await?;
    world.agent = agent;
    world.node_refused(CLUSTER, &token, "token").await
}

async fn of_a_deleted_pod(world: &mut TwoNodes) -> Result<()> {
    let node = world.node.name.clone();
    let pod = world
        .cluster
        .create_pod("agent-gone", "signet-agent", &node)
        .await?;
    let token = world.cluster.pod_token(&pod, NODE_AUDIENCE).await?;
    world.cluster.delete_pod(&pod, 0).await?;
    world.node_refused(CLUSTER, &token, "").await
}

async fn of_a_completed_pod(world: &mut TwoNodes) -> Result<()> {
    let node = world.node.name.clone();
    let pod = world
        .cluster
        .create_pod("agent-done", "signet-agent", &node)
        .await?;
    let token = world.cluster.pod_token(&pod, NODE_AUDIENCE).await?;
    let path = format!("{}/{}/status", world.cluster.path("pods"), pod.name);
    let ended = json!({"status": {"phase": "Failed"}});
    world.cluster.patch(&path, &ended).await?;
    world.node_refused(CLUSTER, &token, "has ended").await
}

async fn of_a_replaced_node(world: &mut TwoNodes) -> Result<()> {
    let first = world.cluster.create_node("three").await?;
    let pod = world
        .cluster
        .create_pod("agent-three", "signet-agent", &first.name)
        .await?;
    let token = world.cluster.pod_token(&pod, NODE_AUDIENCE).await?;
    world
        .cluster
        .delete(&format!("/api/v1/nodes/{}", first.name))
        .await?;
    world.node_refused(CLUSTER, &token, &first.name).await?;
    let second = world.cluster.create_node("three").await?;
    ensure!(first.uid != second.uid, "the same node");
    // For some seconds the first refusal stands.
    wait_for("a refusal of a token whose node was replaced", async || {
        let mut stranger = RawAgent::connect(world.server.agents(), None).await?;
        stranger.hello().await?;
        let refused = stranger.attest(create_csr(&new_key()?)?, CLUSTER, &token).await;
        let words = refused.err().map(|status| status.message().to_owned());
        Ok(words.filter(|words| words.contains("was replaced by another one")))
    })
    .await?;
    // A token made now names the node as it is now.
    let mut stranger = RawAgent::connect(world.server.agents(), None).await?;
    stranger.hello().await?;
    let token = world.cluster.pod_token(&pod, NODE_AUDIENCE).await?;
    let attested = stranger.attest(create_csr(&new_key()?)?, CLUSTER, &token).await?;
    ensure!(attested.node_uid == second.uid, "attested {}", attested.node_uid);
    Ok(())
}
