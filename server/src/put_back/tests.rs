use signet_certs::authority::{AuthorityKind, X509Authority};
use signet_certs::crl::{RevocationReason, RevokedEntry};
use signet_certs::serial::SerialNumber;
use signet_runtime::clock::{Clock as _, FakeClock};

use super::*;
use crate::fixtures::{HOUR, START, authority, published, serial, snapshot, trust_domain};
use crate::store::memory::MemoryStore;
use crate::store::suite::fixture::{at, by_serial, crl, issuance, issue, revocation};
use crate::store::{KnownTime, NewIssuance, Proofs as _, StoredCrl};
use crate::trust::PublishedAuthority;

fn agent() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/signet/agent/c/n").unwrap()
}

/// A server whose newest list has number 5 and names what it is told to.
struct World {
    store: Arc<MemoryStore>,
    clock: FakeClock,
    authority: X509Authority,
    snapshots: watch::Sender<Arc<TrustSnapshot>>,
    floors: watch::Sender<Floors>,
    put_back: Arc<PutBack>,
    drain: Drain,
}

impl World {
    async fn new() -> Self {
        let clock = FakeClock::new(std::time::SystemTime::UNIX_EPOCH + START);
        let authority = authority(AuthorityKind::X509, clock.now());
        let own = snapshot(1, vec![published(&authority, &[], 5, clock.now())], vec![]);
        let store = MemoryStore::new(trust_domain());
        Self::over(store, clock, authority, watch::Sender::new(own)).await
    }

    async fn over(
        store: Arc<MemoryStore>,
        clock: FakeClock,
        authority: X509Authority,
        snapshots: watch::Sender<Arc<TrustSnapshot>>,
    ) -> Self {
        let (floors, drain) = (watch::Sender::default(), Drain::new());
        let put_back = PutBack::start(PutBackParts {
            store: store.clone(),
            audit: AuditLog::start(store.clone()),
            metrics: Metrics::register(&signet_runtime::telemetry::Metrics::new("signet_server")),
            clock: Arc::new(TrustedClock::agreed(Arc::new(clock.clone()))),
            snapshots: snapshots.subscribe(),
            floors: floors.clone(),
            drain: drain.clone(),
        });
        Self {
            put_back: put_back.await.unwrap(),
            store,
            clock,
            authority,
            snapshots,
            floors,
            drain,
        }
    }

    fn list(&self, number: u64, serials: &[SerialNumber]) -> PublishedAuthority {
        let entry = |serial: &SerialNumber| RevokedEntry {
            serial: *serial,
            revoked_at: self.clock.now() - HOUR,
            reason: RevocationReason::KeyCompromise,
            invalid_since: None,
        };
        let entries: Vec<_> = serials.iter().map(entry).collect();
        published(&self.authority, &entries, number, self.clock.now())
    }

    fn id(&self) -> AuthorityId {
        self.authority.certificate().id()
    }

    async fn publish(&self, number: u64, serials: &[SerialNumber]) {
        self.snapshots
            .send_replace(snapshot(1, vec![self.list(number, serials)], vec![]));
        tokio::time::sleep(2 * LOOK).await;
    }

    /// What an agent claims that reports this list.
    async fn claims(&self, list: &PublishedAuthority) -> Vec<Claim> {
        let report = (self.id(), list.crl.number(), list.crl.sha256());
        self.put_back.claims(&[report]).await
    }

    /// Claims one list and hands over another.
    async fn hand_over(&self, claimed: &PublishedAuthority, held: &[u8]) -> Result<(), String> {
        let claims = self.claims(claimed).await;
        let question = self.put_back.turn(&agent(), &claims).await;
        let held = [Bytes::copy_from_slice(held)];
        self.put_back.answered(&agent(), question, &held, &claims).await
    }

    fn trouble(&self) -> Option<String> {
        self.put_back.trouble().borrow().clone()
    }

