//! The owner of the rules, on paused time, over real files.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use futures_util::FutureExt as _;
use serde_json::json;
use signet_runtime::clock::FakeClock;
use tokio::time::sleep;

use super::{
    owner::{EDITS, PODS_KNOWN_WITHIN},
    worker::LOOK,
    *,
};
use crate::{
    agents::{Affected, AgentNode, Session},
    attest::{AttestedPod, fake::FakeAttestor},
    audit::AuditLog,
    audit_event::AuditAction,
    rules::{IdentityRuleConfig, RuleScope, WrittenRules},
    store::{
        KeptRules as _, Ledger as _, NewIssuance, RulesToKeep,
        memory::MemoryStore,
        suite::fixture::{HOUR, at, issuance, trust_domain},
    },
};

mod editing;
mod pace;
mod weighing;

/// Long enough for a file that stands still to be found, and for the pace at which it is judged.
const SOON: Duration = Duration::from_secs(31);

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
    attestor: Arc<FakeAttestor>,
    agents: Arc<Agents>,
    metrics: Arc<Metrics>,
    telemetry: signet_runtime::telemetry::Metrics,
    clock: Arc<TrustedClock>,
    told: watch::Sender<()>,
    drain: Drain,
    rules: Option<LiveRules>,
}

fn scope() -> RuleScope {
    RuleScope {
        trust_domain: trust_domain(),
        clusters: vec!["c".to_owned()],
        builtin_rule: true,
        same_identity: false,
    }
}

/// A rule that gives `/<name>` to one service account of `shop`.
fn rule(account: &str, name: &str) -> IdentityRuleConfig {
    let mut rule = IdentityRuleConfig {
        name: name.to_owned(),
        spiffe_id: Some(format!("/{name}")),
        ..IdentityRuleConfig::default()
    };
    rule.matching.namespaces = vec!["shop".to_owned()];
    rule.matching.service_accounts = vec![account.to_owned()];
    rule
}

/// Rules beside the built-in one.
fn and_builtin(rules: Vec<IdentityRuleConfig>) -> WrittenRules {
    WrittenRules {
        rules,
        builtin_rule: true,
        same_identity: false,
    }
}

/// Rules without the built-in one.
fn alone(rules: Vec<IdentityRuleConfig>) -> WrittenRules {
    WrittenRules {
        builtin_rule: false,
        ..and_builtin(rules)
    }
}

fn text(rules: &WrittenRules) -> String {
    serde_json::to_string(rules).unwrap()
}

fn compiled(rules: &WrittenRules) -> Arc<RuleSet> {
    Arc::new(RuleSet::compile_written(&scope(), rules.clone()).unwrap())
}

fn revision(rules: &WrittenRules) -> u64 {
    compiled(rules).revision()
}

fn accepted_as(body: &str) -> RulesToKeep {
    RulesToKeep {
        accepted: Some(body.to_owned()),
        of_admins: None,
    }
}

fn pod(name: &str) -> AttestedPod {
    AttestedPod {
        cluster: "c".to_owned(),
        cluster_uid: "cluster".to_owned(),
        namespace: "shop".to_owned(),
        service_account: name.to_owned(),
        pod_name: format!("{name}-0"),
        pod_uid: name.to_owned(),
        node_name: "node-1".to_owned(),
        node_uid: "node-uid-1".to_owned(),
        labels: Arc::default(),
        namespace_labels: None,
        jti: String::new(),
        expires: SystemTime::UNIX_EPOCH,
        terminating: false,
        outage: false,
    }
}

impl Bench {
    /// A server whose file has these rules, with a bound of two; nothing is kept yet.
    async fn new(rules: &WrittenRules) -> Self {
        let store = MemoryStore::new(trust_domain());
        let audit = AuditLog::start(store.clone());
        let telemetry = signet_runtime::telemetry::Metrics::new("signet_server");
        let mut bench = Self {
            folder: signet_testkit::folder(),
            attestor: Arc::new(FakeAttestor::new()),
            agents: Arc::new(Agents::new(store.clone(), audit)),
            metrics: Metrics::register(&telemetry),
            telemetry,
            clock: Arc::new(TrustedClock::agreed(Arc::new(FakeClock::new(at(0))))),
            told: watch::Sender::default(),
            drain: Drain::new(),
            store,
            rules: None,
        };
        bench.write(rules);
        bench.start(rules).await;
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rules.json")
    }

