//! The CSI driver of the real agent under a real kubelet: a pod's life with its socket.
//!
//! The checks are one story and run in this order.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use signet_proto::agent::issue_result::Outcome;
use signet_tests::{
    agent_client::{RawAgent, new_csr},
    domain::{CLUSTER, NODE_AUDIENCE},
    wait::within,
    workload::Identity,
};

pub(crate) use self::node::{OneNode, find_process, running, socket_of, workload_spec};
use self::node::{Volume, agent_stands};
use crate::{
    api::{PATIENCE, wait_for},
    checks::{Check, checks},
};

mod node;

pub(crate) const CHECKS: &[Check<OneNode>] = checks![
    "kubelet registers the driver" => registers,
    "a pod starts with its socket, in a folder it cannot write" => starts,
    "a process of the pod, as the pod's user, fetches exactly its ID with revocation lists" => fetches,
    "the SVID renews on an open stream" => renews,
    "a killed agent rebuilds the socket in the same folder while the pod runs" => agent_restarts,
    "kubelet brings a lost token again" => token_comes_again,
    "a pod whose server is away starts, and gets its identity when the server is back" => without_server,
    "a revoked identity is no longer served, and served again once allowed" => revoked,
    "a deleted pod leaves no socket, no mount, no record, and its token is refused" => ends,
];

async fn registers(node: &mut OneNode) -> Result<()> {
    let path = format!("/apis/storage.k8s.io/v1/csinodes/{}", node.node.name);
    wait_for("the driver in the CSINode object", async || {
        let found = node.cluster.get(&path).await?;
        let drivers = found.pointer("/spec/drivers").and_then(|list| list.as_array());
        let mut names = drivers.into_iter().flatten().map(|driver| &driver["name"]);
        Ok(names.any(|name| *name == node.driver).then_some(()))
    })
    .await
}

async fn starts(node: &mut OneNode) -> Result<()> {
    let pod = node.start_pod("web-1").await?;
    let path = format!("{}/web-1/log", node.cluster.path("pods"));
    let log = wait_for("the pod's own look at its socket", async || {
        let log = node.cluster.text(&path).await?;
        Ok(log.contains("looked").then_some(log))
    })
    .await?;
    ensure!(log.contains("spiffe.sock"), "the pod sees: {log}");
    ensure!(
        log.contains("Read-only file system"),
        "the pod could write: {log}"
    );
    ensure!(log.contains("uid=65534"), "the pod runs as: {log}");
    let volume = node.volume(&pod).await?;
    ensure!(
        volume.is_mounted()?,
        "{} is no mount point",
        volume.target.display()
    );
    node.first = Some(volume);
    Ok(())
}

async fn fetches(node: &mut OneNode) -> Result<()> {
    let volume = node.first()?;
    let json = node.fetch_as_pod(volume).await?;
    let expected = node.expected_id();
    ensure!(
        json.pointer("/svids/0/spiffe_id").and_then(|id| id.as_str()) == Some(expected.as_str()),
        "fetched {json}"
    );
    // The same through the library's checks: key, chain, and a list for every authority.
    let identity = volume.client().identity().await;
    ensure!(identity.ids.len() == 1, "{} identities", identity.ids.len());
    ensure!(
        identity.svid.spiffe_id().as_str() == expected,
        "{}",
        identity.svid.spiffe_id()
    );
    ensure!(
        identity
            .authorities
            .iter()
            .all(|authority| authority.crl.is_some()),
        "an authority without a list"
    );
    let verified = identity.judge(&identity.svid)?;
    ensure!(
        verified.spiffe_id().as_str() == expected,
        "a peer sees {}",
        verified.spiffe_id()
    );
    Ok(())
}

async fn renews(node: &mut OneNode) -> Result<()> {
    let mut updates = node.first()?.client().watch().await?;
    let first = updates.next().await?;
    let fresher = |identity: &Identity| {
        identity.svid.serial() != first.svid.serial() && identity.svid.not_after() > first.svid.not_after()
    };
    let renewed = tokio::time::timeout(PATIENCE, async {
        loop {
            let next = updates.next().await?;
            if fresher(&next) {
                return anyhow::Ok(next);
            }
        }
    });
    let renewed = renewed.await.context("no renewal")??;
    renewed.judge(&renewed.svid)?;
    ensure!(
        renewed.svid.key().pkcs8_der() != first.svid.key().pkcs8_der(),
        "the same key again"
    );
    Ok(())
}

async fn agent_restarts(node: &mut OneNode) -> Result<()> {
    let before = node.first()?.inode()?;
    node.agent.kill().await;
    ensure!(
        node.first()?.client().fetch().await.is_err(),
        "served by a dead agent"
    );
    node.start_agent().await?;
    let volume = node.first()?;
    let identity = volume.client().identity().await;
    ensure!(
        identity.svid.spiffe_id().as_str() == node.expected_id(),
        "another identity"
    );
    ensure!(
        volume.inode()? == before,
        "another folder than the one the pod has mounted"
    );
    Ok(())
}

