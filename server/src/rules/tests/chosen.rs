//! What the claimant chooses gives nobody an identity unless the rule says which values it may have.

use super::*;

fn on_unix(unix: Value, path: &str) -> Value {
    json!({"name": "r", "match": {"evidence": ["unix"], "unix": unix}, "spiffe_id": path})
}

fn on_pods(matching: Value, path: &str) -> Value {
    json!({"name": "r", "match": matching, "spiffe_id": path})
}

fn hash() -> String {
    hex::encode([7_u8; 32])
}

/// Rule, the fact that its message names, and the key that the remedy names.
fn refused() -> Vec<(Value, &'static str, &'static str)> {
    let label = "/app/{label:example.org/app}";
    vec![
        (on_unix(json!({"gids": [100]}), "/x"), "SHA-256", "`uids`"),
        (
            on_unix(json!({"gids": [100]}), "/vm/{node_name}/uid/{uid}"),
            "group",
            "`uids`",
        ),
        (
            on_unix(json!({"paths": ["/usr/bin/app"]}), "/x"),
            "path",
            "`uids`",
        ),
        (on_unix(json!({"sha256": [hash()]}), "/x"), "SHA-256", "`uids`"),
        (
            on_unix(json!({"uids": [1000]}), "/u/{uid}/{gid}"),
            "{gid}",
            "`match.unix.gids`",
        ),
        (
            on_pods(json!({"namespaces": ["shop"]}), label),
            "{label:example.org/app}",
            "`match.pod_labels`",
        ),
        (
            on_pods(
                json!({"namespaces": ["shop"], "pod_labels": {"app": "web"}}),
                label,
            ),
            "{label:example.org/app}",
            "`match.pod_labels`",
        ),
        (on_pods(json!({}), "/pod/{pod_name}"), "{pod_name}", "{namespace}"),
        (
            on_pods(json!({"namespaces": ["shop", "bank"]}), "/pod/{pod_name}"),
            "{pod_name}",
            "one namespace under `match.namespaces`",
        ),
        (
            json!({"name": "r", "spiffe_id": "/ns/{namespace}/{pod_name}", "dns_names": ["{pod_name}.example.org"]}),
            "{pod_name}.example.org",
            "{namespace}",
        ),
    ]
}

#[test]
fn a_template_with_what_the_claimant_chooses_is_refused_unless_it_is_pinned() {
    for (rule, fact, remedy) in refused() {
        let text = error(&without_builtin(), rule.clone());
        assert!(text.contains(fact) && text.contains(remedy), "{rule}: {text}");
        let (problem, advice) = text.rsplit_once("; ").unwrap();
        assert!(
            problem.contains(fact) && advice.contains(remedy),
            "{rule}: {text}"
        );
    }
}

#[test]
fn what_is_pinned_or_vouched_for_by_the_api_server_may_be_used() {
    let all =
        json!({"uids": [1000, 1001], "gids": [100, 101], "paths": ["/usr/bin/app"], "sha256": [hash()]});
    let label = json!({"namespaces": ["shop"], "pod_labels": {"app": "web"}});
    for rule in [
        on_unix(all, "/u/{uid}/{gid}"),
        on_unix(json!({"uids": [1000]}), "/vm/{cluster}/{node_name}/{uid}"),
        on_pods(label, "/app/{label:app}"),
        on_pods(json!({"namespaces": ["shop"]}), "/pod/{pod_name}"),
        on_pods(json!({}), "/ns/{namespace}/pod/{pod_name}"),
        on_pods(json!({}), "/{cluster}/{node_name}/{pod_uid}/{service_account}"),
        json!({"name": "r", "match": {"evidence": ["unix"], "unix": {"paths": ["/bin/sh"]}}, "deny": true}),
    ] {
        set(&without_builtin(), json!([rule]));
    }
}

/// Every template of a rule set is one of a few, so that whoever vouches for the facts can make up no identity.
#[test]
fn an_agent_that_invents_facts_gets_no_identity_that_the_rule_does_not_name() {
    let rule = on_unix(
        json!({"uids": [1000, 1001], "gids": [100]}),
        "/vm/{node_name}/{uid}/{gid}",
    );
    let set = set(&without_builtin(), json!([rule]));
    let mut found = std::collections::BTreeSet::new();
    for uid in 0..2000 {
        for gid in [0, 99, 100, 101] {
            let facts = UnixFacts { uid, gid, ..unix() };
            if let Verdict::Identities(granted) = set.evaluate(&Facts::Unix(&facts)) {
                found.extend(granted.into_iter().map(|one| one.spiffe_id.path().to_owned()));
            }
        }
    }
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["/vm/node-a/1000/100", "/vm/node-a/1001/100"]
    );
}

#[test]
fn a_rule_for_processes_says_what_it_believes() {
    let said = |rule: Value| {
        let told = belief(&rules(json!([rule]))[0]);
        told.map(|(claim, so)| format!("{claim}; {so}"))
    };
    assert_eq!(said(json!({"name": "r", "spiffe_id": "/x"})), None);
    let text = said(json!({"name": "r", "spiffe_id": "/x",
        "match": {"clusters": ["prod"], "evidence": ["unix"], "unix": {"uids": [0, 1000]}}}))
    .unwrap();
    assert!(
        text.contains("uid 0 or 1000") && text.contains("cluster prod"),
        "{text}"
    );
    assert!(!text.contains("paths"), "{text}");
    let text = said(on_unix(
        json!({"uids": [7], "paths": ["/bin/a"], "sha256": [hash()]}),
        "/x",
    ))
    .unwrap();
    assert!(text.contains("uid 7") && text.contains("any cluster"), "{text}");
    assert!(text.contains("paths and sha256 only narrow"), "{text}");
    let text = said(json!({"name": "r", "deny": true,
        "match": {"evidence": ["unix"], "unix": {"paths": ["/bin/a"]}}}))
    .unwrap();
    assert!(text.contains("copy"), "{text}");
}
