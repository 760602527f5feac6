//! Who has an identity: pods, processes, or nobody that was looked at.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};
use signet_certs::id::TrustDomain;

use super::*;
use crate::{
    attest::fake::FakeAttestor,
    rules::{IdentityRuleConfig, RuleScope},
};

fn set(list: Value) -> Arc<RuleSet> {
    let scope = RuleScope {
        trust_domain: TrustDomain::parse("example.org").unwrap(),
        clusters: vec!["prod".to_owned(), "box".to_owned()],
        builtin_rule: false,
        same_identity: true,
    };
    let rules: Vec<IdentityRuleConfig> = serde_json::from_value(list).unwrap();
    Arc::new(RuleSet::compile(&scope, rules).unwrap())
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

/// What is said of it where no pod has it, without what is in the ledger.
fn said(rules: &RuleSet, path: &str) -> (String, Vec<wire::Finding>) {
    let id = id(path);
    let seen = LookedAt {
        id: &id,
        could: &rules.could_give(&id),
        pods: &[],
        truncated: false,
        denials: &[],
        svids: &[],
        rules_apart: "",
    };
    let findings = findings(&seen);
    for one in &findings {
        assert!(one.state == "ok" || !one.remedy.is_empty(), "{one:?}");
    }
    (verdict(&seen), findings)
}

fn pod(n: usize) -> AttestedPod {
    AttestedPod {
        cluster: "prod".to_owned(),
        cluster_uid: "c".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "front".to_owned(),
        pod_name: format!("front-{n:03}"),
        pod_uid: format!("pod-{n}"),
        node_name: "node-a".to_owned(),
        node_uid: String::new(),
        labels: Arc::default(),
        namespace_labels: None,
        jti: String::new(),
        expires: UNIX_EPOCH,
        terminating: false,
        outage: false,
    }
}

#[test]
fn an_identity_of_processes_is_said_to_be_theirs_and_no_pod_is_looked_at() {
    let rules = set(json!([
        {"name": "u", "match": {"evidence": ["unix"], "unix": {"uids": [7, 8], "paths": ["/bin/till"]}}, "spiffe_id": "/uid/{uid}"},
        {"name": "v", "match": {"evidence": ["unix"], "unix": {"uids": [9]}}, "spiffe_id": "/till"},
    ]));
    for (path, words) in [
        (
            "/uid/8",
            "for processes: whoever runs as uid 8, path /bin/till, by rule \"u\"",
        ),
        ("/till", "for processes: whoever runs as uid 9, by rule \"v\""),
    ] {
        let (verdict, findings) = said(&rules, path);
        assert_eq!(verdict, format!("spiffe://example.org{path}: {words}"));
        assert!(findings.iter().all(|one| one.about != "pods"), "{findings:?}");
        assert!(likely(&rules.could_give(&id(path))).is_empty());
    }
    let (verdict, _) = said(&rules, "/uid/1");
    assert!(
        verdict.contains("wants unix.uids 7 or 8 where this would need 1"),
        "{verdict}"
    );
}

#[test]
fn an_identity_of_both_is_said_to_be_both() {
    let rules = set(json!([
        {"name": "p", "match": {"namespaces": ["shop"]}, "spiffe_id": "/till"},
        {"name": "u", "match": {"evidence": ["unix"], "unix": {"uids": [9]}}, "spiffe_id": "/till"},
    ]));
    let (verdict, _) = said(&rules, "/till");
    assert!(
        verdict.contains("no pod that the watches show gets it; for processes: "),
        "{verdict}"
    );
    assert_eq!(likely(&rules.could_give(&id("/till"))).len(), 1);
}

#[test]
fn rules_of_one_template_are_one_look_at_the_watch_and_the_rest_is_counted() {
    let rule = |n: usize| json!({"name": format!("r{n}"), "match": {"namespaces": [format!("ns{n}")]}, "spiffe_id": "/web"});
    let rules = set((0..2_000).map(rule).collect());
    assert_eq!(likely(&rules.could_give(&id("/web"))).len(), 1);
    let (_, findings) = said(&rules, "/web");
    let note = findings.iter().find(|one| one.state == "note").unwrap();
    assert_eq!(
        note.says,
        "2000 rules have such a template, and 10 of them are named"
    );
}

#[tokio::test]
async fn many_pods_are_cut_and_those_that_are_named_are_in_order() {
    let attestor = Arc::new(FakeAttestor::new());
    let cluster = attestor.clusters().remove(0).name;
    for n in 0..2 * MOST_HOLDERS {
        attestor.add_pod(
            &n.to_string(),
            AttestedPod {
                cluster: cluster.clone(),
                ..pod(n)
            },
        );
    }
    let rules = set(json!([{"name": "p", "match": {"namespaces": ["shop"]}, "spiffe_id": "/web"}]));
    let web = id("/web");
    let (pods, truncated) = holders(attestor, rules.clone(), &rules.could_give(&web), &web).await;
    assert!(truncated && pods.len() == MOST_HOLDERS && pods.is_sorted_by_key(|pod| &pod.name));
}
