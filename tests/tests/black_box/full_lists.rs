//! More is revoked than the lists have room for: the order stands all the same, and says what it could not reach.

use std::time::Duration;

use serde_json::{Value, json};
use signet_proto::agent::{issue_result::Outcome, refusal::Reason};
use signet_tests::{
    agent_client::{RawAgent, new_csr, pod_item},
    domain::{Agent, Domain, Plan},
    fake_kube::PodSpec,
    wait::{eventually, within},
    workload::{Identity, WorkloadClient},
};
use tonic::Code;

use super::support::{assert_refused, id_of};

/// Pods of one service account, and certificates each of them gets.
const PODS: usize = 9;
const EACH: usize = 95;

/// A rule that makes whoever runs these tests a workload.
fn with_a_shell() -> Value {
    json!([{
        "name": "shell",
        "match": { "evidence": ["unix"], "unix": { "uids": [nix::unistd::getuid().as_raw()] } },
        "spiffe_id": "/shell",
    }])
}

/// Takes [`EACH`] certificates for each of [`PODS`]; returns a token of the last one.
async fn fill(domain: &Domain, agent: &mut RawAgent) -> String {
    let csr = new_csr().unwrap();
    let mut last = String::new();
    for number in 0..PODS {
        let name = format!("web-{number}");
        let spec = PodSpec::new("shop", &name).service_account("web").node("node-a");
        domain.kube.add_pod(&spec).unwrap();
        last = domain.pod_token("shop", &name).unwrap();
        let items = (0..EACH).map(|_| pod_item(csr.clone(), &last)).collect();
        let results = agent.issue(items).await.unwrap();
        let refused = results
            .iter()
            .find(|one| !matches!(one.outcome, Some(Outcome::Issued(_))));
        assert!(refused.is_none(), "{name}: {refused:?}");
    }
    last
}

/// Revokes, and expects to be told that not all of it is on a list.
async fn revoke_partly(domain: &Domain, target: &[&str]) -> Value {
    let args = [&["revoke"], target, &["--output", "json"]].concat();
    let finished = domain.server.command(&args).await.unwrap();
    assert!(!finished.status.success(), "{}", finished.stdout);
    assert!(finished.stderr.contains("no room"), "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

async fn room(domain: &Domain) -> Value {
    let status = domain.server.admin(&["status"]).await.unwrap();
    status["lists"][0].clone()
}

/// A real workload of the same account, served by a real agent.
async fn real(domain: &Domain, node: &str, pod: &str) -> (Agent, WorkloadClient, Identity) {
    let agent = domain.agent(node).await.unwrap();
    let spec = PodSpec::new("shop", pod).service_account("web").node(node);
    domain.kube.add_pod(&spec).unwrap();
    let volume = agent.publish("shop", pod).await.unwrap();
    let workload = agent.workload(&volume);
    let identity = workload.identity().await;
    (agent, workload, identity)
}

/// Waits until the agent serves the workload's identity no more.
async fn let_go(workload: &WorkloadClient) {
    eventually("the workload to have lost its identity", async || {
        let refused = workload.fetch().await.err()?;
        (refused.code() == Code::PermissionDenied).then_some(())
    })
    .await;
}

/// Covers INV-11, INV-15.
#[tokio::test]
async fn a_revocation_beyond_the_room_of_the_lists_denies_and_names_what_waits() {
    let plan = Plan::default()
        .server("/crl/max_bytes", json!(65_536))
        .server("/rules", with_a_shell())
        .server("/svid/max_live", json!(100));
    let domain = plan.start().await.unwrap();
    let (first_agent, workload, first) = real(&domain, "node-b", "first").await;
    let (mut away_agent, away_workload, away) = real(&domain, "node-c", "away").await;
    let (mut agent, _) = domain.raw_agent("node-a").await.unwrap();
    let token = fill(&domain, &mut agent).await;
    away_agent.kill().await;

    let revoked = revoke_partly(&domain, &["--spiffe-id", &id_of("web")]).await;
    assert!(revoked["denial_id"].is_string(), "the denial stands: {revoked}");
    let outcome = agent.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert_refused("after the revocation", outcome, Reason::Denied);

    let svids = revoked["revoked"].as_array().unwrap();
    let (listed, waiting): (Vec<&Value>, Vec<&Value>) =
        svids.iter().partition(|svid| svid["listed"] == json!(true));
    assert_eq!(svids.len(), PODS * EACH + 2);
    assert!(waiting.iter().all(|svid| svid["not_after"].is_string()));
    // What ends first waits, so no list tells the agent of it. It is told all the same, and lets go of the identity.
    let ends_first = json!(first.svid.serial().to_string());
    assert!(waiting.iter().any(|svid| svid["serial"] == ends_first));
    let_go(&workload).await;
    // So does one that was away when the word was given.
    let missed = json!(away.svid.serial().to_string());
    assert!(waiting.iter().any(|svid| svid["serial"] == missed));
    away_agent.start().await.unwrap();
    let_go(&away_workload).await;
    eventually("status tells of the full lists", async || {
        (room(&domain).await["waiting"] == json!(waiting.len())).then_some(())
    })
    .await;
    // A process outside Kubernetes is told as well, and what waits is counted though no list changes.
    let shell = first_agent.shell();
    shell.identity().await;
    revoke_partly(&domain, &["--spiffe-id", "/shell"]).await;
    let counted = within(Duration::from_secs(10), async || {
        (room(&domain).await["waiting"] == json!(waiting.len() + 1)).then_some(())
    });
    counted.await.expect("what waits to be counted at once");
    let_go(&shell).await;
    let full = room(&domain).await;
    let capacity = usize::try_from(full["capacity"].as_u64().unwrap()).unwrap();
    assert_eq!(listed.len(), capacity - capacity / 4, "a quarter is kept: {full}");
    assert_eq!(
        (&full["entries"], &full["alarming"]),
        (&json!(listed.len()), &json!(true))
    );

    let serial = waiting[1]["serial"].as_str().unwrap();
    leaked_key_is_listed(&domain, serial, &listed, &waiting).await;
}

/// A key that is known to have leaked finds the room that was kept, and pushes nobody off.
async fn leaked_key_is_listed(domain: &Domain, serial: &str, listed: &[&Value], waiting: &[&Value]) {
    let by_hand = ["revoke", "--serial", serial, "--reason", "keyCompromise"];
    let by_hand = domain.server.admin(&by_hand).await.unwrap();
    assert_eq!(by_hand["revoked"][0]["listed"], true);
    let shown = domain.server.admin(&["crl", "show"]).await.unwrap();
    let on_lists = shown.to_string();
    assert!(on_lists.contains(serial));
    assert!(
        listed
            .iter()
            .all(|svid| on_lists.contains(svid["serial"].as_str().unwrap()))
    );
    assert!(
        waiting
            .iter()
            .filter(|svid| svid["serial"] != serial)
            .all(|svid| !on_lists.contains(svid["serial"].as_str().unwrap()))
    );
}
