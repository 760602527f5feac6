//! Labels of namespaces, which whoever administers a cluster sets.

use super::*;

fn labelled(labels: &[(&str, &str)]) -> AttestedPod {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    AttestedPod {
        namespace_labels: Some(Arc::new(labels.collect())),
        ..pod()
    }
}

fn by_label(rule: Value) -> Value {
    let mut rule = rule;
    rule["match"]["namespace_labels"] = json!({"team": "payments"});
    rule
}

fn payments() -> Value {
    by_label(json!({"name": "payments", "spiffe_id": "/payments/{service_account}"}))
}

#[test]
fn a_rule_matches_where_the_namespace_has_all_the_labels_and_nowhere_else() {
    let set = set(&without_builtin(), json!([payments()]));
    let of = |labels: &[(&str, &str)]| set.evaluate(&Facts::Pod(&labelled(labels)));
    let payments = [("team", "payments"), ("kubernetes.io/metadata.name", "shop")];
    assert_eq!(ids(of(&payments)), ["spiffe://example.org/payments/frontend"]);
    for other in [&[][..], &[("team", "other")], &[("Team", "payments")]] {
        assert_eq!(of(other), Verdict::NoMatch, "{other:?}");
    }
    assert_eq!(set.evaluate(&Facts::Unix(&unix())), Verdict::NoMatch);
}

/// Whoever creates a pod sets its labels, and they are no labels of its namespace.
#[test]
fn a_pods_own_labels_are_none_of_its_namespaces() {
    let set = set(&without_builtin(), json!([payments()]));
    let mut claiming = labelled(&[]);
    claiming.labels = Arc::new([("team".to_owned(), "payments".to_owned())].into());
    assert_eq!(set.evaluate(&Facts::Pod(&claiming)), Verdict::NoMatch);
}

/// Labels that nobody has looked at are not missing: they neither give an identity nor deny one.
#[test]
fn without_the_labels_nothing_is_decided_that_hangs_on_them() {
    let deny = by_label(json!({"name": "no", "deny": true}));
    for rule in [payments(), deny.clone()] {
        // The built-in rule would give an identity: not the default one, or not at all.
        let set = set(&scope(), json!([rule]));
        assert_eq!(of_pod(&set), Verdict::Undecided, "{rule}");
        assert!(set.asks_for_namespace_labels() && set.is_undecided(&Facts::Pod(&pod())));
        assert!(!set.is_undecided(&Facts::Pod(&labelled(&[]))));
        assert!(!set.is_undecided(&Facts::Unix(&unix())));
    }
    let set = set(&scope(), json!([deny]));
    assert_eq!(
        set.evaluate(&Facts::Pod(&labelled(&[("team", "payments")]))),
        Verdict::Denied { rule: "no".into() }
    );
    assert_eq!(
        ids(set.evaluate(&Facts::Pod(&labelled(&[])))),
        ["spiffe://example.org/ns/shop/sa/frontend"]
    );
    let account = set.account(&Facts::Pod(&pod()), 10);
    let open = account.rules.iter().find(|rule| rule.fate == Fate::Open).unwrap();
    assert!(open.to_string().ends_with("which are not known"), "{open}");
}

/// Nobody has to look where another criterion decides, or another rule denies whatever they are.
#[test]
fn what_does_not_hang_on_them_is_decided_without() {
    let elsewhere = json!({"name": "till", "match": {"service_accounts": ["till"]}, "spiffe_id": "/till"});
    let set_of_others = set(&scope(), json!([by_label(elsewhere)]));
    assert_eq!(
        ids(of_pod(&set_of_others)),
        ["spiffe://example.org/ns/shop/sa/frontend"]
    );
    let denied = json!({"name": "no", "match": {"namespaces": ["shop"]}, "deny": true});
    let set_that_denies = set(&scope(), json!([payments(), denied]));
    assert_eq!(of_pod(&set_that_denies), Verdict::Denied { rule: "no".into() });
    assert!(!set(&scope(), json!([])).asks_for_namespace_labels());
}

/// An administrator's label says where the pod author's labels count, as a name does.
#[test]
fn labels_of_namespaces_pin_labels_of_pods() {
    let by_app = json!({"name": "app", "match": {"pod_labels": {"app": "web"}}, "spiffe_id": "/app/web"});
    assert!(error(&scope(), by_app.clone()).contains("`namespace_labels`"));
    let set = set(&without_builtin(), json!([by_label(by_app)]));
    let payments = labelled(&[("team", "payments")]);
    assert_eq!(
        ids(set.evaluate(&Facts::Pod(&payments))),
        ["spiffe://example.org/app/web"]
    );
    assert_eq!(
        set.evaluate(&Facts::Pod(&AttestedPod {
            labels: Arc::default(),
            ..payments
        })),
        Verdict::NoMatch
    );
}

#[test]
fn such_a_rule_says_in_which_namespaces_it_counts() {
    let set = set(&without_builtin(), json!([payments()]));
    assert_eq!(set.across_namespaces().count(), 0);
}

#[test]
fn faulty_ones_are_refused() {
    let nameless = json!({"name": "r", "match": {"namespace_labels": {"": "x"}}, "spiffe_id": "/x"});
    assert!(error(&scope(), nameless).contains("label key"));
    let of_processes = json!({
        "name": "r", "spiffe_id": "/x",
        "match": {"namespace_labels": {"a": "b"}, "evidence": ["unix"], "unix": {"uids": [1]}},
    });
    assert!(error(&scope(), of_processes).contains("can never be met"));
}
