use std::time::SystemTime;

use signet_certs::authority::AuthorityKind;
use tokio::time::timeout;

use super::*;
use crate::{
    agents::Agents,
    attest::fake::FakeAttestor,
    audit::{AuditAction, AuditLog},
    fixtures::{HOUR, MINUTE, Running},
    store::{
        Ledger as _, Lists as _, NewIssuance, Revocations as _,
        suite::fixture::{issuance, of_agent},
    },
};

struct World {
    running: Running,
    attestor: Arc<FakeAttestor>,
}

impl World {
    async fn new() -> Self {
        Self {
            running: Running::new().await,
            attestor: Arc::new(FakeAttestor::new()),
        }
    }

    /// As a process makes it.
    fn review(&self) -> LateReview {
        let audit = AuditLog::start(self.running.store.clone());
        let unasked = Unasked {
            store: self.running.store.clone(),
            publisher: self.running.publisher.clone(),
            agents: Arc::new(Agents::new(self.running.store.clone(), audit)),
            metrics: Arc::default(),
            clock: self.running.trusted.clone(),
        };
        LateReview {
            unasked,
            attestor: self.attestor.clone(),
        }
    }

    fn now(&self) -> SystemTime {
        self.running.now()
    }

    /// Records a certificate of this pod, once before the outage and once in it. Returns the serial of the latter.
    async fn renewed(&self, pod: &str) -> SerialNumber {
        let item = |outage| NewIssuance {
            authority: self.running.active(AuthorityKind::X509),
            outage,
            ..issuance("/ns/shop/sa/web", pod, self.now())
        };
        self.record(item(false)).await;
        self.record(item(true)).await
    }

    async fn record(&self, item: NewIssuance) -> SerialNumber {
        let serial = item.serial;
        let recorded = self.running.store.issue(vec![item], self.now()).await.unwrap();
        recorded.into_iter().for_each(|row| drop(row.unwrap()));
        serial
    }

    async fn waiting(&self) -> Vec<SerialNumber> {
        let rows = self.running.store.unreviewed(None, 1000).await.unwrap();
        rows.into_iter().map(|row| row.serial).collect()
    }

    /// Returns once the published list of this kind names exactly these.
    async fn until_listed(&self, kind: AuthorityKind, serials: &[SerialNumber]) {
        let mut snapshots = self.running.publisher.snapshots();
        let names = |crl: &signet_certs::crl::Crl| serials.iter().all(|serial| crl.is_revoked(serial));
        let listed = snapshots.wait_for(|snapshot| snapshot.kind(kind).iter().any(|one| names(&one.crl)));
        timeout(MINUTE, listed).await.unwrap().unwrap();
        let set = self
            .running
            .store
            .revoked(self.running.active(kind))
            .await
            .unwrap();
        assert_eq!(set.entries.len(), serials.len());
        let reasons = set.entries.iter().map(|entry| entry.reason);
        assert!(
            reasons
                .into_iter()
                .all(|reason| reason == signet_certs::crl::RevocationReason::CessationOfOperation)
        );
    }
}

/// Covers INV-11, BT-09.
#[tokio::test(start_paused = true)]
async fn whose_pod_went_while_the_cluster_was_away_is_revoked_and_the_others_lose_the_mark() {
    let world = World::new().await;
    let mut serials = Vec::new();
    for number in 0..SLICE + 2 {
        serials.push(world.renewed(&format!("pod-{number}")).await);
    }
    world.attestor.set_unreachable();
    assert_eq!(world.review().round().await, Ok(Round::default()));
    assert_eq!(world.waiting().await, serials, "nobody can say");
    let last = format!("pod-{}", SLICE + 1);
    world.attestor.set_back(&["pod-0", &last]);
    // Another process than the one that issued them.
    let round = world.review().round().await.unwrap();
    assert_eq!((round.kept, round.revoked), (SLICE, 2));
    assert_eq!(world.waiting().await, []);
    world
        .until_listed(AuthorityKind::X509, &[serials[0], serials[SLICE + 1]])
        .await;
    let events = world.running.store.audit_events();
    let by_system = |action: &AuditAction| matches!(action, AuditAction::Revoked { author, serials, .. } if author == "system" && serials.len() == 1);
    assert_eq!(events.iter().filter(|event| by_system(event.action())).count(), 2);
    let denials = world.running.store.denials(true, world.now()).await.unwrap();
    assert_eq!(denials, [], "a pod that comes again is served");
}

/// Covers INV-11.
#[tokio::test(start_paused = true)]
async fn what_has_ended_by_a_time_that_may_be_wrong_is_reviewed_all_the_same() {
    let world = World::new().await;
    let serial = world.renewed("pod-0").await;
    world.attestor.set_unreachable();
    world.running.clock.set_offset(7200);
    for _ in 0..8 {
        world.running.trusted.heard("", world.now(), Duration::ZERO);
        world.running.trusted.time();
        world.running.pass(Duration::from_secs(10)).await;
    }
    assert!(world.running.trusted.now() == world.now(), "both are believed");
    world.attestor.set_back(&["pod-0"]);
    let round = world.review().round().await.unwrap();
    assert_eq!((round.kept, round.revoked), (0, 1));
    world.until_listed(AuthorityKind::X509, &[serial]).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_renewed_by_its_certificate_goes_with_its_node() {
    let world = World::new().await;
    for node in ["a", "b"] {
        let item = |outage| NewIssuance {
            authority: world.running.active(AuthorityKind::Control),
            outage,
            ..of_agent(node, world.now())
        };
        world.record(item(false)).await;
        world.record(item(true)).await;
    }
    let waiting = world.waiting().await;
    world.attestor.set_back(&["b"]);
    let round = world.review().round().await.unwrap();
    assert_eq!((round.kept, round.revoked), (1, 1));
    world.until_listed(AuthorityKind::Control, &waiting[1..]).await;
}

/// An agent's pod is made anew whenever its program is, and the new one takes over.
#[tokio::test(start_paused = true)]
async fn an_agent_goes_with_its_pod_unless_another_one_took_its_place() {
    let world = World::new().await;
    for (node, successor) in [("a", None), ("b", Some("b-new-pod"))] {
        let item = |outage| NewIssuance {
            authority: world.running.active(AuthorityKind::Control),
            outage,
            ..of_agent(node, world.now())
        };
        world.record(item(false)).await;
        world.record(item(true)).await;
        if let Some(successor) = successor {
            let mut newer = item(false);
            newer.attestation.as_mut().unwrap().pod_uid = successor.to_owned();
            world.record(newer).await;
        }
    }
    let waiting = world.waiting().await;
    world.attestor.set_back(&["a-agent-pod", "b-agent-pod"]);
    let round = world.review().round().await.unwrap();
    assert_eq!((round.kept, round.revoked), (1, 1));
    world.until_listed(AuthorityKind::Control, &waiting[..1]).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_by_itself_only_loses_its_mark() {
    let world = World::new().await;
    world.renewed("pod-0").await;
    world.running.pass(HOUR + MINUTE).await;
    world.attestor.set_back(&["pod-0"]);
    let round = world.review().round().await.unwrap();
    assert_eq!((round.kept, round.revoked), (1, 0));
    assert_eq!(world.waiting().await, []);
}
