//! Rules that admins set beside those of the file.

use std::collections::BTreeSet;

use serde_json::Value;

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

    /// What the log says of edits.
    fn edits(&self) -> Vec<Value> {
        let events = self.store.audit_events();
        let lines = events
            .iter()
            .map(|event| serde_json::from_str(&event.to_json()).unwrap());
        lines
            .filter(|line: &Value| line["event"] != "rules_changed")
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
    // Others go on beside those of the file that are in force.
    bench.admin(set(rule("front", "other"))).await.unwrap();
    bench.admin(delete("other")).await.unwrap();
    assert_eq!(bench.in_force(), revision(&both));
    sleep(SOON).await;
    let deleted = bench.admin(delete("more")).await.unwrap();
    assert_eq!(
        deleted.changed.revision,
        revision(&clash),
        "the file's counts at once"
    );
    assert!(bench.problem().is_none());
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
    assert_eq!(bench.in_force(), revision(&clash));
    assert_eq!(bench.metric("rules_unusable"), "0");
}

/// Rules move into the file: nobody gets anything else at any moment, and from then on they are the file's.
#[tokio::test(start_paused = true)]
async fn rules_that_move_into_the_file_change_nothing_but_their_source() {
    let mut bench = Bench::new(&and_builtin(vec![])).await;
    for name in ["more", "still"] {
        bench.admin(set(rule("front", name))).await.unwrap();
    }
    let moved = and_builtin(vec![rule("front", "more"), rule("front", "still")]);
    let origins =
        |of_more, of_still| named(&[("more", of_more), ("still", of_still), ("builtin", "builtin")]);
    bench.edit(&moved).await;
    assert!(bench.problem().is_some());
    let before = bench.audited().len();
    bench.admin(delete("more")).await.unwrap();
    assert_eq!(
        (bench.in_force(), bench.origins()),
        (revision(&moved), origins("file", "admin"))
    );
    assert!(bench.problem().is_some(), "the other one is in its way");
    bench.admin(delete("still")).await.unwrap();
    assert_eq!(
        (bench.in_force(), bench.origins()),
        (revision(&moved), origins("file", "file"))
    );
    assert!(bench.problem().is_none() && bench.set().is_empty());
    assert_eq!(bench.audited().len(), before, "there was never another revision");
    bench.restart(&moved).await;
    assert_eq!(bench.origins(), origins("file", "file"));
}

