//! What is said of a verdict is what was decided.

use super::*;

/// Rules of few words over few values, so that they meet the facts in every way.
fn some_rule() -> impl Strategy<Value = Value> {
    let names = || prop::sample::subsequence(vec!["shop", "bank"], 0..=2);
    let accounts = prop::sample::subsequence(vec!["frontend", "backend"], 0..=2);
    let labels = || {
        prop::collection::btree_map(
            prop::sample::select(vec!["app", "tier"]),
            prop::sample::select(vec!["web", "front"]),
            0..=2,
        )
    };
    let template = prop::sample::select(vec![
        "/ns/{namespace}/sa/{service_account}",
        "/one",
        "/pod/{namespace}/{pod_name}",
        "/node/{node_name}",
    ]);
    let kind = prop::sample::select(vec!["pod_token", "unix", "deny"]);
    let uids = prop::sample::subsequence(vec![1000, 7], 1..=2);
    (names(), accounts, labels(), labels(), template, kind, uids).prop_map(
        |(namespaces, accounts, pod_labels, namespace_labels, template, kind, uids)| {
            let pods = json!({"namespaces": namespaces, "service_accounts": accounts, "pod_labels": pod_labels,
                              "namespace_labels": namespace_labels});
            match kind {
                "unix" => json!({"spiffe_id": "/uid/{uid}", "match": {"evidence": ["unix"], "unix": {"uids": uids}}}),
                "deny" => json!({"deny": true, "match": pods}),
                _ => json!({"spiffe_id": template, "match": pods}),
            }
        },
    )
}

/// Those that compile, each under a name of its own.
fn some_rules() -> impl Strategy<Value = RuleSet> {
    let rules = prop::collection::vec(some_rule(), 0..8);
    (rules, any::<bool>()).prop_map(|(list, builtin_rule)| {
        let scope = RuleScope {
            builtin_rule,
            ..scope()
        };
        let mut good: Vec<Value> = Vec::new();
        for mut rule in list {
            rule["name"] = json!(format!("r{}", good.len()));
            let mut all = good.clone();
            all.push(rule.clone());
            if RuleSet::compile(&scope, rules_of(all)).is_ok() {
                good.push(rule);
            }
        }
        RuleSet::compile(&scope, rules_of(good)).unwrap()
    })
}

fn rules_of(list: Vec<Value>) -> Vec<IdentityRuleConfig> {
    rules(Value::Array(list))
}

fn some_pod() -> impl Strategy<Value = AttestedPod> {
    let labels = || {
        let values = prop::sample::select(vec!["web", "front", "other"]);
        prop::collection::btree_map(prop::sample::select(vec!["app", "tier"]), values, 0..=2)
    };
    let owned = |labels: BTreeMap<&str, &str>| -> Arc<BTreeMap<String, String>> {
        let owned = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Arc::new(owned.collect())
    };
    let namespace = prop::sample::select(vec!["shop", "bank", "lab"]);
    let account = prop::sample::select(vec!["frontend", "backend"]);
    (namespace, account, labels(), prop::option::of(labels())).prop_map(
        move |(namespace, account, labels, namespace_labels)| AttestedPod {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            labels: owned(labels),
            namespace_labels: namespace_labels.map(owned),
            ..pod()
        },
    )
}

/// What an account says, read without its verdict.
fn follows(account: &Account) -> Verdict {
    let denies = account.rules.iter().find(|one| one.fate == Fate::Denies);
    if let Some(deny) = denies {
        return Verdict::Denied {
            rule: deny.rule.clone(),
        };
    }
    if account.rules.iter().any(|one| one.fate == Fate::Open) {
        return Verdict::Undecided;
    }
    let mut given: Vec<GrantedIdentity> = Vec::new();
    for one in &account.rules {
        if let Fate::Grants(identity) = &one.fate
            && given.iter().all(|known| known.spiffe_id != identity.spiffe_id)
        {
            given.push(identity.clone());
        }
    }
    if given.is_empty() {
        Verdict::NoMatch
    } else {
        Verdict::Identities(given)
    }
}

fn agrees(set: &RuleSet, facts: &Facts<'_>) -> Result<(), TestCaseError> {
    let account = set.account(facts, usize::MAX);
    prop_assert_eq!(&account.verdict, &set.evaluate(facts));
    prop_assert_eq!(&account.verdict, &follows(&account));
    prop_assert_eq!(account.rules.len(), set.names().count());
    for one in &account.rules {
        if let Fate::Differs(mismatches) = &one.fate {
            prop_assert!(!mismatches.is_empty());
            for mismatch in mismatches {
                prop_assert_ne!(&mismatch.wanted, &mismatch.found);
            }
        }
    }
    for granted in account.verdict.identities() {
        let could = set.could_give(&granted.spiffe_id);
        prop_assert!(
            could
                .iter()
                .any(|one| one.rule == granted.rule && one.never.is_none())
        );
    }
    Ok(())
}

proptest! {
    /// A rule is said to match where it counts, and never elsewhere; and from an identity the way leads back to its rule.
    #[test]
    fn an_account_says_what_was_decided(set in some_rules(), pod in some_pod()) {
        agrees(&set, &Facts::Pod(&pod))?;
        agrees(&set, &Facts::Unix(&unix()))?;
    }
}

