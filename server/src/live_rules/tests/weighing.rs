//! What is counted, held against a count that knows neither matchers nor templates.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    live_rules::weigh::{Holder, Known, weigh},
    rules::{Facts, UnixFacts},
    store::{EvidenceKind, LiveIdentity, WorkloadRef},
};

const ACCOUNTS: [&str; 4] = ["a", "b", "c", "d"];

/// A rule for one account: it gives a path, or denies.
#[derive(Clone, Debug)]
enum Small {
    Gives(usize, u8),
    Denies(usize),
}

fn small() -> impl Strategy<Value = Small> {
    prop_oneof![
        4 => (0..ACCOUNTS.len(), 0..3u8).prop_map(|(account, path)| Small::Gives(account, path)),
        1 => (0..ACCOUNTS.len()).prop_map(Small::Denies),
    ]
}

fn sets() -> impl Strategy<Value = (Vec<Small>, bool)> {
    (proptest::collection::vec(small(), 0..6), any::<bool>())
}

fn written((rules, builtin_rule): &(Vec<Small>, bool)) -> WrittenRules {
    let rules = rules.iter().enumerate().map(|(place, small)| match small {
        Small::Gives(account, path) => IdentityRuleConfig {
            spiffe_id: Some(format!("/p{path}")),
            ..rule(ACCOUNTS[*account], &format!("r{place}"))
        },
        Small::Denies(account) => IdentityRuleConfig {
            spiffe_id: None,
            deny: true,
            ..rule(ACCOUNTS[*account], &format!("r{place}"))
        },
    });
    WrittenRules {
        rules: rules.collect(),
        builtin_rule: *builtin_rule,
        same_identity: false,
    }
}

/// Paths that an account has.
fn gives((rules, builtin_rule): &(Vec<Small>, bool), account: usize) -> BTreeSet<String> {
    if rules
        .iter()
        .any(|rule| matches!(rule, Small::Denies(denied) if *denied == account))
    {
        return BTreeSet::new();
    }
    let own = rules.iter().filter_map(|rule| match rule {
        Small::Gives(of, path) if *of == account => Some(format!("/p{path}")),
        _ => None,
    });
    let builtin = builtin_rule.then(|| format!("/ns/shop/sa/{}", ACCOUNTS[account]));
    own.chain(builtin).collect()
}

/// Pods of accounts with every identity that the rules give them; the watch shows of each what `known` says.
fn holders(rules: &RuleSet, pods: &[(usize, u8)]) -> Vec<Holder> {
    let mut holders = Vec::new();
    for (place, (account, known)) in pods.iter().enumerate() {
        let mut pod = pod(ACCOUNTS[*account]);
        pod.pod_uid = format!("uid-{place}");
        for given in rules.judge(&Facts::Pod(&pod)).verdict.identities() {
            let known = match known {
                0 => Known::Gone,
                1 => Known::Unknown,
                _ => Known::Pod(Box::new(pod.clone())),
            };
            let workload = WorkloadRef {
                pod_uid: pod.pod_uid.clone(),
                ..WorkloadRef::of(given.spiffe_id.clone())
            };
            let live = LiveIdentity {
                workload,
                evidence: EvidenceKind::PodToken,
                rule: given.rule.clone(),
            };
            holders.push(Holder { live, known });
        }
    }
    holders
}

