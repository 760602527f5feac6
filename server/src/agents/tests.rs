use std::collections::HashSet;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;

use super::*;
use crate::{
    fixtures::trust_domain,
    store::{
        RevokedSvid,
        memory::MemoryStore,
        suite::fixture::{at, authority, of_agent, serial},
    },
};

fn agents() -> Arc<Agents> {
    let store = MemoryStore::new(trust_domain());
    let audit = AuditLog::start(store.clone());
    Arc::new(Agents::new(store, audit))
}

fn agent(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/{name}")).unwrap()
}

fn node(name: &str) -> AgentNode {
    AgentNode {
        spiffe_id: agent(name),
        cluster: "dev".to_owned(),
        node_name: format!("node-{name}"),
        node_uid: name.to_owned(),
    }
}

fn report(sequence: u64) -> Report {
    Report {
        sequence,
        confirmed: sequence,
        ..Report::default()
    }
}

/// Attests the agent of a node in the store.
async fn attest(agents: &Agents, name: &str, now: SystemTime) -> SpiffeId {
    let mut item = of_agent(name, now);
    item.workload.spiffe_id = agent(name);
    let recorded = agents.store.issue(vec![item], now).await.unwrap();
    recorded.into_iter().for_each(|row| drop(row.unwrap()));
    agents.attested(node(name));
    agent(name)
}

/// How many hold the bundle of sequence 4, of how many.
async fn spread(agents: &Agents, now: SystemTime) -> (usize, usize) {
    agents.refresh_spread(now).await.unwrap();
    let spread = agents.spread();
    let reports = spread.borrow();
    (reports.confirmed(4), reports.live())
}

/// Covers INV-8.
#[tokio::test]
async fn an_agent_is_waited_for_connected_or_not_and_over_a_restart() {
    let agents = agents();
    assert_eq!(spread(&agents, at(0)).await, (0, 0));
    attest(&agents, "a", at(0)).await;
    assert!(agents.is_spread_stale());
    assert_eq!(spread(&agents, at(0)).await, (0, 1), "it has not even connected");
    let session = agents.connect(&node("a"));
    session.report(report(4));
    attest(&agents, "b", at(1)).await;
    assert_eq!(spread(&agents, at(1)).await, (1, 2));
    session.end(at(2));
    agents.forget_gone(at(2) + Duration::from_secs(600));
    assert_eq!(spread(&agents, at(3)).await, (1, 2));

    let next = Agents::new(agents.store.clone(), agents.audit.clone());
    assert_eq!(spread(&next, at(4)).await, (1, 2), "nobody has spoken to it");
    next.connect(&node("b")).report(report(5));
    assert_eq!(spread(&next, at(5)).await, (2, 2));
    next.connect(&node("a")).report(report(3));
    assert_eq!(spread(&next, at(6)).await, (1, 2), "it has lost what it held");
}

/// A revocation changes no bundle: what thousands of agents report after it costs no transaction.
/// Covers INV-8.
#[tokio::test]
async fn what_is_stored_already_is_not_stored_again() {
    let store = MemoryStore::new(trust_domain());
    let agents = Agents::new(store.clone(), AuditLog::start(store.clone()));
    let mut sessions = Vec::new();
    for name in ["a", "b"] {
        attest(&agents, name, at(0)).await;
        sessions.push(agents.connect(&node(name)));
    }
    sessions.iter().for_each(|session| session.report(report(4)));
    assert_eq!(spread(&agents, at(1)).await, (2, 2));
    sessions.iter().for_each(|session| session.report(report(4)));
    assert!(!agents.is_spread_stale(), "nothing is to be stored");
    sessions[0].report(report(3));
    sessions[0].report(report(4));
    sessions[1].report(report(3));
    assert!(agents.is_spread_stale());
    assert_eq!(
        spread(&agents, at(2)).await,
        (1, 2),
        "the last word of each counts"
    );
    attest(&agents, "a", at(3)).await;
    sessions[0].report(report(4));
    assert_eq!(spread(&agents, at(4)).await, (1, 2));
}

