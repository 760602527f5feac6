//! What a pod's token must be for the pod to get an identity.

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::{rand::SystemRandom, signature};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};
use signet_proto::agent::issue_result::Outcome;
use signet_tests::{
    agent_client::new_csr,
    domain::{NODE_AUDIENCE, POD_AUDIENCE},
};

use crate::{
    api::{Pod, wait_for},
    checks::{Check, checks, say},
    world::TwoNodes,
};

pub(crate) const CHECKS: &[Check<TwoNodes>] = checks![
    "a pod's own token gives exactly the ID of its service account" => good,
    "a pod on another node is refused" => of_another_node,
    "a token without a pod is refused" => without_a_pod,
    "a token from a Secret is refused" => from_a_secret,
    "a token for another audience is refused" => for_another_audience,
    "a token for the API server is refused" => for_the_api_server,
    "a token for us and somebody else is refused" => for_several_audiences,
    "an agent's token is no pod's token" => for_agents,
    "a token with a changed claim is refused" => with_a_changed_claim,
    "a token that the cluster did not sign is refused" => of_another_signer,
    "a token that lives too long is refused" => that_lives_too_long,
    "a pod that has ended is refused" => of_a_completed_pod,
    "a pod that is being deleted may renew" => of_a_terminating_pod,
    "a deleted pod is refused though the API server still vouches for its token" => of_a_deleted_pod,
    "a pod of the same name does not inherit a token" => of_a_pod_made_anew,
    "a token of a deleted service account is refused" => of_a_deleted_account,
];

/// What takes the cluster's own key.
pub(crate) const SIGNED_HERE: &[Check<TwoNodes>] = checks!["an expired token is refused" => expired];

async fn good(world: &mut TwoNodes) -> Result<()> {
    let token = world.token_of(&world.web).await?;
    world.issued(&token).await?;
    // Again, from the kept review.
    world.issued(&token).await
}

async fn of_another_node(world: &mut TwoNodes) -> Result<()> {
    let pod = world
        .cluster
        .create_pod("elsewhere", "web", &world.other_node.name)
        .await?;
    let token = world.token_of(&pod).await?;
    let reason = format!("the token's pod is on the node {}", world.other_node.name);
    world.refused(&token, &reason).await
}

async fn without_a_pod(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.token("web", &[POD_AUDIENCE], 600, None).await?;
    world.refused(&token, "not bound to a pod").await
}

async fn from_a_secret(world: &mut TwoNodes) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "old-token", "annotations": {"kubernetes.io/service-account.name": "web"}},
    });
    let secrets = world.cluster.path("secrets");
    world.cluster.create(&secrets, &secret).await?;
    let path = format!("{secrets}/old-token");
    let token = wait_for("a token in a Secret", async || {
        let secret = world.cluster.get(&path).await?;
        let token = secret.pointer("/data/token").and_then(Value::as_str);
        Ok(token.map(ToOwned::to_owned))
    })
    .await?;
    let token = base64::prelude::BASE64_STANDARD.decode(token)?;
    world
        .refused(&String::from_utf8(token)?, "legacy one from a Secret")
        .await
}

async fn for_another_audience(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.pod_token(&world.web, "vault").await?;
    world.refused(&token, "not for the audience").await
}

async fn for_the_api_server(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.token("web", &[], 600, Some(&world.web)).await?;
    world.refused(&token, "not for the audience").await
}

async fn for_several_audiences(world: &mut TwoNodes) -> Result<()> {
    let audiences = [POD_AUDIENCE, "vault"];
    let token = world
        .cluster
        .token("web", &audiences, 600, Some(&world.web))
        .await?;
    world.refused(&token, "several audiences").await
}

async fn for_agents(world: &mut TwoNodes) -> Result<()> {
    let token = world.cluster.pod_token(&world.web, NODE_AUDIENCE).await?;
    world.refused(&token, "not for the audience").await?;
    let token = world.cluster.pod_token(&world.agent_pod, NODE_AUDIENCE).await?;
    world.refused(&token, "not for the audience").await
}

async fn with_a_changed_claim(world: &mut TwoNodes) -> Result<()> {
    let token = world.token_of(&world.web).await?;
    let namespace = world.cluster.namespace.clone();
    let forged = with_claims(&token, |claims| {
        claims["kubernetes.io"]["serviceaccount"]["name"] = json!("admin");
        claims["sub"] = json!(format!("system:serviceaccount:{namespace}:admin"));
    })?;
    world.refused(&forged, "its signature does not verify").await
}

async fn of_another_signer(world: &mut TwoNodes) -> Result<()> {
    let token = world.token_of(&world.web).await?;
    let (signed, signature) = token.rsplit_once('.').context("no token")?;
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(signature)?;
    signature[0] ^= 1;
    let forged = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(&signature));
    world.refused(&forged, "its signature does not verify").await?;
    let forged = with_header(&token, |header| header["kid"] = json!("my own key"))?;
    world.refused(&forged, "no signing key of the cluster").await
}

async fn that_lives_too_long(world: &mut TwoNodes) -> Result<()> {
    let week = 7 * 24 * 3600;
    let token = world
        .cluster
        .token("web", &[POD_AUDIENCE], week, Some(&world.web))
        .await?;
    world.refused(&token, "lives longer than").await
}