async fn token_comes_again(node: &mut OneNode) -> Result<()> {
    node.agent.kill().await;
    let token = node.first()?.token_file()?;
    std::fs::remove_file(&token)?;
    node.start_agent().await?;
    // kubelet calls again with the next sync of the pod: within 90 s.
    let back = within(2 * PATIENCE, async || token.is_file().then_some(())).await;
    back.context("no token after kubelet's next call")?;
    // What was kept is served meanwhile; the new token is good for another certificate.
    let held = node.first()?.client().identity().await;
    let mut updates = node.first()?.client().watch().await?;
    let renewed = tokio::time::timeout(PATIENCE, async {
        loop {
            let next = updates.next().await?;
            if next.svid.serial() != held.svid.serial() {
                return anyhow::Ok(());
            }
        }
    });
    renewed.await.context("no renewal by the token that came again")?
}

async fn without_server(node: &mut OneNode) -> Result<()> {
    node.server.kill().await;
    let pod = node.start_pod("web-2").await?;
    let volume = node.volume(&pod).await?;
    match tokio::time::timeout(Duration::from_secs(2), volume.client().fetch()).await {
        // It waits for its identity.
        Err(_) => {}
        Ok(Err(status)) => ensure!(
            status.code() == tonic::Code::Unavailable,
            "told {status:?} while the server is away"
        ),
        Ok(Ok(identity)) => bail!("an identity from nowhere: {}", identity.svid.spiffe_id()),
    }
    node.server.start().await?;
    let identity = within(PATIENCE, async || volume.client().fetch().await.ok());
    let identity = identity
        .await
        .context("no identity from the server that came back")?;
    ensure!(
        identity.svid.spiffe_id().as_str() == node.expected_id(),
        "another identity"
    );
    node.end_pod(&pod).await?;
    gone(node, &volume).await
}

async fn revoked(node: &mut OneNode) -> Result<()> {
    let volume = node.first()?;
    let held = volume.client().identity().await;
    let id = node.expected_id();
    let revoke = ["revoke", "--spiffe-id", &id, "--comment", "test"];
    let answer = node.server.admin(&revoke).await?;
    wait_for("a refusal on the pod's socket", async || {
        match volume.client().fetch().await {
            Err(status) if status.code() == tonic::Code::PermissionDenied => {
                ensure!(
                    status.message().contains("no identity issued"),
                    "{}",
                    status.message()
                );
                Ok(Some(()))
            }
            _ => Ok(None),
        }
    })
    .await?;
    let denial = answer
        .pointer("/denial_id")
        .or_else(|| answer.pointer("/denial/id"))
        .and_then(|id| id.as_str())
        .with_context(|| format!("no denial in {answer}"))?;
    let done = node.server.command(&["allow", denial]).await?;
    ensure!(done.status.success(), "allow: {}", done.stderr);
    let again = within(PATIENCE, async || volume.client().fetch().await.ok()).await;
    let again = again.context("no identity after the denial was lifted")?;
    ensure!(
        again.svid.serial() != held.svid.serial(),
        "the revoked certificate again"
    );
    ensure!(
        again.sees_revoked(&held.svid),
        "the list lacks the revoked certificate"
    );
    ensure!(
        again.judge(&held.svid).is_err(),
        "a peer accepts the revoked certificate"
    );
    again.judge(&again.svid).map(drop)
}

async fn ends(node: &mut OneNode) -> Result<()> {
    let volume = node.first.take().context("no pod")?;
    let token = volume.token()?;
    let mut stream = volume.client().watch().await?;
    stream.next().await?;
    node.end_pod(&volume.pod).await?;
    gone(node, &volume).await?;
    let status = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(status) = stream.next().await {
                return status;
            }
        }
    });
    let status = status.await.context("the stream of a deleted pod goes on")?;
    ensure!(
        matches!(
            status.code(),
            tonic::Code::Unavailable | tonic::Code::PermissionDenied | tonic::Code::Unknown
        ),
        "the stream ended with {status:?}"
    );
    // Even an agent of that very node gets nothing for the dead pod's token, which has not expired.
    node.agent.kill().await;
    let own = node.cluster.pod_token(&node.agent_pod, NODE_AUDIENCE).await?;
    let (mut agent, _) = RawAgent::attested(node.server.agents(), CLUSTER, &own).await?;
    let after = node.server.audit()?.len();
    match agent.issue_one(new_csr()?, &token).await? {
        Outcome::Refusal(refusal) => node
            .server
            .audited_refusal(after, "issue", &refusal.message)
            .await
            .map(drop),
        other => bail!("not refused: {other:?}"),
    }
}

async fn gone(node: &OneNode, volume: &Volume) -> Result<()> {
    wait_for("the end of the pod's volume", async || {
        Ok((!volume.is_mounted()? && !volume.target.exists() && !volume.folder.exists()).then_some(()))
    })
    .await
    .with_context(|| agent_stands(&node.agent))
}