    fn write(&self, rules: &WrittenRules) {
        fs::write(self.path(), text(rules)).unwrap();
    }

    /// The start of a process that has read these rules.
    async fn start(&mut self, rules: &WrittenRules) {
        self.rules = Some(self.started(rules).await.unwrap());
    }

    async fn started(&self, rules: &WrittenRules) -> Result<LiveRules, NotStarted> {
        let check = |text: &str| {
            let rules = serde_json::from_str(text).map_err(|error| error.to_string())?;
            Ok(Checked {
                rules,
                restart_for: Vec::new(),
                warnings: Vec::new(),
            })
        };
        let parts = LiveRulesParts {
            source: Source::new(&self.path(), check),
            first: compiled(rules),
            confirm_above: 2,
            longest_ttl: HOUR,
            store: self.store.clone(),
            attestor: self.attestor.clone(),
            agents: self.agents.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            reread: Reread::by(self.told.subscribe()),
            drain: self.drain.clone(),
        };
        LiveRules::start(parts).await
    }

    /// Ends the process, and starts the next one.
    async fn restart(&mut self, rules: &WrittenRules) {
        self.end().await;
        self.start(rules).await;
    }

    async fn end(&mut self) {
        assert!(self.drain.finish(HOUR).await);
        self.drain = Drain::new();
    }

    fn live(&self) -> &LiveRules {
        self.rules.as_ref().unwrap()
    }

    fn in_force(&self) -> u64 {
        self.live().current().borrow().revision()
    }

    /// The rules that the store has.
    async fn kept(&self) -> Option<WrittenRules> {
        let body = self.store.accepted_rules().await.unwrap();
        body.map(|body| accepted::Accepted::read(&body).unwrap().rules)
    }

    /// SIGHUP, and what comes of it.
    async fn hangup(&self) {
        self.told.send_replace(());
        sleep(SOON).await;
    }

    async fn edit(&self, rules: &WrittenRules) {
        self.write(rules);
        self.hangup().await;
    }

    fn waiting(&self) -> Option<Arc<Waiting>> {
        match self.live().standing().source {
            OfSource::Waiting(waiting) => Some(waiting),
            _ => None,
        }
    }

    fn problem(&self) -> Option<String> {
        match self.live().standing().source {
            OfSource::Unusable(problem) => Some(problem),
            _ => None,
        }
    }

    /// A pod under the account of its own name, which holds a certificate by the built-in rule.
    async fn served(&self, name: &str) {
        self.attestor.add_pod(name, pod(name));
        let item = issuance(&format!("/ns/shop/sa/{name}"), name, at(0));
        self.record(item).await;
    }

    async fn record(&self, item: NewIssuance) {
        let recorded = self.store.issue(vec![item], at(0)).await.unwrap();
        assert!(recorded.iter().all(Result::is_ok));
    }

    fn session(&self) -> Session {
        self.agents.connect(&AgentNode {
            spiffe_id: SpiffeId::agent(&trust_domain(), "c", "node-uid-1").unwrap(),
            cluster: "c".to_owned(),
            node_name: "node-1".to_owned(),
            node_uid: "node-uid-1".to_owned(),
        })
    }