    async fn audited(&self) -> Vec<String> {
        self.put_back.audit.flush().await;
        let name = |event: &AuditEvent| match event.action() {
            AuditAction::StorePutBack {
                number, own_number, ..
            } => format!("proved {number} over {own_number}"),
            AuditAction::ListUnproven { number, .. } => format!("unproven {number}"),
            other => format!("{other:?}"),
        };
        self.store.audit_events().iter().map(name).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_verified_list_that_the_store_lacks_proves_that_it_was_put_back_until_all_of_it_is_listed() {
    let world = World::new().await;
    let held = world.list(7, &[serial(1), serial(2)]);
    world.hand_over(&held, held.crl.der()).await.unwrap();
    let trouble = world.trouble().unwrap();
    for word in [&world.id().to_string(), "list 7", "newest is 5", "2 of 2"] {
        assert!(trouble.contains(word), "{word} in {trouble}");
    }
    assert_eq!(world.audited().await, ["proved 7 over 5"]);
    // Nobody is asked for what is proved.
    let again = world.claims(&held).await;
    assert_eq!(again.len(), 1);
    let asked = tokio::time::timeout(2 * questions::INTERVAL, world.put_back.turn(&agent(), &again)).await;
    assert!(asked.is_err());
    // Its number passes, and something is missing: the list of the agents would be taken back.
    world.publish(6, &[serial(1)]).await;
    assert!(world.trouble().unwrap().contains("1 of 2") && world.floors.borrow().is_empty());
    // The next process knows it too.
    let World {
        store,
        clock,
        authority,
        snapshots,
        drain,
        ..
    } = world;
    assert!(drain.finish(HOUR).await);
    let world = World::over(store, clock, authority, snapshots).await;
    assert!(world.trouble().unwrap().contains("1 of 2"));
    world.publish(7, &[serial(1), serial(2)]).await;
    assert!(world.trouble().unwrap().contains("0 of 2"));
    assert_eq!(*world.floors.borrow(), Floors::from([(world.id(), CrlNumber(7))]));
    world.publish(8, &[serial(1), serial(2)]).await;
    assert_eq!(world.trouble(), None);
    assert!(world.floors.borrow().is_empty());
    assert_eq!(world.store.proofs().await.unwrap(), []);
}

/// What the proven list names has ended before the list itself has.
#[tokio::test(start_paused = true)]
async fn a_proof_whose_certificates_have_ended_holds_up_nothing() {
    let world = World::new().await;
    let held = world.list(7, &[serial(1)]);
    world.hand_over(&held, held.crl.der()).await.unwrap();
    world.publish(8, &[]).await;
    assert!(world.trouble().unwrap().contains("1 of 1"));
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(world.trouble(), None);
}

/// Whoever holds on to such a list takes away no readiness by it once what it names has ended, whatever the list's own end.
#[tokio::test(start_paused = true)]
async fn a_list_of_which_this_store_has_let_go_proves_nothing() {
    let world = World::new().await;
    let store: Arc<dyn Store> = world.store.clone();
    let row = NewIssuance {
        authority: world.id(),
        ..issuance("/a", "one", at(0))
    };
    let serial = row.serial;
    issue(&store, row, at(0)).await.unwrap();
    store.revoke(revocation(by_serial(serial), at(1))).await.unwrap();
    let set = store.revoked(world.id()).await.unwrap();
    let list = |number, after| StoredCrl {
        authority: world.id(),
        ..crl(number, &set, at(after))
    };
    let held = world.list(4, &[serial]);
    store.save_crl(list(4, 1)).await.unwrap();
    store.save_crl(list(5, 1)).await.unwrap();
    world.hand_over(&held, held.crl.der()).await.unwrap();
    assert!(
        world.trouble().unwrap().contains("1 of 1"),
        "it may still be valid"
    );
    store.housekeeping(KnownTime::settled(at(3601))).await.unwrap();
    store.save_crl(list(6, 3601)).await.unwrap();
    world.publish(6, &[]).await;
    assert_eq!(world.trouble(), None);
    tokio::time::sleep(questions::INTERVAL).await;
    world.hand_over(&held, held.crl.der()).await.unwrap();
    assert_eq!(world.trouble(), None);
    assert_eq!(
        world
            .audited()
            .await
            .iter()
            .filter(|line| line.starts_with("proved"))
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_number_or_a_digest_alone_is_an_alarm_against_its_agent_and_nothing_else() {
    let world = World::new().await;
    let (own, claimed) = (world.list(5, &[]), world.list(7, &[serial(1)]));
    let forged = published(
        &authority(AuthorityKind::X509, world.clock.now()),
        &[],
        7,
        world.clock.now(),
    );
    let mut damaged = claimed.crl.der().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let far = world.list(u64::MAX / 2, &[]);
    let stored = world.snapshots.borrow().kind(AuthorityKind::X509)[0]
        .crl
        .der()
        .clone();
    let lies: [&[u8]; 5] = [forged.crl.der(), &damaged, far.crl.der(), &stored, b""];
    for lie in lies {
        let alarm = world.hand_over(&claimed, lie).await.unwrap_err();
        assert!(alarm.contains("list 7"), "{alarm}");
        tokio::time::sleep(questions::INTERVAL).await;
    }
    assert_eq!(world.trouble(), None);
    assert_eq!(world.audited().await, ["unproven 7"; 5]);
    assert_eq!(world.store.proofs().await.unwrap(), []);
    // One number, two contents: the digest of ours is another one.
    assert_ne!(
        own.crl.sha256(),
        world.put_back.snapshots.borrow().kind(AuthorityKind::X509)[0]
            .crl
            .sha256()
    );
    assert_eq!(world.claims(&own).await.len(), 1);
    // What is ours, what is older than what is remembered, and what is of nobody's authority claims nothing.
    let ours = world.snapshots.borrow().kind(AuthorityKind::X509)[0].clone();
    assert!(world.claims(&ours).await.is_empty());
    assert!(world.claims(&world.list(3, &[])).await.is_empty());
    assert!(
        world
            .put_back
            .claims(&[(AuthorityId::from_bytes([1; 20]), CrlNumber(9), [0; 32])])
            .await
            .is_empty()
    );
}

/// An agent that was away while a store that was put back signed lists of its own.
#[tokio::test(start_paused = true)]
async fn a_number_that_was_passed_is_known_by_its_digest() {
    let world = World::new().await;
    let (own, other) = (world.list(4, &[]), world.list(4, &[serial(1)]));
    let stored = StoredCrl {
        authority: world.id(),
        number: CrlNumber(4),
        der: own.crl.der().clone(),
        this_update: own.crl.this_update(),
        next_update: own.crl.next_update(),
        revision: 0,
    };
    crate::store::Lists::save_crl(world.store.as_ref(), stored)
        .await
        .unwrap();
    assert!(world.claims(&own).await.is_empty());
    world.hand_over(&other, other.crl.der()).await.unwrap();
    assert!(world.trouble().unwrap().contains("list 4"));
}

/// Who holds another list by now hands over that.
#[tokio::test(start_paused = true)]
async fn an_agent_that_has_moved_on_is_no_liar() {
    let world = World::new().await;
    let claims = world.claims(&world.list(7, &[])).await;
    let question = world.put_back.turn(&agent(), &claims).await;
    let held = [world.snapshots.borrow().kind(AuthorityKind::X509)[0]
        .crl
        .der()
        .clone()];
    world
        .put_back
        .answered(&agent(), question, &held, &[])
        .await
        .unwrap();
    assert_eq!(world.trouble(), None);
    assert!(world.audited().await.is_empty());
}
