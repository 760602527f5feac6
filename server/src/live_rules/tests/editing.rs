//! Rules that admins set beside those of the file.

use std::collections::BTreeSet;

use super::*;

const ADMIN: &str = "uid:7";

fn set(rule: IdentityRuleConfig) -> Edit {
    Edit::Set {
        rule: Box::new(rule),
        before: None,
    }
}

fn delete(name: &str) -> Edit {
    Edit::Delete {
        name: name.to_owned(),
    }
}

impl Bench {
    async fn admin(&self, edit: Edit) -> Result<Edited, NotEdited> {
        self.live().edit(edit, ADMIN.to_owned()).await
    }

    /// Names of the rules in force, with where they come from.
    fn origins(&self) -> Vec<(String, &'static str)> {
        let rules = self.live().current().borrow().clone();
        let origins = rules.origins();
        origins
            .map(|(rule, origin)| (rule.name.clone(), origin.as_str()))
            .collect()
    }

    fn set(&self) -> Vec<String> {
        let set = self.live().standing().set;
        set.iter().map(|set| set.rule.name.clone()).collect()
    }
}

fn named(origins: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    origins
        .iter()
        .map(|(name, origin)| ((*name).to_owned(), *origin))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_set_comes_behind_those_of_the_file_and_concerns_whom_it_gives_something() {
    let file = and_builtin(vec![rule("back", "file")]);
    let bench = Bench::new(&file).await;
    for name in ["front", "back"] {
        bench.served(name).await;
    }
    let session = bench.session();
    let edited = bench.admin(set(rule("front", "more"))).await.unwrap();
    assert!(edited.waits.is_none());
    let both = and_builtin(vec![rule("back", "file"), rule("front", "more")]);
    assert_eq!(
        (edited.changed.revision, edited.changed.withdrawn),
        (revision(&both), 0)
    );
    assert_eq!(bench.in_force(), revision(&both));
    let pods = ["front".to_owned()].into_iter().collect();
    assert_eq!(session.next_affected().await, Some(Affected::Pods(pods)));
    assert_eq!(
        bench.origins(),
        named(&[("file", "file"), ("more", "admin"), ("builtin", "builtin")])
    );
    assert_eq!(bench.audited()[1..], [Bench::change(ADMIN, &both, 0)]);
    // The same again changes nothing, and the file stands as it is.
    bench.admin(set(rule("front", "more"))).await.unwrap();
    bench.hangup().await;
    assert_eq!(bench.audited().len(), 2);
    let deleted = bench.admin(delete("more")).await.unwrap();
    assert_eq!(deleted.changed.revision, revision(&file));
    assert_eq!(bench.audited()[2..], [Bench::change(ADMIN, &file, 0)]);
}

#[tokio::test(start_paused = true)]
async fn one_name_is_one_rule_and_that_of_its_source() {
    let bench = Bench::new(&and_builtin(vec![rule("back", "file")])).await;
    let refused = |edited: Result<Edited, NotEdited>| edited.unwrap_err().to_string();
    let told = [
        (set(rule("front", "file")), "change it there"),
        (delete("file"), "remove it there"),
        (delete("builtin"), "builtin_rule"),
        (set(rule("front", "builtin")), "belongs to the built-in rule"),
        (delete("none"), "no admin has set"),
        (set(rule("front", "a name")), "a name has 1 to 128"),
        (
            Edit::Set {
                rule: Box::new(rule("front", "more")),
                before: Some("none".to_owned()),
            },
            "no admin has set a rule `none`",
        ),
    ];
    let before = bench.in_force();
    for (edit, why) in told {
        let said = refused(bench.admin(edit).await);
        assert!(said.contains(why), "{said}");
    }
    let mut long = rule("front", "long");
    long.ttl = Some(signet_runtime::config::HumanDuration::new(2 * HOUR));
    let said = refused(bench.admin(set(long)).await);
    assert!(said.contains("rule `long`") && said.contains("3600 s"), "{said}");
    assert_eq!(bench.in_force(), before);
    assert_eq!((bench.audited().len(), bench.set().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn rules_of_admins_have_an_order_and_one_gives_way_to_another_of_its_name() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    for name in ["a", "b"] {
        bench.admin(set(rule("front", name))).await.unwrap();
    }
    let mut first = rule("back", "c");
    let before_b = |rule: &IdentityRuleConfig| Edit::Set {
        rule: Box::new(rule.clone()),
        before: Some("b".to_owned()),
    };
    bench.admin(before_b(&first)).await.unwrap();
    assert_eq!(bench.set(), ["a", "c", "b"]);
    first.spiffe_id = Some("/other".to_owned());
    bench.admin(set(first.clone())).await.unwrap();
    assert_eq!(bench.set(), ["a", "c", "b"]);
    let all = and_builtin(vec![rule("front", "a"), first, rule("front", "b")]);
    assert_eq!(bench.in_force(), revision(&all));
}

#[tokio::test(start_paused = true)]
async fn what_withdraws_more_than_the_bound_waits_and_is_kept_over_a_restart() {
    let file = and_builtin(vec![]);
    let mut bench = Bench::new(&file).await;
    for name in ["a", "b", "c"] {
        bench.served(name).await;
    }
    let mut no_one = rule("x", "none");
    (no_one.spiffe_id, no_one.deny) = (None, true);
    no_one.matching.service_accounts = vec!["a".into(), "b".into(), "c".into()];
    let edited = bench.admin(set(no_one.clone())).await.unwrap();
    let waits = edited.waits.unwrap();
    assert_eq!(
        (waits.withdrawn.count, edited.changed.revision),
        (3, revision(&file))
    );
    assert_eq!(bench.in_force(), revision(&file));
    for _ in 0..2 {
        bench.restart(&file).await;
        assert_eq!(bench.in_force(), revision(&file));
        sleep(SOON).await;
        assert_eq!(bench.waiting().unwrap().rules.revision(), waits.rules.revision());
        assert_eq!(bench.set(), ["none"]);
    }
    let confirmed = bench
        .live()
        .confirm(waits.rules.revision(), ADMIN.to_owned())
        .await;
    assert_eq!(confirmed.unwrap().withdrawn, 3);
    assert_eq!(bench.audited().last().unwrap().0, ADMIN);
    bench.restart(&file).await;
    assert_eq!(bench.in_force(), revision(&and_builtin(vec![no_one])));
    assert!(matches!(bench.live().standing().source, OfSource::InForce));
    assert_eq!(
        bench.origins(),
        named(&[("none", "admin"), ("builtin", "builtin")])
    );
    // Taken back before it is confirmed, nothing waits.
    let back = bench.admin(delete("none")).await.unwrap();
    assert_eq!(
        (back.changed.revision, back.waits.is_none()),
        (revision(&file), true)
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_taken_back_by_whoever_deletes_it() {
    let file = and_builtin(vec![]);
    let bench = Bench::new(&file).await;
    for name in ["a", "b", "c"] {
        bench.served(name).await;
    }
    let mut deny = rule("a", "none");
    (deny.spiffe_id, deny.deny) = (None, true);
    deny.matching.service_accounts = vec!["a".into(), "b".into(), "c".into()];
    bench.admin(set(deny)).await.unwrap();
    assert!(bench.waiting().is_some());
    bench.admin(delete("none")).await.unwrap();
    assert!(bench.waiting().is_none());
    assert!(bench.set().is_empty());
    assert_eq!(bench.audited().len(), 1, "nothing was ever in force");
}

#[tokio::test(start_paused = true)]
async fn edits_of_the_file_leave_the_admins_rules_and_a_name_of_both_is_told() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    bench.admin(set(rule("front", "more"))).await.unwrap();
    let other = and_builtin(vec![rule("back", "file")]);
    bench.edit(&other).await;
    let both = and_builtin(vec![rule("back", "file"), rule("front", "more")]);
    assert_eq!(bench.in_force(), revision(&both));
    let clash = and_builtin(vec![rule("back", "more")]);
    bench.edit(&clash).await;
    let problem = bench.problem().unwrap();
    assert!(problem.contains("rule delete more"), "{problem}");
    assert_eq!(bench.in_force(), revision(&both));
    sleep(SOON).await;
    bench.admin(delete("more")).await.unwrap();
    sleep(SOON).await;
    assert_eq!(bench.in_force(), revision(&clash), "the file is looked at again");
    assert_eq!(
        bench.origins(),
        named(&[("more", "file"), ("builtin", "builtin")])
    );
}

/// Between two processes as well: the start goes on by what was accepted.
#[tokio::test(start_paused = true)]
async fn a_start_with_a_name_of_both_goes_on_by_what_was_accepted() {
    let mut bench = Bench::new(&and_builtin(vec![])).await;
    bench.admin(set(rule("front", "more"))).await.unwrap();
    let accepted = bench.in_force();
    let clash = and_builtin(vec![rule("back", "more")]);
    bench.write(&clash);
    bench.restart(&clash).await;
    assert_eq!(bench.in_force(), accepted);
    assert!(bench.problem().unwrap().contains("rule delete more"));
    assert_eq!(bench.metric("rules_unusable"), "1");
    assert_eq!(
        bench.origins(),
        named(&[("more", "admin"), ("builtin", "builtin")])
    );
    bench.admin(delete("more")).await.unwrap();
    sleep(SOON).await;
    assert_eq!(bench.in_force(), revision(&clash));
}

/// A rule moves into the file: nobody gets anything else, and from then on it is the file's.
#[tokio::test(start_paused = true)]
async fn a_rule_that_moves_into_the_file_changes_nothing_but_its_source() {
    let mut bench = Bench::new(&and_builtin(vec![])).await;
    bench.admin(set(rule("front", "more"))).await.unwrap();
    let moved = and_builtin(vec![rule("front", "more")]);
    bench.edit(&moved).await;
    assert!(bench.problem().is_some());
    // Deleted it is gone until the file is looked at again; where that would hurt, the file is edited while the server is down.
    bench.admin(delete("more")).await.unwrap();
    sleep(SOON).await;
    assert_eq!(bench.in_force(), revision(&moved));
    bench.restart(&moved).await;
    assert_eq!(
        bench.origins(),
        named(&[("more", "file"), ("builtin", "builtin")])
    );
}

#[tokio::test(start_paused = true)]
async fn beside_a_file_that_cannot_be_used_small_edits_are_in_force_and_large_ones_refused() {
    let file = and_builtin(vec![rule("back", "file")]);
    let bench = Bench::new(&file).await;
    for name in ["a", "b", "c"] {
        bench.served(name).await;
    }
    fs::write(bench.path(), "x").unwrap();
    bench.hangup().await;
    bench.admin(set(rule("front", "more"))).await.unwrap();
    let both = and_builtin(vec![rule("back", "file"), rule("front", "more")]);
    assert_eq!(bench.in_force(), revision(&both));
    assert!(bench.problem().is_some(), "the file is as it was");
    let mut deny = rule("a", "none");
    (deny.spiffe_id, deny.deny) = (None, true);
    deny.matching.service_accounts = vec!["a".into(), "b".into(), "c".into()];
    let refused = bench.admin(set(deny)).await.unwrap_err().to_string();
    assert!(refused.contains("mend the file first"), "{refused}");
    assert_eq!(bench.set(), ["more"]);
    bench.write(&file);
    sleep(SOON).await;
    assert!(bench.problem().is_none());
    assert_eq!(bench.in_force(), revision(&both));
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_the_store_does_not_take_is_nowhere() {
    let file = and_builtin(vec![]);
    let mut bench = Bench::new(&file).await;
    bench
        .store
        .rules_failures
        .store(1, std::sync::atomic::Ordering::SeqCst);
    let refused = bench.admin(set(rule("front", "more"))).await.unwrap_err();
    assert!(matches!(refused, NotEdited::Store(_)), "{refused}");
    assert_eq!((bench.in_force(), bench.set().len()), (revision(&file), 0));
    bench.restart(&file).await;
    assert_eq!((bench.in_force(), bench.set().len()), (revision(&file), 0));
}

#[tokio::test(start_paused = true)]
async fn what_admins_have_set_and_cannot_be_read_is_neither_lost_nor_written_over() {
    let file = and_builtin(vec![]);
    let mut bench = Bench::new(&file).await;
    let of_tomorrow = r#"{"rules":[{"rule":{"name":"r","of_tomorrow":1},"author":"uid:7","set_at":0}]}"#;
    let kept = RulesToKeep {
        accepted: None,
        of_admins: Some(of_tomorrow.to_owned()),
    };
    bench.store.keep_rules(kept, vec![]).await.unwrap();
    bench.restart(&file).await;
    sleep(SOON).await;
    assert!(bench.problem().unwrap().contains("another version"));
    bench.admin(set(rule("front", "more"))).await.unwrap_err();
    assert_eq!(
        bench.store.admin_rules().await.unwrap().as_deref(),
        Some(of_tomorrow)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_tells_what_would_change_and_changes_nothing() {
    let file = and_builtin(vec![]);
    let bench = Bench::new(&file).await;
    for name in ["a", "b"] {
        bench.served(name).await;
    }
    for (name, account) in [("early", "a"), ("late", "late")] {
        let known = AttestedPod {
            cluster: "dev".to_owned(),
            service_account: account.to_owned(),
            ..pod(name)
        };
        bench.attestor.add_pod(name, known);
    }
    let effect = async |edit: Edit| {
        let candidate = bench.live().tried(edit).await.unwrap();
        let effect = candidate.effect(bench.store.as_ref(), bench.attestor.clone(), at(0));
        effect.await.unwrap()
    };
    let mut more = rule("a", "more");
    more.matching.service_accounts = vec!["a".into(), "late".into()];
    let more = effect(set(more)).await;
    assert_eq!((more.given.count, more.withdrawn.count), (2, 0));
    let holders: Vec<_> = more
        .given
        .examples
        .iter()
        .map(|one| one.holder.as_str())
        .collect();
    assert_eq!(
        holders.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["pod shop/early-0", "pod shop/late-0"])
    );
    let mut deny = rule("b", "none");
    (deny.spiffe_id, deny.deny) = (None, true);
    let none = effect(set(deny)).await;
    assert_eq!((none.given.count, none.withdrawn.count), (0, 1));
    assert_eq!(none.withdrawn.examples[0].holder, "pod shop/b-name");
    bench.live().tried(set(rule("a", "a name"))).await.unwrap_err();
    assert_eq!(bench.in_force(), revision(&file));
    assert_eq!((bench.audited().len(), bench.set().len()), (1, 0));
    assert_eq!(bench.store.admin_rules().await.unwrap(), None);
}
