use std::collections::BTreeSet;

use super::*;
use crate::store::Ledger as _;

#[tokio::test(start_paused = true)]
async fn without_the_api_server_a_stranger_stays_one() {
    let world = World::new().await;
    world.attestor.add_node("node-token", node(world.running.now()));
    world.attestor.set_unreachable();
    let outcome = world.issuer.issue_to_node(node_request("node-token"), None).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
}

fn verified(world: &World, chain: &[CertificateDer<'_>]) -> VerifiedSvid {
    let roots = world.running.snapshot().control_roots();
    verify_chain(chain, Role::Client, &roots, world.running.now()).unwrap()
}

/// A certificate of the active control authority, as a connection shows it.
fn presented(world: &World, id: &SpiffeId, ttl: Duration) -> VerifiedSvid {
    let view = world.running.manager.current().borrow().clone();
    let authority = view.kind(AuthorityKind::Control).active().unwrap().x509();
    let now = world.running.now();
    let svid = signet_testkit::leaf(authority, id.as_str())
        .at(now)
        .ttl(ttl)
        .svid();
    verified(world, &signet_testkit::chain(&svid))
}

/// While its cluster is away an agent renews by its own valid certificate, with a token of its node that was good before.
#[tokio::test(start_paused = true)]
async fn in_an_outage_a_known_agent_renews_by_its_certificate_and_a_token_of_its_node() {
    let world = World::new().await;
    world.attestor.add_node("node-token", node(world.running.now()));
    let other_node = AttestedNode {
        node_name: "node-b".to_owned(),
        node_uid: "uid-of-node-b".to_owned(),
        ..node(world.running.now())
    };
    world.attestor.add_node("token-of-b", other_node);
    let first = world
        .issuer
        .issue_to_node(node_request("node-token"), None)
        .await
        .unwrap();
    let other = presented(&world, &agent("node-b").spiffe_id, HOUR);
    let short = presented(&world, &first.spiffe_id, Duration::from_secs(1));
    let valid = verified(&world, &[first.chain[0].clone().into()]);
    world.attestor.set_unreachable();
    let asks = async |token: &str, presented: &VerifiedSvid| {
        let outcome = world
            .issuer
            .issue_to_node(node_request(token), Some(presented))
            .await;
        assert!(outcome.is_ok() || is_unavailable(&outcome), "{outcome:?}");
        outcome.ok().map(|renewed| renewed.spiffe_id)
    };
    assert_eq!(asks("node-token", &valid).await, Some(first.spiffe_id));
    assert_eq!(
        asks("stale", &valid).await,
        None,
        "a token that was no good when it began"
    );
    assert_eq!(asks("token-of-b", &valid).await, None, "another node's token");
    assert_eq!(
        asks("token-of-b", &other).await,
        None,
        "an agent that was never attested"
    );
    world.running.pass(Duration::from_secs(2)).await;
    assert_eq!(
        asks("node-token", &short).await,
        None,
        "a certificate that has expired"
    );
}

/// Whoever makes his own calls fail, by using them up or by a question that takes too long, has no outage by that.
#[tokio::test(start_paused = true)]
async fn a_call_that_fails_is_no_outage() {
    let world = World::new().await;
    world.attestor.add_node("node-token", node(world.running.now()));
    let first = world
        .issuer
        .issue_to_node(node_request("node-token"), None)
        .await
        .unwrap();
    let valid = verified(&world, &[first.chain[0].clone().into()]);
    world
        .attestor
        .set_failure(Some("more attestations than the configured rate of calls allows"));
    let outcome = world
        .issuer
        .issue_to_node(node_request("node-token"), Some(&valid))
        .await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
}

/// What rests on an outage is marked until somebody has looked; a pod that had nothing before gets nothing, which is no verdict.
#[tokio::test(start_paused = true)]
async fn what_is_issued_in_an_outage_is_marked_and_only_renews() {
    let world = World::new().await;
    world.attestor.add_node("node-token", node(world.running.now()));
    world.issue_one(item(csr(), "pod-token")).await.unwrap();
    let first = world
        .issuer
        .issue_to_node(node_request("node-token"), None)
        .await
        .unwrap();
    let valid = verified(&world, &[first.chain[0].clone().into()]);
    let other = AttestedPod {
        pod_uid: "uid-of-another".to_owned(),
        ..pod("node-a")
    };
    world.attestor.add_pod("other-pod", other);
    assert!(world.running.store.unreviewed(None, 10).await.unwrap().is_empty());
    world.attestor.set_unreachable();
    let renewed = world
        .issuer
        .issue_to_node(node_request("node-token"), Some(&valid))
        .await;
    let renewed = renewed.unwrap().spiffe_id;
    for token in ["pod-token", "other-pod"] {
        world.attestor.remember_pod(token);
    }
    let pod = world.issue_one(item(csr(), "pod-token")).await.unwrap();
    let other = world.issue_one(item(csr(), "other-pod")).await;
    assert!(is_unavailable(&other), "{other:?}");
    let marked = world.running.store.unreviewed(None, 10).await.unwrap();
    let marked: BTreeSet<_> = marked.into_iter().map(|row| row.workload.spiffe_id).collect();
    assert_eq!(marked, [renewed, pod.spiffe_id].into());
}