/// Who was to be told and was not is told by the next process, whatever is moved meanwhile.
#[tokio::test(start_paused = true)]
async fn a_rule_that_moves_leaves_it_open_who_was_told() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    bench.admin(set(rule("front", "more"))).await.unwrap();
    let rules = bench.live().current().borrow().clone();
    let mut kept: Value =
        serde_json::from_str(&bench.store.accepted_rules().await.unwrap().unwrap()).unwrap();
    kept["untold_since"] = json!(1_800_000_000_000_i64);
    let kept = accepted_as(&kept.to_string());
    bench.store.keep_rules(kept, vec![]).await.unwrap();
    accepted::moved(bench.store.as_ref(), &rules).await.unwrap();
    let kept = bench.store.accepted_rules().await.unwrap().unwrap();
    assert!(
        accepted::Accepted::read(&kept).unwrap().untold_since().is_some(),
        "{kept}"
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

/// What they deny would be given by the file alone.
#[tokio::test(start_paused = true)]
async fn without_the_rules_of_admins_no_server_starts() {
    let file = and_builtin(vec![]);
    let mut bench = Bench::new(&file).await;
    let of_tomorrow = |name: &str| {
        json!({ "rules": [{ "rule": { "name": name, "of_tomorrow": 1 }, "author": "uid:7", "set_at": 0 }] })
            .to_string()
    };
    // The same release has kept the two.
    let accepted =
        json!({ "revision": "0123456789abcdef", "rules": { "rules": [{ "name": "r", "of_tomorrow": 1 }] } });
    for (accepted, of_admins) in [
        (accepted.to_string(), of_tomorrow("r")),
        ("x".to_owned(), "x".to_owned()),
    ] {
        bench.end().await;
        let kept = RulesToKeep {
            accepted: Some(accepted),
            of_admins: Some(of_admins.clone()),
        };
        bench.store.keep_rules(kept, vec![]).await.unwrap();
        let refused = bench.started(&file).await.err().unwrap().to_string();
        assert!(refused.contains("start that one again"), "{refused}");
        let set = bench.store.admin_rules().await.unwrap();
        assert_eq!(set, Some(of_admins), "not written over");
    }
}

/// The file has come to clash with them, and what was accepted means nothing to this release.
#[tokio::test(start_paused = true)]
async fn where_only_the_file_alone_could_be_used_no_server_starts() {
    let mut bench = Bench::new(&and_builtin(vec![])).await;
    bench.admin(set(rule("front", "more"))).await.unwrap();
    bench.end().await;
    let nothing = accepted_as("{}");
    bench.store.keep_rules(nothing, vec![]).await.unwrap();
    let clash = and_builtin(vec![rule("back", "more")]);
    let refused = bench.started(&clash).await.err().unwrap().to_string();
    assert!(
        refused.contains("rule `more`") && refused.contains("change the file"),
        "{refused}"
    );
    bench.start(&and_builtin(vec![])).await;
    assert_eq!(
        bench.origins(),
        named(&[("more", "admin"), ("builtin", "builtin")])
    );
}

/// Nobody has seen a pod: an empty cluster would lose nothing and get nothing.
#[tokio::test(start_paused = true)]
async fn edits_wait_for_the_pods_of_a_start_and_not_for_ever() {
    let file = and_builtin(vec![]);
    let mut bench = Bench::new(&file).await;
    bench.attestor.set_failure(Some("the pods are being listed"));
    bench.restart(&file).await;
    let edit = || set(rule("front", "more"));
    for refused in [
        bench.admin(edit()).await.err(),
        bench.live().tried(edit()).await.err(),
    ] {
        assert!(matches!(refused, Some(NotEdited::NotYet)), "{refused:?}");
    }
    sleep(PODS_KNOWN_WITHIN).await;
    bench.admin(edit()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rule_comes_before_another_one() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    let edit = || Edit::Set {
        rule: Box::new(rule("front", "more")),
        before: Some("more".to_owned()),
    };
    for known in [false, true] {
        let refused = bench.admin(edit()).await.unwrap_err();
        assert!(
            matches!(refused, NotEdited::BeforeItself(_)),
            "{known}: {refused}"
        );
        bench.admin(set(rule("front", "more"))).await.unwrap();
    }
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
    // Both have the built-in one, and would have it as their second.
    assert_eq!(more.given.defaults, 2);
    assert_eq!(more.given.default_example.unwrap().spiffe_id.path(), "/more");
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

/// Who it was, what it was before and what it is, in the transaction that changes it; and nothing where nothing was changed.
#[tokio::test(start_paused = true)]
async fn the_log_says_what_was_set_and_deleted() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    let other = IdentityRuleConfig {
        spiffe_id: Some("/other".to_owned()),
        ..rule("front", "more")
    };
    let mut long = rule("front", "long");
    long.matching.service_accounts = (0..5_000).map(|n| format!("account-{n}")).collect();
    for edit in [
        set(rule("front", "more")),
        set(rule("front", "more")),
        set(other.clone()),
        set(long),
        delete("more"),
    ] {
        bench.admin(edit).await.unwrap();
    }
    let edits = bench.edits();
    let event = |line: &Value| {
        (
            line["event"].as_str().unwrap().to_owned(),
            line["name"].as_str().unwrap().to_owned(),
        )
    };
    let told: Vec<_> = edits.iter().map(event).collect();
    let wanted = [
        ("rule_set", "more"),
        ("rule_set", "more"),
        ("rule_set", "long"),
        ("rule_deleted", "more"),
    ];
    assert_eq!(
        told,
        wanted.map(|(event, name)| (event.to_owned(), name.to_owned()))
    );
    assert!(
        edits
            .iter()
            .all(|line| line["author"] == ADMIN && line["waits"] == false)
    );
    assert_eq!(
        (&edits[0]["rule"]["spiffe_id"], &edits[0]["replaced"]),
        (&json!("/more"), &Value::Null)
    );
    assert_eq!(edits[1]["rule"]["spiffe_id"], "/other");
    assert_eq!(edits[1]["replaced"]["spiffe_id"], "/more");
    assert_eq!(edits[1]["rule"]["match"]["service_accounts"], json!(["front"]));
    assert!(
        edits[2]["rule"]["bytes"].as_u64().unwrap() > 65_536,
        "{}",
        edits[2]
    );
    assert_eq!(
        (&edits[3]["rule"]["spiffe_id"], &edits[3]["set_by"]),
        (&json!("/other"), &json!(ADMIN))
    );
}