proptest! {
    /// Exactly what a pod had and has no more counts, of pods that are there; of pods that are not known at least that; of
    /// pods that are gone nothing. Whoever gets something else is concerned, once, and nobody who gets the same.
    #[test]
    fn withdrawals_are_counted_exactly(
        old in sets(),
        new in sets(),
        pods in proptest::collection::vec((0..ACCOUNTS.len(), 0..6u8), 0..8),
    ) {
        let (before, after) = (compiled(&written(&old)), compiled(&written(&new)));
        let lost = |account: usize| gives(&old, account).difference(&gives(&new, account)).count() as u64;
        let of = |wanted: &dyn Fn(u8) -> bool| -> Vec<(usize, u8)> {
            pods.iter().copied().filter(|(_, known)| wanted(*known)).collect()
        };
        let count = |pods: &[(usize, u8)]| weigh(&before, &after, &holders(&before, pods)).withdrawn.count;
        let exact = |pods: &[(usize, u8)]| pods.iter().map(|(account, _)| lost(*account)).sum::<u64>();

        let there = of(&|known| known > 1);
        prop_assert_eq!(count(&there), exact(&there));
        let unknown = of(&|known| known == 1);
        prop_assert!(count(&unknown) >= exact(&unknown));
        prop_assert_eq!(count(&of(&|known| known == 0)), 0);

        let all = holders(&before, &there);
        let weighed = weigh(&before, &after, &all);
        prop_assert!(weighed.withdrawn.examples.len() as u64 == weighed.withdrawn.count.min(20));
        let concerned: Vec<_> = weighed.concerned.iter().map(|place| all[*place].live.workload.pod_uid.clone()).collect();
        let distinct: BTreeSet<_> = concerned.iter().collect();
        prop_assert_eq!(distinct.len(), concerned.len());
        for holder in &all {
            let Known::Pod(pod) = &holder.known else { unreachable!() };
            let verdict = |rules: &RuleSet| rules.judge(&Facts::Pod(pod)).verdict;
            let is_same = verdict(&before).gives_as(&verdict(&after));
            prop_assert_eq!(!is_same, distinct.contains(&pod.pod_uid));
        }
        let same = weigh(&before, &before, &all);
        prop_assert_eq!((same.withdrawn.count, same.concerned.len()), (0, 0));
    }
}

#[test]
fn a_process_counts_by_what_the_ledger_knows_of_it() {
    let for_uid = |uid: u32, path: &str| {
        let mut rule = IdentityRuleConfig {
            name: "vm".to_owned(),
            spiffe_id: Some(path.to_owned()),
            ..IdentityRuleConfig::default()
        };
        rule.matching.evidence = vec![crate::rules::Evidence::Unix];
        rule.matching.unix = Some(crate::rules::UnixMatchConfig {
            uids: vec![uid],
            ..Default::default()
        });
        compiled(&alone(vec![rule]))
    };
    let process = UnixFacts {
        cluster: "c".to_owned(),
        node_name: "node-1".to_owned(),
        uid: 7,
        gid: 7,
        path: None,
        sha256: None,
    };
    let workload = WorkloadRef {
        process: process.process(),
        node_name: "node-1".to_owned(),
        ..WorkloadRef::of(SpiffeId::parse("spiffe://example.org/vm").unwrap())
    };
    let holders = [Holder {
        live: LiveIdentity {
            workload,
            evidence: EvidenceKind::Unix,
            rule: "vm".to_owned(),
        },
        known: Known::Unix(process),
    }];
    let before = for_uid(7, "/vm");
    for (after, lost) in [
        (for_uid(7, "/vm"), 0),
        (for_uid(8, "/vm"), 1),
        (for_uid(7, "/other"), 1),
    ] {
        let weighed = weigh(&before, &after, &holders);
        assert_eq!(weighed.withdrawn.count, lost);
        assert_eq!(weighed.concerned.len() as u64, lost);
    }
    let other_life = {
        let mut written = before.written();
        written.rules[0].hint = "other".to_owned();
        compiled(&written)
    };
    let weighed = weigh(&before, &other_life, &holders);
    assert_eq!((weighed.withdrawn.count, weighed.concerned), (0, vec![0]));
    assert_eq!(
        weigh(&before, &for_uid(8, "/vm"), &holders).withdrawn.examples[0].holder,
        "uid=7 gid=7 on node-1"
    );
}

/// Labels of its namespace that nobody has read yet: a rule by them may take or give, whatever the others say.
#[test]
fn a_pod_whose_namespaces_labels_are_not_known_counts_by_the_rule_that_gave_its_identity() {
    let before = compiled(&and_builtin(Vec::new()));
    for (deny, lost) in [(false, 0), (true, 1)] {
        let mut by_label = rule("a", "labelled");
        by_label.matching.namespace_labels = [("team".to_owned(), "x".to_owned())].into();
        if deny {
            (by_label.deny, by_label.spiffe_id) = (true, None);
        }
        let after = compiled(&and_builtin(vec![by_label]));
        let mut all = holders(&before, &[(0, 2)]);
        let weighed = weigh(&before, &after, &all);
        let counted = (weighed.withdrawn.count, weighed.concerned.len());
        assert_eq!(counted, (lost, 1), "deny: {deny}");
        // Where they are known and others it keeps what it has.
        let Known::Pod(pod) = &mut all[0].known else {
            panic!("a pod");
        };
        pod.namespace_labels = Some(Arc::default());
        let weighed = weigh(&before, &after, &all);
        assert_eq!((weighed.withdrawn.count, weighed.concerned.len()), (0, 0));
    }
}
