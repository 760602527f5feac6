mod account;
mod chosen;
mod faulty;
mod namespaces;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};
use signet_certs::id::TrustDomain;

use super::*;
use crate::attest::AttestedPod;

fn scope() -> RuleScope {
    RuleScope {
        trust_domain: TrustDomain::parse("example.org").unwrap(),
        clusters: vec!["prod".into()],
        builtin_rule: true,
        same_identity: false,
    }
}

fn without_builtin() -> RuleScope {
    RuleScope {
        builtin_rule: false,
        ..scope()
    }
}

fn two_clusters() -> RuleScope {
    RuleScope {
        clusters: vec!["prod".into(), "test".into()],
        ..without_builtin()
    }
}

fn pod() -> AttestedPod {
    let labels = [("app", "web"), ("tier", "front"), ("empty", ""), ("odd", "A_b.c")];
    AttestedPod {
        cluster: "prod".into(),
        cluster_uid: "uid".into(),
        namespace: "shop".into(),
        service_account: "frontend".into(),
        pod_name: "web-0".into(),
        pod_uid: "506562ff".into(),
        node_name: "node-a".into(),
        node_uid: "5696bfb4".into(),
        labels: Arc::new(
            labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        ),
        namespace_labels: None,
        jti: "jti".into(),
        expires: UNIX_EPOCH,
        terminating: false,
        outage: false,
    }
}

fn unix() -> UnixFacts {
    UnixFacts {
        cluster: "prod".into(),
        node_name: "node-a".into(),
        uid: 1000,
        gid: 100,
        path: Some("/usr/bin/app".into()),
        sha256: Some([7; 32]),
    }
}

fn rules(rules: Value) -> Vec<IdentityRuleConfig> {
    serde_json::from_value(rules).unwrap()
}

fn set(scope: &RuleScope, list: Value) -> RuleSet {
    RuleSet::compile(scope, rules(list)).unwrap()
}

fn error(scope: &RuleScope, rule: Value) -> String {
    RuleSet::compile(scope, rules(json!([rule])))
        .unwrap_err()
        .to_string()
}

