use std::sync::atomic::Ordering;
use std::time::Duration;

use signet_certs::authority::AuthorityCertificate;
use signet_certs::id::SpiffeId;
use signet_certs::link::walk;

use super::*;
use crate::audit_event::{AuditAction, AuditEvent};
use crate::authority::operation::{Order, Stage};
use crate::authority::spread::Holds;
use crate::fixtures::{HOUR, MINUTE, Running, SKEW, Seams};

mod elsewhere;

const X509: AuthorityKind = AuthorityKind::X509;

fn wish(force: bool) -> OrderRequest {
    OrderRequest::rotation(X509, force)
}

fn wants(order: Order) -> OrderRequest {
    OrderRequest {
        kind: X509,
        order,
        author: "admin".to_owned(),
    }
}

/// What comes of an operation, its last word.
async fn outcome(mut steps: OperationSteps) -> OperationReport {
    let mut last = None;
    while let Some(step) = steps.next().await {
        last = Some(step);
    }
    last.unwrap()
}

fn agent(index: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/agent-{index}")).unwrap()
}

fn report(running: &Running, sequences: &[u64]) {
    let agents = sequences
        .iter()
        .enumerate()
        .map(|(index, sequence)| (agent(index), *sequence));
    running.reports.send_replace(agents.collect());
}

/// Covers INV-2, CA-14.
#[tokio::test(start_paused = true)]
async fn a_new_trust_domain_gets_one_authority_of_each_kind_with_its_list() {
    let running = Running::new().await;
    assert_eq!(running.states(X509), ["active"]);
    assert_eq!(running.states(AuthorityKind::Control), ["active"]);
    let snapshot = running.snapshot();
    assert_eq!(snapshot.sequence, 1, "both kinds are in the first bundle");
    assert!(
        snapshot
            .all()
            .all(|published| published.crl.is_current(running.now()))
    );
    let subjects: Vec<_> = snapshot
        .all()
        .map(|published| published.certificate.subject())
        .collect();
    assert_ne!(subjects[0], subjects[1]);
    assert_eq!(running.store.kept().keys.len(), 2);
}

/// Covers INV-8.
#[tokio::test(start_paused = true)]
async fn a_rotation_tells_its_steps_and_waits_for_the_agents() {
    let running = Running::new().await;
    report(&running, &[1, 1]);
    let first = running.active(X509);
    let mut steps = running.manager.order(wish(false)).await.unwrap();
    let begun = steps.next().await.unwrap();
    assert_eq!(begun.operation.previous, Some(first));
    let authority = begun.operation.target;
    let mut step = begun;
    let mut figures = async |confirmed: usize| {
        while !step.is_published || step.reported != confirmed {
            step = steps.next().await.unwrap();
        }
        (step.agents, step.awaited.len())
    };
    assert_eq!(figures(0).await, (2, 2));
    running.pass(6 * MINUTE).await;
    report(&running, &[2, 1]);
    assert_eq!(figures(1).await, (2, 1));
    assert_eq!(running.active(X509), first);
    report(&running, &[2, 2]);
    let last = outcome(steps).await.operation;
    assert_eq!((last.target, last.stage), (authority, Stage::Done));
    assert_eq!(running.states(X509), ["old", "active"]);
    let audit = running.store.audit_events();
    let activated = audit.iter().map(AuditEvent::action).any(|action| {
        matches!(action, AuditAction::AuthorityActivated { forced: false, author, .. } if author == "admin")
    });
    assert!(activated, "{audit:?}");
}

/// Killed in the middle of a retirement, it goes on: the old one leaves when every agent has said that it uses nothing of it, and it is done
/// when they have reported that.
///
/// Covers INV-8.
#[tokio::test(start_paused = true)]
async fn a_retirement_goes_on_over_a_restart_and_its_key_goes_with_it() {
    let running = Running::new().await;
    report(&running, &[1, 1]);
    let old = running.active(X509);
    let retire = Order::Rotate {
        force: false,
        algorithm: None,
        retire: true,
    };
    let mut steps = running.manager.order(wants(retire)).await.unwrap();
    let number = steps.next().await.unwrap().operation.number;
    running.pass(6 * MINUTE).await;
    report(&running, &[2, 2]);
    running.pass(MINUTE).await;
    assert_eq!(running.states(X509), ["tainted", "active"]);
    assert!(
        running
            .snapshot()
            .get(old)
            .is_some_and(|published| published.tainted)
    );
    assert_eq!(running.snapshot().sequence, 3);

    let silent = Holds {
        reported: 2,
        ..Holds::default()
    };
    let silent = [0, 1].map(|index| (agent(index), silent.clone()));
    let running = running.restart_among(silent.into_iter().collect()).await;
    assert_eq!(running.snapshot().sequence, 3);
    let steps = running.manager.follow(X509, number);
    running.pass(MINUTE).await;
    assert_eq!(
        running.states(X509),
        ["tainted", "active"],
        "nobody has spoken since"
    );
    report(&running, &[3, 3]);
    running.pass(MINUTE).await;
    assert_eq!(running.states(X509), ["active"]);
    let snapshot = running.snapshot();
    assert_eq!(
        (snapshot.get(old).is_none(), &*snapshot.departed),
        (true, &[old][..])
    );
    assert!(
        !running.store.kept().keys.contains_key(&old),
        "its key is gone too"
    );
    report(&running, &[4, 3]);
    running.pass(MINUTE).await;
    let waits = running.manager.operations()[0].clone();
    assert_eq!((waits.reported, waits.operation.stage), (1, Stage::Telling));
    report(&running, &[4, 4]);
    assert_eq!(outcome(steps).await.operation.stage, Stage::Done);
    let audit = running.store.audit_events();
    let says = |wanted: &str| audit.iter().any(|event| event.to_json().contains(wanted));
    assert!(
        says("authority_tainted") && says("authority_revoked"),
        "{audit:?}"
    );
}