#[test]
fn the_nearest_rule_comes_first_and_names_what_differs() {
    let set = set(
        &without_builtin(),
        json!([
            {"name": "far", "match": {"namespaces": ["bank"], "service_accounts": ["teller"]}, "spiffe_id": "/a"},
            {"name": "process", "match": {"evidence": ["unix"], "unix": {"uids": [1]}}, "spiffe_id": "/b"},
            {"name": "near", "match": {"namespaces": ["shop"], "pod_labels": {"app": "api", "tier": "front", "new": "x"}}, "spiffe_id": "/c"},
        ]),
    );
    let account = set.account(&Facts::Pod(&pod()), 2);
    let names: Vec<_> = account
        .rules
        .iter()
        .map(|one| (one.rule.as_str(), one.place))
        .collect();
    assert_eq!(names, [("near", 3), ("far", 1)]);
    assert_eq!((account.left_out, account.verdict), (1, Verdict::NoMatch));
    let said = |criterion, wanted: &str, found: &str| Mismatch {
        criterion,
        wanted: wanted.to_owned(),
        found: found.to_owned(),
    };
    assert_eq!(
        account.rules[0].fate,
        Fate::Differs(vec![
            said("pod_labels", "app=api", "app=web"),
            said("pod_labels", "new=x", "no label new"),
        ])
    );
    assert_eq!(
        account.rules[1].fate,
        Fate::Differs(vec![
            said("namespaces", "bank", "shop"),
            said("service_accounts", "teller", "frontend"),
        ])
    );
}

#[test]
fn labels_of_a_namespace_that_nobody_knows_leave_a_rule_open() {
    let set = set(
        &without_builtin(),
        json!([{"name": "team", "match": {"namespace_labels": {"team": "a"}}, "spiffe_id": "/a"}]),
    );
    let account = set.account(&Facts::Pod(&pod()), 8);
    assert_eq!(account.rules[0].fate, Fate::Open);
    let labelled = AttestedPod {
        namespace_labels: Some(Arc::default()),
        ..pod()
    };
    let account = set.account(&Facts::Pod(&labelled), 8);
    let Fate::Differs(mismatches) = &account.rules[0].fate else {
        panic!("{account:?}");
    };
    assert_eq!(
        (mismatches[0].wanted.as_str(), mismatches[0].found.as_str()),
        ("team=a", "no label team")
    );
}

/// All of them are wanted, not one of them.
#[test]
fn labels_that_nobody_knows_are_wanted_together() {
    let set = set(
        &without_builtin(),
        json!([{"name": "team", "match": {"service_accounts": ["back"], "namespace_labels": {"team": "a", "tier": "b"}},
                "spiffe_id": "/a"}]),
    );
    let account = set.account(&Facts::Pod(&pod()), 8);
    let Fate::Differs(mismatches) = &account.rules[0].fate else {
        panic!("{account:?}");
    };
    let labels = &mismatches[1];
    assert_eq!(
        (labels.criterion, labels.wanted.as_str(), labels.found.as_str()),
        ("namespace_labels", "team=a and tier=b", "not known")
    );
}

#[test]
fn many_wanted_values_are_cut() {
    let namespaces: Vec<_> = (0..100).map(|n| format!("namespace-{n}")).collect();
    let set = set(
        &without_builtin(),
        json!([{"name": "many", "match": {"namespaces": namespaces}, "spiffe_id": "/a"}]),
    );
    let account = set.account(&Facts::Pod(&pod()), 8);
    let Fate::Differs(mismatches) = &account.rules[0].fate else {
        panic!("{account:?}");
    };
    assert!(mismatches[0].wanted.starts_with("namespace-0 or namespace-1"));
    assert!(mismatches[0].wanted.ends_with(" more") && mismatches[0].wanted.len() < 250);
}

#[test]
fn an_id_leads_back_to_the_rules_that_could_give_it() {
    let set = set(
        &scope(),
        json!([
            {"name": "shop", "match": {"namespaces": ["shop"]}, "spiffe_id": "/ns/{namespace}/sa/{service_account}"},
            {"name": "bank", "match": {"namespaces": ["bank"]}, "spiffe_id": "/ns/{namespace}/sa/{service_account}"},
            {"name": "fixed", "match": {"namespaces": ["bank"]}, "spiffe_id": "/ns/shop/sa/x"},
            {"name": "affix", "match": {"namespaces": ["a"]}, "spiffe_id": "/ns/shop/sa/fr{service_account}nd"},
            {"name": "twice", "match": {"namespaces": ["a"]}, "spiffe_id": "/ns/{namespace}/sa/{namespace}"},
            {"name": "denies", "match": {"namespaces": ["b"]}, "deny": true},
        ]),
    );
    let id = SpiffeId::parse("spiffe://example.org/ns/shop/sa/frontend").unwrap();
    let could = set.could_give(&id);
    let seen: Vec<_> = could
        .iter()
        .map(|one| (one.rule.as_str(), one.never.is_none()))
        .collect();
    assert_eq!(
        seen,
        [
            ("shop", true),
            ("bank", false),
            ("affix", true),
            ("builtin", true)
        ]
    );
    assert_eq!(could[0].pinned("{service_account}"), Some("frontend"));
    assert_eq!(could[2].pinned("{service_account}"), Some("onte"));
    let never = could[1].never.as_ref().unwrap();
    assert_eq!(
        (never.criterion, never.wanted.as_str(), never.found.as_str()),
        ("namespaces", "bank", "shop")
    );
}
