use std::collections::HashSet;

use super::*;
use crate::{
    fixtures::trust_domain,
    store::{
        RevokedSvid,
        memory::MemoryStore,
        suite::fixture::{authority, serial},
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
        ..Report::default()
    }
}

#[tokio::test]
async fn a_broken_stream_holds_back_spread_for_two_minutes_then_is_forgotten() {
    let agents = agents();
    let spread = agents.spread();
    let session = agents.connect(&node("a"));
    session.report(report(4));
    assert_eq!(spread.borrow().confirmed(4), 1);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    session.end(now);
    agents.forget_gone(now + Duration::from_secs(60));
    assert_eq!(spread.borrow().live(), 1);
    agents.forget_gone(now + Duration::from_secs(121));
    assert_eq!(spread.borrow().live(), 0);
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
    guest.report(report(999));
    assert_eq!(agents.spread().borrow().confirmed(5), 0);
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
    agents.all_affected();
    assert_eq!(b.next_affected().await, Some(Affected::All));
}