#[tokio::test]
async fn open_streams_are_counted_by_their_key_exchange() {
    let agents = agents();
    let connect = |name, key_exchange| agents.connect(&node(name)).over(key_exchange);
    let first = connect("a", Some(KeyExchange::X25519));
    let _same = connect("a", Some(KeyExchange::X25519MlKem768));
    let other = connect("b", Some(KeyExchange::X25519MlKem768));
    let _unknown = connect("c", None);
    let counts = || agents.key_exchanges().map(|(_, count)| count);
    assert_eq!(counts(), [2, 0, 0, 0]);
    drop(first);
    other.end(at(0));
    assert_eq!(counts(), [1, 0, 0, 0]);
    let of = |name| agents.status(&agent(name)).unwrap().key_exchange;
    assert_eq!(of("a"), Some(KeyExchange::X25519MlKem768));
    assert_eq!((of("b"), of("c")), (None, None));
}

#[tokio::test]
async fn open_streams_are_counted_however_they_end() {
    let agents = agents();
    let [a, again, b, c] = ["a", "a", "b", "c"].map(|name| agents.connect(&node(name)));
    assert_eq!(agents.connected(), 3, "one for each agent");
    drop(a);
    assert_eq!(agents.connected(), 3, "it was over already");
    again.end(at(0));
    drop(b);
    assert_eq!(agents.connected(), 1);
    assert!(agents.status(&agent("a")).is_some() && agents.status(&agent("b")).is_none());
    let back = agents.connect(&node("a"));
    agents.forget_gone(at(600));
    assert_eq!(agents.connected(), 2);
    back.end(at(600));
    agents.forget_gone(at(1200));
    assert!(agents.status(&agent("a")).is_none());
    agents.pod_affected("dev", "node-a", "uid");
    agents.pod_affected("dev", "node-c", "uid");
    assert!(matches!(c.next_affected().await, Some(Affected::Pods(_))));
}

/// An agent whose stream broke before it was told hears of it when it is back, up to a day later.
#[tokio::test]
async fn what_an_agent_did_not_hear_is_kept_for_it() {
    let hour = |hours: u64| at(hours * 3600);
    for (away, kept) in [(1, true), (23, true), (26, false)] {
        let agents = agents();
        agents.connect(&node("a")).end(at(0));
        agents.pod_affected("dev", "node-a", "uid");
        agents.forget_gone(hour(1));
        assert!(agents.status(&agent("a")).is_none());
        agents.forget_gone(hour(away));
        let back = agents.connect(&node("a"));
        let heard = back.next_affected().now_or_never();
        assert_eq!(heard.is_some(), kept, "{away} h");
    }
}

/// Whoever is away for long hears of what concerned it meanwhile; who comes with a newer certificate, of what the stream before was to hear.
#[tokio::test]
async fn what_is_named_while_an_agent_is_away_is_not_lost() {
    let heard = |agents: &Agents| {
        let back = agents.connect(&node("a"));
        back.next_affected().now_or_never().flatten()
    };
    let agents = agents();
    agents.connect(&node("a")).end(at(0));
    agents.forget_gone(at(3600));
    agents.pod_affected("dev", "node-a", "uid");
    assert_eq!(heard(&agents), Some(Affected::All));
    // Nothing was named meanwhile.
    agents.connect(&node("a")).end(at(7200));
    agents.forget_gone(at(9000));
    assert_eq!(heard(&agents), None);
    let session = agents.connect(&node("a"));
    agents.pod_affected("dev", "node-a", "uid");
    agents.sessions.end(&agent("a"));
    assert_eq!(session.next_affected().await, None);
    assert_eq!(heard(&agents), Some(Affected::Pods(["uid".to_owned()].into())));
}

#[tokio::test]
async fn who_was_told_of_what_concerns_anybody_is_not_remembered_for_ever() {
    let agents = agents();
    agents.all_untold();
    agents.forget_gone(at(0));
    let told = agents.connect(&node("a"));
    assert_eq!(told.next_affected().now_or_never().flatten(), Some(Affected::All));
    agents.forget_gone(at(25 * 3600));
    let late = agents.connect(&node("b"));
    assert!(late.next_affected().now_or_never().is_none());
}

/// What is kept in memory of agents is bounded by those that hold a certificate.
#[tokio::test]
async fn nothing_is_remembered_of_agents_without_a_certificate() {
    let agents = agents();
    let id = attest(&agents, "a", at(0)).await;
    let used = (serial(at(0)), Generation { epoch: 1, number: 1 });
    agents.in_use.counts(&id, used.0, used.1);
    spread(&agents, at(1)).await;
    agents.forget_gone(at(1));
    assert!(agents.in_use.generation(&id, used.0).is_some());
    let over = at(5 * 3600);
    spread(&agents, over).await;
    agents.forget_gone(over);
    assert!(agents.in_use.generation(&id, used.0).is_none());
    assert_eq!(
        agents.node(&id).await.unwrap().unwrap().node_name,
        "a-name",
        "the store still knows"
    );
}

