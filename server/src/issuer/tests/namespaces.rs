//! Rules that go by the labels of a pod's namespace.

use serde_json::json;

use super::*;

fn rules() -> Vec<IdentityRuleConfig> {
    let rules = json!([
        {"name": "payments", "match": {"namespace_labels": {"team": "payments"}}, "spiffe_id": "/payments/{service_account}"},
        {"name": "frozen", "match": {"namespace_labels": {"frozen": "yes"}}, "deny": true},
    ]);
    serde_json::from_value(rules).unwrap()
}

/// Missing labels are neither a verdict nor an identity, of the built-in rule least of all.
#[tokio::test(start_paused = true)]
async fn what_hangs_on_labels_that_nobody_knows_is_put_off() {
    let world = World::with_rules(rules()).await;
    assert!(is_unavailable(&world.issue_one(item(csr(), "pod-token")).await));
    assert_eq!(world.audited_refusals().await, [""; 0]);
    world.attestor.label_namespace("shop", "team", "other");
    let by_builtin = issued(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(by_builtin.spiffe_id.path(), "/ns/shop/sa/frontend");
    world.attestor.label_namespace("shop", "team", "payments");
    let by_label = issued(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(by_label.spiffe_id.path(), "/payments/frontend");
    world.attestor.label_namespace("shop", "frozen", "yes");
    let (reason, message) = refused(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(reason, RefusalReason::Denied);
    assert!(message.contains("frozen"), "{message}");
}

/// Nobody reads namespaces for a pod whose verdict does not hang on them.
#[tokio::test(start_paused = true)]
async fn other_pods_are_served_whether_or_not_anybody_knows_labels() {
    let mut rules = rules();
    for rule in &mut rules {
        rule.matching.service_accounts = vec!["till".to_owned()];
    }
    let world = World::with_rules(rules).await;
    let frontend = issued(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(frontend.spiffe_id.path(), "/ns/shop/sa/frontend");
    let till = AttestedPod {
        service_account: "till".to_owned(),
        ..pod("node-a")
    };
    world.attestor.add_pod("till-token", till);
    assert!(is_unavailable(&world.issue_one(item(csr(), "till-token")).await));
}