async fn expired(world: &mut TwoNodes) -> Result<()> {
    let path = std::env::var_os(crate::TOKEN_KEY).context("no key")?;
    let key = PrivatePkcs8KeyDer::from_pem_file(path)?;
    let key = signature::RsaKeyPair::from_pkcs8(key.secret_pkcs8_der());
    let key = key.ok().context("no RSA key")?;
    let token = world.token_of(&world.web).await?;
    let sign = |token: String| {
        let (signed, _) = token.rsplit_once('.').context("no token")?;
        let mut bytes = vec![0; key.public().modulus_len()];
        let random = SystemRandom::new();
        key.sign(
            &signature::RSA_PKCS1_SHA256,
            &random,
            signed.as_bytes(),
            &mut bytes,
        )
        .ok()
        .context("not signed")?;
        anyhow::Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes)))
    };
    let past = |claims: &mut Value| {
        for name in ["iat", "nbf", "exp"] {
            claims[name] = json!(claims[name].as_i64().unwrap_or_default() - 3600);
        }
    };
    // The key is the right one, or the next check would prove nothing.
    world.issued(&sign(with_claims(&token, |_| {})?)?).await?;
    world
        .refused(&sign(with_claims(&token, past)?)?, "the token has expired")
        .await
}

async fn of_a_completed_pod(world: &mut TwoNodes) -> Result<()> {
    let pod = world.new_pod().await?;
    let token = world.token_of(&pod).await?;
    world.issued(&token).await?;
    let path = format!("{}/{}/status", world.cluster.path("pods"), pod.name);
    let ended = json!({"status": {"phase": "Succeeded"}});
    world.cluster.patch(&path, &ended).await?;
    refused_soon(world, &token).await?;
    world.refused(&token, "has ended").await
}

async fn of_a_terminating_pod(world: &mut TwoNodes) -> Result<()> {
    let pod = world.new_pod().await?;
    let token = world.token_of(&pod).await?;
    world.cluster.delete_pod(&pod, 3600).await?;
    let path = format!("{}/{}", world.cluster.path("pods"), pod.name);
    let there = world.cluster.get(&path).await?;
    ensure!(
        there.pointer("/metadata/deletionTimestamp").is_some(),
        "not terminating"
    );
    world.issued(&token).await
}

async fn of_a_deleted_pod(world: &mut TwoNodes) -> Result<()> {
    let pod = world.new_pod().await?;
    let token = world.token_of(&pod).await?;
    world.issued(&token).await?;
    world.cluster.delete_pod(&pod, 0).await?;
    refused_soon(world, &token).await?;
    // The server's own look at the pod, not the review: that one may still be positive for ten seconds.
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": [POD_AUDIENCE]},
    });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = world.cluster.create(path, &review).await?;
    let vouched = answer.pointer("/status/authenticated") == Some(&json!(true));
    say(&format!(
        "the API server still vouches for a deleted pod's token: {vouched}"
    ));
    let reason = if vouched { "is gone" } else { "" };
    world.refused(&token, reason).await
}

async fn of_a_pod_made_anew(world: &mut TwoNodes) -> Result<()> {
    let first = world.new_pod().await?;
    let token = world.token_of(&first).await?;
    // Twice: once for a token that was never seen while its pod lived, once for a kept review.
    let kept = world.token_of(&first).await?;
    world.issued(&kept).await?;
    world.cluster.delete_pod(&first, 0).await?;
    let second = world
        .cluster
        .create_pod(&first.name, "web", &world.node.name)
        .await?;
    ensure!(first.uid != second.uid, "the same pod");
    refused_soon(world, &kept).await?;
    world.refused(&token, "").await?;
    world.refused(&kept, "").await?;
    let token = world.token_of(&second).await?;
    world.issued(&token).await
}

async fn of_a_deleted_account(world: &mut TwoNodes) -> Result<()> {
    world.cluster.create_account("short-lived").await?;
    let node = world.node.name.clone();
    let pod: Pod = world.cluster.create_pod("orphan", "short-lived", &node).await?;
    let token = world.token_of(&pod).await?;
    world.agent.issue_good(&token).await?;
    let accounts = world.cluster.path("serviceaccounts");
    world.cluster.delete(&format!("{accounts}/short-lived")).await?;
    refused_soon(world, &token).await
}

/// Waits until a change in the cluster has reached the server: seconds, not minutes.
async fn refused_soon(world: &mut TwoNodes, token: &str) -> Result<()> {
    let agent = &mut world.agent;
    wait_for("a refusal", async || {
        match agent.issue_one(new_csr()?, token).await? {
            Outcome::Refusal(_) => Ok(Some(())),
            _ => Ok(None),
        }
    })
    .await
}

fn with_claims(token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
    with_part(token, 1, change)
}

fn with_header(token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
    with_part(token, 0, change)
}

fn with_part(token: &str, part: usize, change: impl FnOnce(&mut Value)) -> Result<String> {
    let mut parts: Vec<String> = token.split('.').map(ToOwned::to_owned).collect();
    let mut value: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(&parts[part])?)?;
    change(&mut value);
    parts[part] = BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    Ok(parts.join("."))
}
