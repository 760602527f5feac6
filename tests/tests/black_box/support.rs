//! What several themes need.

use serde_json::Value;
use signet_proto::agent::{IssuedSvid, Refusal, issue_result::Outcome, refusal::Reason};
use signet_tests::{
    domain::{Agent, Domain},
    fake_kube::PodSpec,
    kubelet::Volume,
    wait::{PATIENCE, within},
    workload::Identity,
};

/// The refusal in an outcome.
pub(crate) fn refusal(what: &str, outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refusal(refusal) => refusal,
        other => panic!("{what}: expected a refusal, not {other:?}"),
    }
}

/// The certificate in an outcome.
pub(crate) fn issued(what: &str, outcome: Outcome) -> IssuedSvid {
    match outcome {
        Outcome::Issued(issued) => issued,
        other => panic!("{what}: expected a certificate, not {other:?}"),
    }
}

/// Checks that it was refused for this reason, and that the refusal says more than that.
pub(crate) fn assert_refused(what: &str, outcome: Outcome, reason: Reason) -> String {
    let refusal = refusal(what, outcome);
    assert_eq!(refusal.reason(), reason, "{what}: {}", refusal.message);
    assert!(
        refusal.message.len() > 10,
        "{what}: says too little: {:?}",
        refusal.message
    );
    refusal.message
}

/// Certificates of workloads in the ledger: those of agents and of the server itself do not count.
pub(crate) async fn workload_svids(domain: &Domain) -> Vec<Value> {
    let list = domain.server.admin(&["svid", "list"]).await.unwrap();
    let all = list["svids"].as_array().expect("a list of svids").clone();
    let own = |svid: &Value| {
        svid["spiffe_id"]
            .as_str()
            .is_some_and(|id| id.contains("/signet/"))
    };
    all.into_iter().filter(|svid| !own(svid)).collect()
}

/// Waits until the audit log has a line with all of these texts, and returns all such lines. Refusals are written a
/// moment after their answer.
pub(crate) async fn audited(domain: &Domain, texts: &[&str]) -> Vec<Value> {
    let lines = within(PATIENCE, async || {
        let lines = domain.server.audit().unwrap_or_default();
        let fits = |line: &Value| texts.iter().all(|text| line.to_string().contains(text));
        let lines: Vec<Value> = lines.into_iter().filter(fits).collect();
        (!lines.is_empty()).then_some(lines)
    });
    let all = || {
        domain
            .server
            .audit()
            .unwrap_or_default()
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    lines
        .await
        .unwrap_or_else(|| panic!("no audit line has {texts:?}:\n{}", all()))
}

/// A pod of `shop` on that agent's node, under the service account of its own name, with its volume published.
pub(crate) async fn pod_with_volume(domain: &Domain, agent: &Agent, name: &str) -> Volume {
    // Its folder has the node's name.
    let node = agent.folder().file_name().and_then(|name| name.to_str()).unwrap();
    let spec = PodSpec::new("shop", name).service_account(name).node(node);
    domain.kube.add_pod(&spec).unwrap();
    agent.publish("shop", name).await.unwrap()
}

/// What such a pod is given on its socket.
pub(crate) async fn identity_of(domain: &Domain, agent: &Agent, name: &str) -> Identity {
    agent
        .workload(&pod_with_volume(domain, agent, name).await)
        .identity()
        .await
}

/// The SPIFFE ID that the built-in rule gives to such a pod.
pub(crate) fn id_of(name: &str) -> String {
    format!("spiffe://example.org/ns/shop/sa/{name}")
}