/// Whoever shows a certificate of an agent that is not known has one row looked for, and nothing read of others.
#[tokio::test]
async fn of_agents_that_ask_one_row_is_read_each() {
    let agents = agents();
    for name in ["a", "b"] {
        let mut item = of_agent(name, at(0));
        item.workload.spiffe_id = agent(name);
        agents.store.issue(vec![item], at(0)).await.unwrap();
    }
    assert_eq!(agents.node(&agent("unknown")).await.unwrap(), None);
    assert_eq!(agents.rows.len(), 0);
    let node = agents.node(&agent("a")).await.unwrap().unwrap();
    assert_eq!((node.node_name.as_str(), agents.rows.len()), ("a-name", 1));
}

#[tokio::test]
async fn an_agent_whose_pod_a_watch_shows_gone_is_not_waited_for() {
    let agents = agents();
    for name in ["a", "b"] {
        attest(&agents, name, at(0)).await;
    }
    agents.watch_pods(|cluster, pod_uid| (cluster, pod_uid) == ("c", "a-agent-pod"));
    assert_eq!(
        spread(&agents, at(30)).await,
        (0, 2),
        "the watch may not show it yet"
    );
    assert_eq!(spread(&agents, at(60)).await, (0, 1));
    attest(&agents, "a", at(90)).await;
    assert_eq!(spread(&agents, at(91)).await, (0, 2));
}

/// What agents report to use of one authority: how many do, and of how many it is not known.
async fn uses(agents: &Agents, now: SystemTime) -> (usize, usize) {
    agents.refresh_spread(now).await.unwrap();
    let uses = agents.spread().borrow().uses(authority(9), Some(4));
    (uses.agents, uses.unknown)
}

/// While its pod is replaced nobody hears for a node, and its workloads use what they have.
///
/// Covers INV-8.
#[tokio::test]
async fn what_the_workloads_of_an_agent_use_is_in_use_while_it_is_replaced() {
    let agents = agents();
    let id = attest(&agents, "a", at(0)).await;
    assert_eq!(uses(&agents, at(0)).await, (0, 1), "it has not said");
    let session = agents.connect(&node("a"));
    let said = |in_use| Report { in_use, ..report(4) };
    session.report(said(Some(vec![(authority(9), 2)])));
    assert_eq!(uses(&agents, at(1)).await, (1, 0));
    session.end(at(2));
    agents.watch_pods(|cluster, pod_uid| (cluster, pod_uid) == ("c", "a-agent-pod"));
    agents.forget_gone(at(600));
    assert_eq!(uses(&agents, at(600)).await, (1, 0), "its pod is gone");
    assert_eq!(
        spread(&agents, at(600)).await,
        (0, 0),
        "nobody waits for it to hear"
    );
    // Its successor has not read yet what was kept.
    attest(&agents, "a", at(601)).await;
    let session = agents.connect(&node("a"));
    assert_eq!(uses(&agents, at(601)).await, (1, 0), "what was said last counts");
    session.report(said(None));
    assert_eq!(uses(&agents, at(602)).await, (0, 1));
    session.report(said(Some(Vec::new())));
    let unknown_own = uses(&agents, at(603)).await;
    assert_eq!(unknown_own, (0, 1), "it has not used its own new certificate");
    agents.spread.uses(&id, None);
    assert_eq!(uses(&agents, at(604)).await, (0, 1));
}

/// A report that comes while the store is asked is of an agent that the answer may lack.
#[test]
fn a_report_that_came_while_the_store_was_asked_is_not_forgotten() {
    let said = |sequence| crate::authority::InUse {
        sequence,
        authorities: Vec::new(),
    };
    let spread = Spread::default();
    spread.uses(&agent("before"), Some(said(1)));
    let round = spread.next_round();
    spread.uses(&agent("late"), Some(said(2)));
    drop(spread.sorted(Vec::new(), round, &HashSet::new(), at(0)));
    assert_eq!(spread.known_uses(), [agent("late")]);
}