fn ids(verdict: Verdict) -> Vec<String> {
    match verdict {
        Verdict::Identities(identities) => identities.iter().map(|i| i.spiffe_id.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

fn of_pod(set: &RuleSet) -> Verdict {
    set.evaluate(&Facts::Pod(&pod()))
}

#[test]
fn without_rules_a_pod_gets_the_built_in_identity() {
    let set = set(&scope(), json!([]));
    assert_eq!(ids(of_pod(&set)), ["spiffe://example.org/ns/shop/sa/frontend"]);
    assert_eq!(set.names().collect::<Vec<_>>(), ["builtin"]);
}

#[test]
fn the_built_in_rule_is_for_pods_and_can_be_removed() {
    assert_eq!(
        set(&scope(), json!([])).evaluate(&Facts::Unix(&unix())),
        Verdict::NoMatch
    );
    assert_eq!(of_pod(&set(&without_builtin(), json!([]))), Verdict::NoMatch);
}

#[test]
fn every_matching_rule_gives_an_identity_and_the_first_is_the_default() {
    let set = set(
        &scope(),
        json!([
            {"name": "other", "match": {"namespaces": ["other"]}, "spiffe_id": "/no"},
            {"name": "web", "match": {"namespaces": ["shop"]}, "spiffe_id": "/web/{pod_name}", "ttl": "30m",
             "dns_names": ["{service_account}.{namespace}.svc", "web.example.org"], "hint": "web"},
            {"name": "node", "spiffe_id": "/node/{node_name}/{cluster}"}
        ]),
    );
    let Verdict::Identities(granted) = of_pod(&set) else {
        panic!()
    };
    let found: Vec<_> = granted
        .iter()
        .map(|i| (i.spiffe_id.path(), i.rule.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("/web/web-0", "web"),
            ("/node/node-a/prod", "node"),
            ("/ns/shop/sa/frontend", "builtin")
        ]
    );
    assert_eq!(granted[0].ttl, Some(Duration::from_secs(1800)));
    assert_eq!(granted[0].dns_names, ["frontend.shop.svc", "web.example.org"]);
    assert_eq!(granted[0].hint, "web");
    assert_eq!(set.longest_ttl(), Some(Duration::from_secs(1800)));
}

/// Covers INV-11.
#[test]
fn any_deny_wins_wherever_it_stands() {
    let grant = json!({"name": "grant", "spiffe_id": "/x"});
    let deny = json!({"name": "stop", "match": {"service_accounts": ["frontend"]}, "deny": true});
    for order in [json!([grant, deny]), json!([deny, grant])] {
        assert_eq!(
            of_pod(&set(&scope(), order)),
            Verdict::Denied { rule: "stop".into() }
        );
    }
    let elsewhere = json!([{"name": "stop", "match": {"namespaces": ["other"]}, "deny": true}]);
    assert!(matches!(
        of_pod(&set(&scope(), elsewhere)),
        Verdict::Identities(_)
    ));
}

#[test]
fn a_deny_rule_without_evidence_covers_every_kind() {
    let set = set(
        &scope(),
        json!([{"name": "stop", "match": {"clusters": ["prod"]}, "deny": true}]),
    );
    assert!(matches!(of_pod(&set), Verdict::Denied { .. }));
    assert!(matches!(
        set.evaluate(&Facts::Unix(&unix())),
        Verdict::Denied { .. }
    ));
}

#[test]
fn equal_identities_collapse_and_the_first_stays() {
    let set = set(
        &scope(),
        json!([
            {"name": "a", "spiffe_id": "/ns/shop/sa/frontend", "hint": "first"},
            {"name": "b", "spiffe_id": "/ns/{namespace}/sa/{service_account}", "hint": "second"}
        ]),
    );
    let Verdict::Identities(granted) = of_pod(&set) else {
        panic!()
    };
    assert_eq!(granted.len(), 1);
    assert_eq!(
        (granted[0].rule.as_str(), granted[0].hint.as_str()),
        ("a", "first")
    );
}

/// Covers API-11.
#[test]
fn of_equal_hints_the_first_is_kept() {
    let set = set(
        &scope(),
        json!([
            {"name": "a", "spiffe_id": "/a", "hint": "x"}, {"name": "b", "spiffe_id": "/b", "hint": "x"},
            {"name": "c", "spiffe_id": "/c", "hint": "y"}
        ]),
    );
    let Verdict::Identities(granted) = of_pod(&set) else {
        panic!()
    };
    let hints: Vec<_> = granted.iter().map(|identity| identity.hint.as_str()).collect();
    assert_eq!(hints, ["x", "", "y", ""]);
}

#[test]
fn labels_select_within_their_namespaces() {
    let with = |labels: Value| {
        let rule =
            json!({"name": "l", "match": {"namespaces": ["shop"], "pod_labels": labels}, "spiffe_id": "/l"});
        of_pod(&set(&without_builtin(), json!([rule])))
    };
    assert!(matches!(
        with(json!({"app": "web", "tier": "front"})),
        Verdict::Identities(_)
    ));
    assert_eq!(with(json!({"app": "web", "tier": "back"})), Verdict::NoMatch);
    assert_eq!(with(json!({"missing": ""})), Verdict::NoMatch);
}

#[test]
fn a_label_template_renders_and_an_empty_or_absent_label_refuses_that_rule_only() {
    let labelled = |key: &str, value: &str| {
        let path = format!("/l/{{label:{key}}}");
        set(
            &scope(),
            json!([{"name": "l", "match": {"namespaces": ["shop"], "pod_labels": {key: value}}, "spiffe_id": path}]),
        )
    };
    let mut pod = pod();
    Arc::make_mut(&mut pod.labels).extend([
        ("example.org/app".to_owned(), "web".to_owned()),
        ("example.org/empty".to_owned(), String::new()),
    ]);
    let first = |set: &RuleSet| ids(set.evaluate(&Facts::Pod(&pod))).swap_remove(0);
    assert_eq!(first(&labelled("odd", "A_b.c")), "spiffe://example.org/l/A_b.c");
    assert_eq!(
        first(&labelled("example.org/app", "web")),
        "spiffe://example.org/l/web"
    );
    for (key, is_there) in [("empty", true), ("example.org/empty", true), ("absent", false)] {
        let set = labelled(key, "");
        assert_eq!(
            ids(set.evaluate(&Facts::Pod(&pod))),
            ["spiffe://example.org/ns/shop/sa/frontend"],
            "{key}"
        );
        let account = set.account(&Facts::Pod(&pod), 10);
        let of_label = account.rules.iter().find(|rule| rule.place == 1).unwrap();
        let expected = match &of_label.fate {
            Fate::Unusable(problem) => is_there && problem.contains(key),
            Fate::Differs(by) => !is_there && by.iter().all(|one| one.criterion == "pod_labels"),
            _ => false,
        };
        assert!(expected, "{key}: {of_label:?}");
        let told = set.judge(&Facts::Pod(&pod)).unusable;
        assert_eq!(told.len(), usize::from(is_there), "{key}");
        assert!(told.iter().all(|rule| rule.problem.contains(key)), "{told:?}");
    }
}

/// Values of labels come from whoever creates the pod.
///
/// Covers BI-08, BI-14, BI-19.
#[test]
fn no_label_value_escapes_its_segment_or_reaches_reserved_ids() {
    for value in ["signet", "..", ".", "a/b", "a%2fb", "é", "a b", "", "\n"] {
        let matching = json!({"namespaces": ["shop"], "pod_labels": {"x": value}});
        let rule = json!({"name": "l", "match": matching, "spiffe_id": "/{label:x}/server"});
        let set = set(&without_builtin(), json!([rule]));
        let mut pod = pod();
        pod.labels = Arc::new(BTreeMap::from([("x".to_owned(), value.to_owned())]));
        assert_eq!(set.evaluate(&Facts::Pod(&pod)), Verdict::NoMatch, "{value}");
    }
}

#[test]
fn an_invalid_dns_name_refuses_that_rule_only() {
    let set = set(
        &scope(),
        json!([{"name": "d", "match": {"namespaces": ["shop"], "pod_labels": {"odd": "A_b.c"}},
                "spiffe_id": "/d", "dns_names": ["{label:odd}.x"]}]),
    );
    assert_eq!(ids(of_pod(&set)), ["spiffe://example.org/ns/shop/sa/frontend"]);
}

#[test]
fn unix_facts_match_by_every_criterion_given() {
    let of = |unix_match: Value, facts: &UnixFacts| {
        let rule = json!({"name": "u", "match": {"evidence": ["unix"], "unix": unix_match}, "spiffe_id": "/unix/{uid}/{gid}"});
        set(&scope(), json!([rule])).evaluate(&Facts::Unix(facts))
    };
    let hash = hex::encode([7_u8; 32]);
    let all = json!({"uids": [1, 1000], "gids": [100], "paths": ["/usr/bin/app"], "sha256": [hash]});
    assert_eq!(
        ids(of(all.clone(), &unix())),
        ["spiffe://example.org/unix/1000/100"]
    );
    let changes: [fn(&mut UnixFacts); 6] = [
        |facts| facts.uid = 0,
        |facts| facts.gid = 0,
        |facts| facts.path = None,
        |facts| facts.path = Some("/usr/bin/app2".into()),
        |facts| facts.sha256 = None,
        |facts| facts.sha256 = Some([8; 32]),
    ];
    for change in changes {
        let mut facts = unix();
        change(&mut facts);
        assert_eq!(of(all.clone(), &facts), Verdict::NoMatch, "{facts:?}");
    }
}

#[test]
fn a_rule_for_processes_says_nothing_of_pods() {
    let rule = json!({"name": "u", "match": {"evidence": ["unix", "pod_token"], "unix": {"uids": [0]}}, "spiffe_id": "/u"});
    assert_eq!(of_pod(&set(&without_builtin(), json!([rule]))), Verdict::NoMatch);
}

#[test]
fn the_line_of_a_rule_names_all_criteria_that_fail() {
    let set = set(
        &scope(),
        json!([
            {"name": "ns", "match": {"namespaces": ["other"]}, "spiffe_id": "/a"},
            {"name": "sa", "match": {"service_accounts": ["other"]}, "spiffe_id": "/b"},
            {"name": "u", "match": {"evidence": ["unix"], "unix": {"uids": [0]}}, "spiffe_id": "/c"},
            {"name": "d", "match": {"namespaces": ["other"], "pod_labels": {"a": "b", "c": "d"}}, "deny": true}
        ]),
    );
    let account = set.account(&Facts::Pod(&pod()), 10);
    let lines: Vec<_> = account.rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "rule \"builtin\" gives spiffe://example.org/ns/shop/sa/frontend",
            "rule \"sa\" does not match by service_accounts",
            "rule \"ns\" does not match by namespaces",
            "rule \"d\" does not match by namespaces and pod_labels",
            "rule \"u\" does not match by evidence and unix",
        ]
    );
}

#[test]
fn unknown_keys_are_refused() {
    for rule in [
        json!({"name": "r", "spifeid": "/x"}),
        json!({"name": "r", "match": {"namespace": ["a"]}}),
        json!({"name": "r", "match": {"unix": {"uid": [1]}}}),
        json!({"name": "r", "match": {"evidence": ["direct"]}}),
        json!({"spiffe_id": "/x"}),
    ] {
        assert!(
            serde_json::from_value::<IdentityRuleConfig>(rule.clone()).is_err(),
            "{rule}"
        );
    }
}

#[test]
fn with_several_clusters_equal_names_must_be_told_apart() {
    let plain = json!({"name": "r", "spiffe_id": "/ns/{namespace}"});
    assert!(error(&two_clusters(), plain.clone()).contains("same_identity"));
    let built_in = RuleScope {
        builtin_rule: true,
        ..two_clusters()
    };
    let text = RuleSet::compile(&built_in, Vec::new()).unwrap_err().to_string();
    assert!(
        text.contains("`builtin`") && text.contains("builtin_rule: false"),
        "{text}"
    );

    let same = RuleScope {
        same_identity: true,
        ..built_in
    };
    assert!(RuleSet::compile(&same, rules(json!([plain]))).is_ok());
    for told_apart in [
        json!({"name": "r", "spiffe_id": "/{cluster}/ns/{namespace}"}),
        json!({"name": "r", "spiffe_id": "/ns/{namespace}", "match": {"clusters": ["test"]}}),
        json!({"name": "r", "deny": true, "match": {"namespaces": ["a"]}}),
    ] {
        assert!(RuleSet::compile(&two_clusters(), rules(json!([told_apart]))).is_ok());
    }
    let set = set(
        &two_clusters(),
        json!([{"name": "r", "spiffe_id": "/{cluster}/{namespace}"}]),
    );
    assert_eq!(ids(of_pod(&set)), ["spiffe://example.org/prod/shop"]);
}

#[test]
fn the_revision_follows_the_content() {
    let list = json!([{"name": "r", "spiffe_id": "/x"}]);
    let revision = |scope: &RuleScope, list: &Value| set(scope, list.clone()).revision();
    let first = revision(&scope(), &list);
    assert_eq!(first, revision(&scope(), &list));
    assert!(first > 0 && i64::try_from(first).is_ok());
    assert_ne!(first, revision(&without_builtin(), &list));
    assert_ne!(
        first,
        revision(&scope(), &json!([{"name": "r", "spiffe_id": "/y"}]))
    );
    assert_ne!(first, revision(&scope(), &json!([])));
}

proptest! {
    /// Whatever a template is made of, it either does not compile or gives only IDs of our domain outside /signet.
    #[test]
    fn no_template_and_no_facts_give_a_bad_identity(
        template in "(/(\\{(namespace|pod_name|label:a|cluster)\\}|[a-z.]{0,4}|signet)){0,4}/?",
        label in "[a-zA-Z./_-]{0,6}|signet",
        name in "[a-z.-]{0,6}|signet",
    ) {
        let matching = json!({"namespaces": ["shop"], "pod_labels": {"a": label}});
        let rule = json!([{"name": "r", "match": matching, "spiffe_id": template}]);
        if let Ok(set) = RuleSet::compile(&without_builtin(), rules(rule)) {
            let mut pod = pod();
            pod.pod_name = name;
            pod.labels = Arc::new(BTreeMap::from([("a".to_owned(), label)]));
            if let Verdict::Identities(granted) = set.evaluate(&Facts::Pod(&pod)) {
                for identity in granted {
                    prop_assert_eq!(&SpiffeId::parse(identity.spiffe_id.as_str()), &Ok(identity.spiffe_id.clone()));
                    prop_assert!(!identity.spiffe_id.is_reserved() && !identity.spiffe_id.is_trust_domain());
                    prop_assert_eq!(identity.spiffe_id.trust_domain_name(), "example.org");
                }
            }
        }
    }

    /// Two pods of different namespaces never get one ID from a template that names the namespace.
    #[test]
    fn different_namespaces_never_share_an_identity(
        a in "[a-z]([a-z-]{0,4}[a-z])?", b in "[a-z]([a-z-]{0,4}[a-z])?",
        account_a in "[a-z.-]{1,5}", account_b in "[a-z.-]{1,5}",
    ) {
        prop_assume!(a != b);
        let set = set(&scope(), json!([]));
        let of = |namespace: &str, account: &str| {
            let mut pod = pod();
            pod.namespace = namespace.into();
            pod.service_account = account.into();
            set.evaluate(&Facts::Pod(&pod))
        };
        let (first, second) = (of(&a, &account_a), of(&b, &account_b));
        if matches!(first, Verdict::Identities(_)) {
            prop_assert_ne!(first, second);
        }
    }
}

#[test]
fn everything_that_is_wrong_with_a_rule_is_told_at_once() {
    let rule = json!({"name": "no name", "match": {"clusters": ["x", "y"], "namespaces": ["*", "?"]},
        "spiffe_id": "spiffe://a/b", "ttl": "1s", "dns_names": ["-"], "hint": "a\nb"});
    let rules = serde_json::from_value(json!([rule])).unwrap();
    let errors = RuleSet::compile(&scope(), rules).unwrap_err();
    let told: Vec<_> = std::iter::once(&errors.first)
        .chain(&errors.more)
        .map(|error| error.problem.to_string())
        .collect();
    assert_eq!(told.len(), 9, "{told:#?}");
}
