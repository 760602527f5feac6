//! Rules on the labels of namespaces: an administrator's word, and never the pod author's.

use serde_json::json;
use signet_proto::agent::{issue_result::Outcome, refusal::Reason};
use signet_tests::{
    agent_client::new_csr,
    domain::{Domain, Plan},
    fake_kube::{Endpoint, FakeKubeConfig, Fault, PodSpec},
    wait::eventually,
};

use super::support::{assert_refused, issued};

/// Only pods of namespaces of the team `payments` get an identity.
async fn domain() -> Domain {
    let rule = json!({
        "name": "payments",
        "match": {"namespace_labels": {"team": "payments"}},
        "spiffe_id": "/payments/{namespace}/{service_account}",
    });
    let kube = FakeKubeConfig {
        bookmark_interval: std::time::Duration::from_millis(100),
        ..FakeKubeConfig::default()
    };
    let plan = Plan::default().kube(kube).server("/rules", json!([rule]));
    plan.server("/builtin_rule", json!(false)).start().await.unwrap()
}

fn pod(namespace: &str, name: &str) -> PodSpec {
    PodSpec::new(namespace, name)
        .service_account("front")
        .node("node-a")
}

#[tokio::test]
async fn labels_of_a_namespace_give_its_pods_an_identity_and_labels_of_a_pod_do_not() {
    let domain = domain().await;
    domain.kube.label_namespace("shop", "team", Some("payments"));
    domain.kube.add_pod(&pod("shop", "front")).unwrap();
    domain
        .kube
        .add_pod(&pod("guest", "thief").label("team", "payments"))
        .unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let ours = raw
        .issue_good(&domain.pod_token("shop", "front").unwrap())
        .await
        .unwrap();
    assert_eq!(ours.spiffe_id, "spiffe://example.org/payments/shop/front");
    let token = domain.pod_token("guest", "thief").unwrap();
    let refused = raw.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert_refused("the pod that labels itself", refused, Reason::NoMatch);

    domain.kube.label_namespace("guest", "team", Some("payments"));
    let theirs = eventually("the label to count", async || {
        match raw.issue_one(new_csr().unwrap(), &token).await.unwrap() {
            Outcome::Issued(issued) => Some(issued),
            _ => None,
        }
    });
    assert_eq!(
        theirs.await.spiffe_id,
        "spiffe://example.org/payments/guest/front"
    );
    domain.kube.label_namespace("shop", "team", None);
    let token = domain.pod_token("shop", "front").unwrap();
    eventually("the label to count no more", async || {
        let outcome = raw.issue_one(new_csr().unwrap(), &token).await.unwrap();
        matches!(outcome, Outcome::Refusal(refusal) if refusal.reason() == Reason::NoMatch).then_some(())
    })
    .await;
}

/// Nobody waits for a renewal: agents hear of the pods of a namespace whose labels change.
#[tokio::test]
async fn a_waiting_workload_gets_its_identity_as_soon_as_its_namespace_is_labelled() {
    let domain = domain().await;
    let agent = domain.agent("node-a").await.unwrap();
    domain.kube.add_pod(&pod("shop", "front")).unwrap();
    let front = agent.workload(&agent.publish("shop", "front").await.unwrap());
    eventually("the refusal to be known", async || {
        let refused = front.fetch().await.err()?;
        (refused.code() == tonic::Code::PermissionDenied).then_some(())
    })
    .await;
    domain.kube.label_namespace("shop", "team", Some("payments"));
    let identity = eventually("the identity", async || front.fetch().await.ok()).await;
    assert_eq!(
        identity.svid.spiffe_id().as_str(),
        "spiffe://example.org/payments/shop/front"
    );
}

/// Covers BT-11.
#[tokio::test]
async fn a_namespace_that_cannot_be_read_is_no_verdict() {
    let domain = domain().await;
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    domain.kube.fault_at(Endpoint::Namespaces, Fault::Forbidden);
    domain.kube.cut_watches();
    domain.kube.label_namespace("shop", "team", Some("payments"));
    domain.kube.add_pod(&pod("shop", "front")).unwrap();
    let token = domain.pod_token("shop", "front").unwrap();
    match raw.issue_one(new_csr().unwrap(), &token).await.unwrap() {
        Outcome::Unavailable(put_off) => assert!(
            put_off.message.contains("get, list and watch namespaces"),
            "{}",
            put_off.message
        ),
        other => panic!("{other:?}"),
    }
    eventually("status to say what to grant", async || {
        let status = domain.server.admin(&["status"]).await.ok()?;
        status
            .to_string()
            .contains("allowed to get, list and watch")
            .then_some(())
    })
    .await;
    domain.kube.clear_faults();
    let outcome = raw.issue_one(new_csr().unwrap(), &token).await.unwrap();
    let svid = issued("once it may be read", outcome);
    assert_eq!(svid.spiffe_id, "spiffe://example.org/payments/shop/front");
}