/// Covers INV-8.
#[tokio::test]
async fn a_store_that_fails_loses_no_report_and_forgets_nobody() {
    let store = MemoryStore::new(trust_domain());
    let agents = Agents::new(store.clone(), AuditLog::start(store.clone()));
    attest(&agents, "a", at(0)).await;
    assert_eq!(spread(&agents, at(0)).await, (0, 1));
    agents.connect(&node("a")).report(report(4));
    store.report_failures.store(1, Ordering::SeqCst);
    agents.refresh_spread(at(1)).await.unwrap_err();
    assert_eq!(agents.spread().borrow().live(), 1);
    assert!(agents.is_spread_stale());
    assert_eq!(spread(&agents, at(2)).await, (1, 1));
}

#[tokio::test]
async fn a_new_stream_of_an_agent_ends_the_old_one_and_keeps_its_own_reports() {
    let agents = agents();
    let old = agents.connect(&node("a"));
    let new = agents.connect(&node("a"));
    assert_eq!(old.next_affected().await, None);
    new.report(report(9));
    old.report(report(3));
    drop(old);
    assert_eq!(agents.status(&agent("a")).unwrap().report.sequence, 9);
}

/// Covers INV-8, INV-12: a certificate that does not count says nothing, and takes nothing from one that does.
#[tokio::test]
async fn a_guest_ends_nobodys_stream_and_is_not_heard() {
    let agents = agents();
    let honest = agents.connect(&node("a"));
    honest.report(report(4));
    let guest = agents.connect_guest(&agent("a")).unwrap();
    attest(&agents, "a", at(0)).await;
    assert_eq!(spread(&agents, at(0)).await, (1, 1));
    guest.report(report(3));
    assert_eq!(spread(&agents, at(0)).await, (1, 1));
    assert_eq!(agents.status(&agent("a")).unwrap().report.sequence, 4);
    assert_eq!(agents.connected(), 1);
    let another = agents.connect_guest(&agent("a")).unwrap();
    assert_eq!(guest.next_affected().await, None, "one for each");
    let revoked = Revoked {
        svids: vec![RevokedSvid {
            serial: serial(SystemTime::UNIX_EPOCH),
            authority: authority(1),
            spiffe_id: Some(agent("a")),
            not_after: None,
            waits: false,
        }],
        fresh: 1,
        denial: None,
        revision: 1,
    };
    agents.after(&revoked);
    assert_eq!(honest.next_affected().await, None);
    assert_eq!(another.next_affected().await, None);
    let guests: Vec<_> = (0..GUESTS)
        .map(|n| agents.connect_guest(&agent(&format!("n{n}"))).unwrap())
        .collect();
    assert!(agents.connect_guest(&agent("late")).is_none());
    assert!(agents.connect_guest(&agent("n1")).is_some(), "its own place");
    drop(guests);
}

#[tokio::test]
async fn affected_pods_reach_only_the_agent_of_their_node() {
    let agents = agents();
    let a = agents.connect(&node("a"));
    let b = agents.connect(&node("b"));
    agents.pod_affected("dev", "node-a", "uid-1");
    assert_eq!(
        a.next_affected().await,
        Some(Affected::Pods(HashSet::from(["uid-1".to_owned()])))
    );
    agents.agent_affected(agent("a").as_str());
    assert_eq!(a.next_affected().await, Some(Affected::All));
    agents.pod_affected("dev", "node-b", "uid-2");
    assert!(
        matches!(b.next_affected().await, Some(Affected::Pods(_))),
        "none of it was b's"
    );
    agents.all_affected();
    assert_eq!(b.next_affected().await, Some(Affected::All));
}

/// What no list names is told by word alone; so whoever may have missed the word asks about everything.
#[tokio::test]
async fn an_agent_that_was_away_asks_again_for_what_no_list_names() {
    let agents = agents();
    let before = agents.connect(&node("a"));
    agents.pod_affected("dev", "node-a", "uid-1");
    before.end(SystemTime::UNIX_EPOCH);
    let back = agents.connect(&node("a"));
    assert_eq!(
        back.next_affected().await,
        Some(Affected::Pods(HashSet::from(["uid-1".to_owned()]))),
        "the word that its broken stream did not carry"
    );
    assert!(agents.lists_lack() && !agents.lists_lack());
    let away = agents.connect(&node("b"));
    assert_eq!(away.next_affected().await, Some(Affected::All));
}