    fn metric(&self, name: &str) -> String {
        let text = self.telemetry.encode();
        let name = format!("signet_server_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap().to_owned()
    }

    /// Author, revision, and how many lost something, of each change.
    fn audited(&self) -> Vec<(String, String, u64)> {
        let change = |action: &AuditAction| match action {
            AuditAction::RulesChanged {
                author,
                revision,
                withdrawn,
                ..
            } => Some((author.clone(), revision.clone(), *withdrawn)),
            _ => None,
        };
        let events = self.store.audit_events();
        events.iter().filter_map(|event| change(event.action())).collect()
    }

    fn change(author: &str, rules: &WrittenRules, withdrawn: u64) -> (String, String, u64) {
        (
            author.to_owned(),
            Revision(revision(rules)).to_string(),
            withdrawn,
        )
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_in_force_after_a_hangup_and_concerns_whom_it_changes_something_for() {
    let before = and_builtin(vec![]);
    let bench = Bench::new(&before).await;
    for name in ["front", "back"] {
        bench.served(name).await;
    }
    let session = bench.session();
    let more = and_builtin(vec![rule("front", "more")]);
    bench.edit(&more).await;
    assert_eq!(bench.in_force(), revision(&more));
    let pods = ["front".to_owned()].into_iter().collect();
    assert_eq!(session.next_affected().await, Some(Affected::Pods(pods)));
    assert_eq!(bench.kept().await, Some(more.clone()));
    assert_eq!(
        bench.audited(),
        [
            Bench::change("start", &before, 0),
            Bench::change("source", &more, 0)
        ]
    );
    bench.hangup().await;
    assert_eq!(bench.audited().len(), 2, "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_counts_once_it_stands_still() {
    let first = and_builtin(vec![]);
    let bench = Bench::new(&first).await;
    sleep(SOON).await;
    for round in 0..10 {
        // Another one at each look.
        bench.write(&and_builtin(vec![rule("front", &format!("r{round}"))]));
        sleep(LOOK).await;
    }
    assert_eq!(bench.in_force(), revision(&first));
    sleep(2 * LOOK).await;
    assert_eq!(
        bench.in_force(),
        revision(&and_builtin(vec![rule("front", "r9")]))
    );
    assert_eq!(bench.audited().len(), 2);
}

/// The rules are in force, and the process ends before anybody was named to whom that matters.
#[tokio::test(start_paused = true)]
async fn an_edit_that_a_process_did_not_live_to_tell_is_told_by_the_next() {
    let before = and_builtin(vec![]);
    let mut bench = Bench::new(&before).await;
    bench.served("front").await;
    let more = and_builtin(vec![rule("front", "more")]);
    bench.edit(&more).await;
    bench.agents = Arc::new(Agents::new(
        bench.store.clone(),
        AuditLog::start(bench.store.clone()),
    ));
    bench.restart(&more).await;
    assert!(
        bench.session().next_affected().now_or_never().is_none(),
        "it was told"
    );

    let change = accepted::Change {
        author: "source",
        previous: None,
        withdrawn: 0,
        untold_since: Some(at(0)),
        edited: None,
    };
    accepted::keep(bench.store.as_ref(), &compiled(&more), change, at(0))
        .await
        .unwrap();
    bench.restart(&more).await;
    assert_eq!(bench.session().next_affected().await, Some(Affected::All));
    let again = bench.session();
    assert!(again.next_affected().now_or_never().is_none(), "once");
}

/// As kubelet writes a ConfigMap: the file is a link into a folder that is itself reached over a link, and that one changes.
#[tokio::test(start_paused = true)]
async fn a_config_map_that_is_swapped_is_followed() {
    let first = and_builtin(vec![]);
    let bench = Bench::new(&first).await;
    let folder = bench.folder.path();
    let publish = |name: &str, rules: &WrittenRules| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("rules.json"), text(rules)).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..1", &first);
    fs::remove_file(bench.path()).unwrap();
    symlink("..data/rules.json", bench.path()).unwrap();
    sleep(SOON).await;
    assert_eq!(bench.in_force(), revision(&first));
    let second = and_builtin(vec![rule("front", "more")]);
    publish("..2", &second);
    fs::remove_dir_all(folder.join("..1")).unwrap();
    sleep(SOON).await;
    assert_eq!(bench.in_force(), revision(&second));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_changes_nothing_and_is_read_again_when_it_changes() {
    let first = and_builtin(vec![rule("front", "more")]);
    let bench = Bench::new(&first).await;
    sleep(SOON).await;
    let path = bench.path();
    let spoilings: [(&str, &dyn Fn()); 5] = [
        ("expected value", &|| fs::write(&path, "x").unwrap()),
        ("no such file", &|| fs::remove_file(&path).unwrap()),
        ("directory", &|| fs::create_dir(&path).unwrap()),
        ("no file", &|| {
            fs::remove_dir(&path).unwrap();
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::unistd::mkfifo(&path, mode).unwrap();
        }),
        ("rule `builtin`", &|| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, text(&and_builtin(vec![rule("x", "builtin")]))).unwrap();
        }),
    ];
    for (what, spoil) in spoilings {
        spoil();
        sleep(SOON).await;
        let problem = bench.problem().unwrap_or_default();
        assert!(problem.contains(what), "{what}: {problem}");
        assert_eq!(bench.in_force(), revision(&first), "{what}");
        assert_eq!(bench.metric("rules_unusable"), "1");
    }
    let second = and_builtin(vec![]);
    bench.write(&second);
    sleep(SOON).await;
    assert_eq!(bench.in_force(), revision(&second));
    assert_eq!(bench.metric("rules_unusable"), "0");
    assert_eq!(bench.audited().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn rules_that_live_longer_than_the_authorities_were_made_for_need_a_restart() {
    let first = and_builtin(vec![]);
    let bench = Bench::new(&first).await;
    let mut long = rule("front", "more");
    long.ttl = Some(signet_runtime::config::HumanDuration::new(2 * HOUR));
    bench.edit(&and_builtin(vec![long])).await;
    assert!(bench.problem().unwrap().contains("restart"));
    assert_eq!(bench.in_force(), revision(&first));
}

#[tokio::test(start_paused = true)]
async fn rules_that_withdraw_more_than_the_bound_wait_until_exactly_they_are_confirmed() {
    let first = and_builtin(vec![]);
    let bench = Bench::new(&first).await;
    for name in ["a", "b", "c"] {
        bench.served(name).await;
    }
    let session = bench.session();
    let none = alone(vec![]);
    bench.edit(&none).await;
    assert_eq!(bench.in_force(), revision(&first));
    let waiting = bench.waiting().unwrap();
    assert_eq!(waiting.rules.revision(), revision(&none));
    assert_eq!(waiting.withdrawn.count, 3);
    assert_eq!(bench.metric("rules_waiting_withdrawals"), "3");

    // Another edit comes while this one waits.
    let only_a = alone(vec![rule("a", "only")]);
    bench.edit(&only_a).await;
    let refused = bench.live().confirm(revision(&none), "uid:0".to_owned()).await;
    let text_of_refusal = refused.unwrap_err().to_string();
    let newest = Revision(revision(&only_a));
    assert!(text_of_refusal.contains(&newest.to_string()), "{text_of_refusal}");
    assert_eq!(bench.in_force(), revision(&first));

    // Meanwhile one of the pods goes.
    bench.attestor.set_back(&["b"]);
    let changed = bench.live().confirm(newest.0, "uid:0".to_owned()).await.unwrap();
    assert_eq!((changed.revision, changed.withdrawn), (newest.0, 2));
    assert_eq!(bench.in_force(), newest.0);
    assert!(bench.waiting().is_none());
    assert_eq!(bench.metric("rules_waiting_withdrawals"), "0");
    // A pod that the watch does not show may be one that it shows in a moment.
    let pods = ["a", "b", "c"].map(str::to_owned).into_iter().collect();
    assert_eq!(session.next_affected().await, Some(Affected::Pods(pods)));
    let again = bench.live().confirm(newest.0, "uid:0".to_owned()).await;
    assert!(matches!(again, Err(NotConfirmed::NothingWaits)), "{again:?}");
    assert_eq!(
        bench.audited(),
        [
            Bench::change("start", &first, 0),
            Bench::change("uid:0", &only_a, 2)
        ]
    );
}

/// Whoever takes the edit back has nothing left to confirm, whether the file is as before or says nothing.
#[tokio::test(start_paused = true)]
async fn what_the_file_no_longer_says_waits_no_longer() {
    let first = and_builtin(vec![]);
    let bench = Bench::new(&first).await;
    for name in ["a", "b", "c"] {
        bench.served(name).await;
    }
    let none = alone(vec![]);
    for spoilt in [false, true] {
        bench.edit(&none).await;
        assert!(bench.waiting().is_some());
        if spoilt {
            fs::write(bench.path(), "x").unwrap();
        } else {
            bench.write(&first);
        }
        bench.hangup().await;
        assert!(bench.waiting().is_none());
        let refused = bench.live().confirm(revision(&none), "uid:0".to_owned()).await;
        assert!(matches!(refused, Err(NotConfirmed::NothingWaits)), "{refused:?}");
    }
    assert_eq!(bench.in_force(), revision(&first));
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_by_what_was_accepted_and_the_same_rules_wait_again() {
    let first = and_builtin(vec![]);
    let mut bench = Bench::new(&first).await;
    for name in ["a", "b", "c"] {
        bench.served(name).await;
    }
    let none = alone(vec![]);
    bench.edit(&none).await;
    for _ in 0..2 {
        bench.restart(&none).await;
        assert_eq!(bench.in_force(), revision(&first), "from the first moment");
        sleep(SOON).await;
        assert_eq!(bench.in_force(), revision(&first));
        assert_eq!(bench.waiting().unwrap().withdrawn.count, 3);
    }
    bench
        .live()
        .confirm(revision(&none), "uid:0".to_owned())
        .await
        .unwrap();
    bench.restart(&none).await;
    assert_eq!(bench.in_force(), revision(&none));
    sleep(SOON).await;
    assert!(matches!(bench.live().standing().source, OfSource::InForce));
}

/// An edit that a process has not seen is weighed like any other, once the pods are known.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_edited_between_two_processes_is_weighed_when_the_pods_are_known() {
    let first = and_builtin(vec![]);
    let mut bench = Bench::new(&first).await;
    for name in ["a", "b", "c"] {
        bench.served(name).await;
    }
    let others = and_builtin(vec![rule("a", "more")]);
    bench.write(&others);
    bench.attestor.set_failure(Some("the pods are being listed"));
    bench.restart(&others).await;
    sleep(PODS_KNOWN_WITHIN - Duration::from_secs(1)).await;
    assert_eq!(bench.in_force(), revision(&first));
    assert!(matches!(bench.live().standing().source, OfSource::NotWeighed));
    bench.attestor.set_failure(None);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.in_force(), revision(&others));
}

/// Of a pod that nobody can look at, the rule speaks that gave it its identity.
#[tokio::test(start_paused = true)]
async fn where_pods_are_not_known_a_rule_that_stands_is_enough_and_nothing_else() {
    let first = and_builtin(vec![]);
    let mut bench = Bench::new(&first).await;
    for name in ["a", "b", "c"] {
        bench
            .record(issuance(&format!("/ns/shop/sa/{name}"), name, at(0)))
            .await;
    }
    bench.attestor.set_unreachable();
    let more = and_builtin(vec![rule("a", "more")]);
    bench.write(&more);
    bench.restart(&more).await;
    sleep(PODS_KNOWN_WITHIN + SOON).await;
    assert_eq!(bench.in_force(), revision(&more));
    bench.edit(&alone(vec![rule("a", "more")])).await;
    assert_eq!(bench.waiting().unwrap().withdrawn.count, 3);
}

#[tokio::test(start_paused = true)]
async fn rules_that_the_store_does_not_take_are_not_in_force_and_tried_again() {
    let first = and_builtin(vec![]);
    let bench = Bench::new(&first).await;
    let more = and_builtin(vec![rule("a", "more")]);
    bench
        .store
        .rules_failures
        .store(2, std::sync::atomic::Ordering::SeqCst);
    bench.write(&more);
    bench.told.send_replace(());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.in_force(), revision(&first));
    assert!(bench.problem().unwrap().contains("disk full"));
    sleep(2 * SOON).await;
    assert_eq!(bench.in_force(), revision(&more));
}

/// What was accepted by another version, or damaged, or for clusters between which it would mix up identities.
#[tokio::test(start_paused = true)]
async fn what_was_accepted_and_means_nothing_gives_way_to_the_file() {
    let first = and_builtin(vec![]);
    let mut bench = Bench::new(&first).await;
    for kept in [
        "",
        "{}",
        r#"{"rules":[{"name":"r","of_tomorrow":1}],"builtin_rule":true,"same_identity":false}"#,
    ] {
        bench.store.keep_rules(accepted_as(kept), vec![]).await.unwrap();
        bench.restart(&first).await;
        assert_eq!(bench.in_force(), revision(&first));
        assert_eq!(bench.kept().await, Some(first.clone()));
    }
    // A rule for a cluster that is gone matches nobody, and is in force like the others.
    let mut of_a_cluster = rule("a", "gone");
    of_a_cluster.matching.clusters = vec!["gone".to_owned()];
    let kept =
        json!({ "revision": "0123456789abcdef", "rules": alone(vec![of_a_cluster]), "untold_since": null });
    bench
        .store
        .keep_rules(accepted_as(&kept.to_string()), vec![])
        .await
        .unwrap();
    bench.restart(&first).await;
    assert!(matches!(bench.live().standing().source, OfSource::NotWeighed));
    sleep(SOON).await;
    assert_eq!(bench.in_force(), revision(&first));
}