/// At each of its turns.
#[tokio::test(start_paused = true)]
async fn an_emergency_goes_on_over_a_restart_whenever_it_comes() {
    for kind in AuthorityKind::ALL {
        let mut running = Running::new().await;
        let stolen = running.active(kind);
        let order = Order::Emergency { algorithm: None };
        let request = OrderRequest { kind, ..wants(order) };
        let mut steps = running.manager.order(request).await.unwrap();
        let number = steps.next().await.unwrap().operation.number;
        let mut seen = Vec::new();
        for _ in 0..12 {
            running = running.restart().await;
            running.pass(Duration::from_secs(15)).await;
            let followed = running.manager.follow(kind, number).next().await.unwrap();
            seen.push(followed.operation.stage);
        }
        assert_eq!(seen.last(), Some(&Stage::Done), "{kind}: {seen:?}");
        assert!(seen.contains(&Stage::Draining), "{kind}: {seen:?}");
        assert_eq!(running.states(kind), ["active"]);
        assert_ne!(running.active(kind), stolen);
        let departed: Vec<_> = running.snapshot().departed.to_vec();
        assert_eq!(departed, [stolen]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_goes_on_without_its_admin_and_over_a_restart() {
    let running = Running::new().await;
    report(&running, &[1]);
    let first = running.active(X509);
    drop(running.manager.order(wish(false)).await.unwrap());
    running.pass(MINUTE).await;
    let running = running.restart().await;
    assert_eq!(running.states(X509), ["active", "prepared"]);
    assert_eq!(running.active(X509), first);
    running.pass(5 * MINUTE).await;
    assert_eq!(
        running.states(X509),
        ["old", "active"],
        "no agent is left to wait for"
    );
}

/// Covers INV-8.
#[tokio::test(start_paused = true)]
async fn force_skips_the_gate_and_is_audited() {
    let running = Running::new().await;
    report(&running, &[0]);
    outcome(running.manager.order(wish(true)).await.unwrap()).await;
    assert_eq!(running.states(X509), ["old", "active"]);
    let audit = running.store.audit_events();
    let forced = audit.iter().any(|event| {
        matches!(
            event.action(),
            AuditAction::AuthorityActivated { forced: true, .. }
        )
    });
    assert!(forced, "{audit:?}");
    let published = running.snapshot();
    assert!(
        published.get(running.active(X509)).is_some(),
        "even forced it is published first"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_journal_write_fails_the_command_and_changes_nothing() {
    let running = Running::new().await;
    let before = (
        running.states(X509),
        running.snapshot().sequence,
        running.store.kept().keys.len(),
    );
    running.store.journal_failures.store(1, Ordering::SeqCst);
    let refused = running.manager.order(wish(false)).await.unwrap_err();
    assert!(
        matches!(refused, OrderError::Failed(LifecycleError::Store(_))),
        "{refused:?}"
    );
    running.pass(MINUTE).await;
    let after = (
        running.states(X509),
        running.snapshot().sequence,
        running.store.kept().keys.len(),
    );
    assert_eq!(before, after);
    running.manager.order(wish(false)).await.unwrap();
    running.pass(MINUTE).await;
    assert_eq!(running.states(X509), ["active", "prepared"]);
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_could_not_be_journalled_is_not_forgotten() {
    let running = Running::new().await;
    // The list of the new authority takes a second attempt, so that its publication meets the failing journal.
    running.store.crl_failures.store(1, Ordering::SeqCst);
    drop(running.manager.order(wish(true)).await.unwrap());
    running.store.journal_failures.store(4, Ordering::SeqCst);
    running.pass(MINUTE).await;
    assert_eq!(running.store.journal_failures.load(Ordering::SeqCst), 0);
    assert_eq!(running.states(X509), ["old", "active"]);
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_meets_a_failing_journal_tries_again() {
    let running = Running::new().await;
    running.store.journal_failures.store(3, Ordering::SeqCst);
    running.pass(6 * HOUR).await;
    running.pass(MINUTE).await;
    assert_eq!(running.states(X509), ["active", "prepared"]);
    assert_eq!(running.states(AuthorityKind::Control), ["active", "prepared"]);
}

/// Covers CA-16, INV-2, INV-3.
#[tokio::test(start_paused = true)]
async fn authorities_follow_each_other_by_themselves() {
    let running = Running::new().await;
    let first = running.active(X509);
    running.pass(6 * HOUR).await;
    assert_eq!(running.states(X509), ["active", "prepared"]);
    running.pass(4 * HOUR).await;
    assert_eq!(running.states(X509), ["old", "active"]);
    assert_eq!(running.snapshot().kind(AuthorityKind::X509).len(), 2);
    running.pass(HOUR + SKEW + MINUTE).await;
    assert!(
        running.snapshot().get(first).is_none(),
        "its leaves are gone, and so is it"
    );
    assert!(!running.store.kept().keys.contains_key(&first));
    assert!(running.lists(first).len() > 10, "it signed its list to the end");
    assert!(running.snapshot().sequence >= 3);
}

/// Covers INV-3.
#[tokio::test(start_paused = true)]
async fn a_restart_adds_no_roots_and_keeps_the_sequence() {
    let running = Running::new().await;
    let before = running.snapshot();
    let running = running.restart().await;
    let after = running.snapshot();
    assert!(
        before.same_content(&after),
        "the stored bytes are served as they were"
    );
    assert_eq!(running.store.kept().keys.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_journal_without_its_key_is_fatal() {
    let running = Running::new().await;
    running.drain.start();
    running.store.kept().keys.remove(&running.active(X509));
    let directory = signet_testkit::folder();
    let other = crate::store::memory::MemoryStore::new(crate::fixtures::trust_domain());
    let seams = Seams::here(other.as_ref(), directory.path()).await;
    let outcome = start_over(&running, seams).await;
    assert!(matches!(outcome, Err(LifecycleError::MissingKey { .. })));
}

/// The next process over the same store, with these keys.
async fn start_over(running: &Running, seams: Seams) -> Result<AuthorityManager, LifecycleError> {
    let (_, snapshots) = crate::trust::channel(crate::fixtures::trust_domain(), Duration::ZERO);
    let (_reports, reports) = watch::channel(SpreadReports::default());
    AuthorityManager::start(AuthorityManagerParts {
        trust_domain: crate::fixtures::trust_domain(),
        kinds: AuthorityKind::ALL
            .map(|kind| (kind, crate::fixtures::policy(kind)))
            .into(),
        store: running.store.clone(),
        keys: seams.keys,
        source: seams.source,
        clock: running.trusted.clone(),
        snapshots,
        reports,
        drain: Drain::new(),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_rotation_after_the_drain_says_that_the_server_stops() {
    let running = Running::new().await;
    assert!(running.drain.finish(MINUTE).await);
    assert!(matches!(
        running.manager.order(wish(false)).await,
        Err(OrderError::Stopping)
    ));
}

fn links(running: &Running, kind: AuthorityKind) -> Vec<AuthorityCertificate> {
    let view = running.manager.current().borrow().clone();
    view.kind(kind).links_to(running.active(kind), running.now())
}

/// Whoever holds only the first control authority finds the one that signs after two rotations, over one that has left, also after
/// a restart; with the authorities of workloads nothing leads anywhere.
#[tokio::test(start_paused = true)]
async fn each_control_authority_certifies_its_successor_and_that_outlives_both() {
    let running = Running::new().await;
    let first = running.snapshot().kind(AuthorityKind::Control)[0]
        .certificate
        .clone();
    assert!(links(&running, AuthorityKind::Control).is_empty());
    running.pass(17 * HOUR).await;
    let running = running.restart().await;
    let active = running.active(AuthorityKind::Control);
    assert!(running.snapshot().get(first.id()).is_none(), "it has left");
    let links_now = links(&running, AuthorityKind::Control);
    assert_eq!(links_now.len(), 2);
    let anchors = [first.clone()];
    let domain = crate::fixtures::trust_domain();
    let reached = walk(&anchors, &links_now, &domain, |_| false, running.now());
    assert_eq!(reached.last().map(AuthorityCertificate::id), Some(active));
    assert_eq!(links(&running, X509), []);
    let prepared = running.store.audit_events();
    let linked = prepared.iter().map(AuditEvent::action).any(|action| {
        matches!(action, AuditAction::AuthorityPrepared { linked_by: Some(by), .. } if *by == first.id())
    });
    assert!(linked, "{prepared:?}");
}

/// An authority that was over when its successor was made leads to it too: agents of a server that was down for long come back.
#[tokio::test(start_paused = true)]
async fn an_authority_that_ended_while_the_server_was_down_leads_to_the_next() {
    let running = Running::new().await;
    let first = running.snapshot().kind(AuthorityKind::Control)[0]
        .certificate
        .clone();
    running.drain.start();
    running.pass(10 * 24 * HOUR).await;
    let running = running.restart().await;
    running.pass(MINUTE).await;
    assert_ne!(running.active(AuthorityKind::Control), first.id());
    let anchors = [first];
    let (domain, links) = (
        crate::fixtures::trust_domain(),
        links(&running, AuthorityKind::Control),
    );
    assert_eq!(walk(&anchors, &links, &domain, |_| false, running.now()).len(), 1);
}
