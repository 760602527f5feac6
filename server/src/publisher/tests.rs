use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use signet_certs::authority::AuthorityKind;
use signet_certs::crl::{Crl, CrlNumber, RevocationReason};
use signet_certs::serial::SerialNumber;
use signet_runtime::clock::{Clock as _, SystemClock};

use super::*;
use crate::authority::{AuthorityManager, OrderRequest, SpreadReports};
use crate::clock::TrustedClock;
use crate::fixtures::{
    HOUR, MINUTE, Running, SKEW, revoke_serial, revoke_within, serial, start, trust_domain,
};
use crate::store::sqlite::SqliteStore;
use crate::store::{Origin, Revocations as _, RevokeRequest, RevokeTarget};

const X509: AuthorityKind = AuthorityKind::X509;
const LIMIT: Duration = Duration::from_secs(5);

fn list(running: &Running, kind: AuthorityKind) -> Crl {
    running.snapshot().kind(kind)[0].crl.clone()
}

async fn revoke(running: &Running, number: u8) -> u64 {
    let id = running.active(X509);
    revoke_serial(running.store.as_ref(), id, serial(number), running.now()).await
}

/// So many serials.
fn many(count: u32, now: SystemTime) -> impl Iterator<Item = SerialNumber> {
    (0..count).map(move |number| {
        let mut random = [7; 13];
        random[..4].copy_from_slice(&number.to_be_bytes());
        SerialNumber::generate(now, &random)
    })
}

/// Covers INV-2, CRL-08, CRL-16.
#[tokio::test(start_paused = true)]
async fn every_authority_has_one_current_list_even_an_empty_one() {
    let running = Running::new().await;
    for published in running.snapshot().all() {
        let read = Crl::verify(published.crl.der(), &published.certificate).unwrap();
        assert_eq!(read.entry_count(), 0);
        assert_eq!(
            read.this_update(),
            running.now() - SKEW,
            "set back for slow clocks"
        );
        assert_eq!(read.next_update(), running.now() + HOUR + HOUR / 2);
    }
}

/// Covers CRL-10, CRL-12, CRL-18, CRL-26.
#[tokio::test(start_paused = true)]
async fn a_revocation_is_served_at_once_and_only_its_list_changes() {
    let running = Running::new().await;
    let (before, other) = (list(&running, X509), list(&running, AuthorityKind::Control));
    running.pass(MINUTE).await;
    let started = tokio::time::Instant::now();
    let revision = revoke(&running, 1).await;
    let snapshot = running.publisher.wait_published(revision, LIMIT).await.unwrap();
    assert!(started.elapsed() < COALESCE);
    let after = &snapshot.kind(X509)[0].crl;
    assert!(after.is_revoked(&serial(1)) && !after.is_revoked(&serial(2)));
    assert!(after.number() > before.number());
    assert!(
        after
            .entries()
            .all(|entry| entry.revoked_at <= after.this_update())
    );
    assert_eq!(
        list(&running, AuthorityKind::Control),
        other,
        "the other list has not changed"
    );
    assert_eq!(snapshot.sequence, 1, "lists do not move the bundle's sequence");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_revocations_goes_into_few_lists() {
    let running = Running::new().await;
    running.pass(MINUTE).await;
    let before = running.lists(running.active(X509)).len();
    let mut last = 0;
    for number in 0..100 {
        last = revoke(&running, number).await;
        running.publisher.revocation_changed(last);
        running.pass(Duration::from_millis(3)).await;
    }
    let snapshot = running.publisher.wait_published(last, LIMIT).await.unwrap();
    assert_eq!(snapshot.kind(X509)[0].crl.entry_count(), 100);
    let signed = running.lists(running.active(X509)).len() - before;
    assert!(signed <= 3, "{signed} lists for 300 ms");
}

/// Covers CRL-07, CRL-26.
#[tokio::test(start_paused = true)]
async fn lists_are_renewed_at_a_third_of_their_life() {
    let running = Running::new().await;
    let first = list(&running, X509);
    running.pass(HOUR / 2 - MINUTE).await;
    assert_eq!(list(&running, X509), first);
    running.pass(2 * MINUTE).await;
    let second = list(&running, X509);
    assert!(second.number() > first.number() && second.next_update() > first.next_update());
}

/// Covers INV-3.
#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_stored_is_not_shown_and_follows_later() {
    let running = Running::new().await;
    running.pass(MINUTE).await;
    let before = list(&running, X509);
    running.store.crl_failures.store(5, Ordering::SeqCst);
    let revision = revoke(&running, 1).await;
    let refused = running
        .publisher
        .wait_published(revision, Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(refused.to_string().starts_with("recorded, not yet published"));
    assert_eq!(list(&running, X509), before, "nothing unsaved is shown");
    running.publisher.wait_published(revision, MINUTE).await.unwrap();
    assert!(list(&running, X509).is_revoked(&serial(1)));
}

/// Covers INV-3, CRL-12.
#[tokio::test(start_paused = true)]
async fn numbers_grow_over_restarts_and_over_a_clock_that_goes_back() {
    let running = Running::new().await;
    running.pass(MINUTE).await;
    let revision = revoke(&running, 1).await;
    running.publisher.wait_published(revision, LIMIT).await.unwrap();
    let before = list(&running, X509);
    running.clock.set_offset(-300);
    let running = running.restart().await;
    assert_eq!(list(&running, X509), before, "the stored bytes are served");
    let revision = revoke(&running, 2).await;
    running.publisher.wait_published(revision, LIMIT).await.unwrap();
    let after = list(&running, X509);
    assert_eq!(after.number(), CrlNumber(before.number().0 + 1));
    assert!(after.this_update() >= before.this_update());
    assert!(after.is_revoked(&serial(1)) && after.is_revoked(&serial(2)));
}

/// Covers INV-2.
#[tokio::test(start_paused = true)]
async fn lists_that_ended_while_the_server_was_down_are_signed_anew() {
    let running = Running::new().await;
    let before = list(&running, X509);
    assert!(running.drain.finish(MINUTE).await);
    running.pass(2 * HOUR).await;
    assert!(!before.is_current(running.now()));
    let running = running.restart().await;
    let after = list(&running, X509);
    assert!(after.is_current(running.now()) && after.number() > before.number());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_the_ledger_made_while_the_server_was_down_is_published_at_the_start() {
    let running = Running::new().await;
    let id = running.active(X509);
    assert!(running.drain.finish(MINUTE).await);
    revoke_serial(running.store.as_ref(), id, serial(9), running.now()).await;
    let running = running.restart().await;
    running.pass(MINUTE).await;
    assert!(list(&running, X509).is_revoked(&serial(9)));
}

#[tokio::test(start_paused = true)]
async fn each_kind_has_a_room_for_tens_of_thousands() {
    let running = Running::new().await;
    let rooms = running.publisher.rooms();
    assert_eq!(rooms.len(), 2);
    for (room, kind) in rooms.iter().zip([X509, AuthorityKind::Control]) {
        assert_eq!(room.authorities, [running.active(kind)]);
        assert!((50_000..60_000).contains(&room.capacity), "{}", room.capacity);
        assert!(running.publisher.takes_authority(kind));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_signed_beside_the_async_threads() {
    let running = Running::new().await;
    let serials = many(2500, running.now());
    let revision = running
        .store
        .revoke_all(running.active(X509), serials, running.now());
    let snapshot = running.publisher.wait_published(revision, LIMIT).await.unwrap();
    assert_eq!(snapshot.kind(X509)[0].crl.entry_count(), 2500);
}

/// Covers INV-2, INV-15.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_waits_and_the_list_goes_on() {
    let running = Running::with_room(64 << 10).await;
    let (id, capacity) = (running.active(X509), running.publisher.rooms()[0].capacity);
    let share = capacity - capacity / 4;
    let first = u32::try_from(share).unwrap();
    let revision = running
        .store
        .revoke_all(id, many(first + 500, running.now()), running.now());
    let snapshot = running.publisher.wait_published(revision, LIMIT).await.unwrap();
    assert_eq!(snapshot.kind(X509)[0].crl.entry_count(), share);
    let usage = running.publisher.room_use().borrow()[0];
    assert_eq!(
        (usage.entries, usage.capacity, usage.waiting),
        (share, capacity, 500)
    );
    assert!(usage.is_alarming() && !running.publisher.room_use().borrow()[1].is_alarming());
    // Nothing of this order is on a list, so no list changes: what waits is counted all the same, and at once.
    let one = running.now() + Duration::from_millis(1);
    let revision = running.store.revoke_all(id, many(1, one), running.now());
    running.publisher.revocation_changed(revision);
    running.pass(LIMIT).await;
    assert_eq!(running.publisher.room_use().borrow()[0].waiting, 501);
    running.pass(HOUR).await;
    let renewed = list(&running, X509);
    assert_eq!(renewed.entry_count(), share, "it is renewed as it is");
    assert!(renewed.is_current(running.now()));
}

/// Covers INV-2, INV-15.
#[tokio::test(start_paused = true)]
async fn certificates_and_lists_stay_within_their_bytes_over_rotations() {
    let bytes = 64 << 10;
    let running = Running::with_room(bytes).await;
    let mut revision = 0;
    for _ in 0..3 {
        let (id, now) = (running.active(X509), running.now());
        for serial in many(450, now) {
            let rooms = running.publisher.rooms();
            revision = revoke_within(running.store.as_ref(), id, serial, rooms, now).await;
        }
        let snapshot = running.publisher.wait_published(revision, LIMIT).await.unwrap();
        let lists = snapshot.kind(X509).iter();
        let taken: usize = lists
            .map(|one| one.certificate.der().len() + one.crl.der().len())
            .sum();
        assert!(taken <= bytes, "{taken} bytes");
        rotate(&running.manager).await;
    }
    let usage = running.publisher.room_use().borrow()[0];
    assert!(usage.entries > 1000 && usage.waiting > 100, "{usage:?}");
    assert_eq!(usage.entries + usage.waiting, 3 * 450);
}

/// A bound below what is listed already ends no entry and stops no renewal.
///
/// Covers INV-2, INV-15.
#[tokio::test(start_paused = true)]
async fn a_bound_that_is_lowered_stops_no_renewal() {
    let running = Running::new().await;
    let id = running.active(X509);
    let revision = running
        .store
        .revoke_all(id, many(2000, running.now()), running.now());
    running.publisher.wait_published(revision, LIMIT).await.unwrap();
    let running = running.restart_with_room(64 << 10).await;
    let revision = running
        .store
        .revoke_all(id, std::iter::once(serial(1)), running.now());
    running.pass(HOUR).await;
    let renewed = list(&running, X509);
    assert!(renewed.is_current(running.now()) && renewed.entry_count() == 2000);
    assert_eq!(running.publisher.room_use().borrow()[0].waiting, 1);
    let asked = running
        .publisher
        .wait_published(revision, Duration::from_secs(1))
        .await;
    assert_eq!(asked.err(), Some(NotYetPublished), "nothing was let in");
}

/// Covers INV-3, INV-15.
#[tokio::test(start_paused = true)]
async fn a_list_that_was_dated_by_a_clock_far_ahead_is_signed_anew_when_the_time_is_right() {
    let running = Running::new().await;
    let started = running.now();
    running.clock.set_offset(7200);
    let running = running.restart().await;
    let revision = revoke(&running, 1).await;
    running.publisher.wait_published(revision, LIMIT).await.unwrap();
    let ahead = list(&running, X509);
    assert!(ahead.this_update() > started + HOUR && ahead.is_revoked(&serial(1)));
    running.clock.set_offset(0);
    let running = running.restart().await;
    running.pass(Duration::from_secs(1)).await;
    let right = list(&running, X509);
    assert!(right.number() > ahead.number() && right.this_update() <= running.now());
    assert!(right.is_current(running.now()) && right.is_revoked(&serial(1)));
    let revision = revoke(&running, 2).await;
    let after = running.publisher.wait_published(revision, LIMIT).await.unwrap();
    let after = &after.kind(X509)[0].crl;
    assert!(after.is_revoked(&serial(1)) && after.is_revoked(&serial(2)));
}

/// Gives the workloads another authority at once.
async fn rotate(manager: &AuthorityManager) {
    let wish = OrderRequest::rotation(X509, true);
    let mut steps = manager.order(wish).await.unwrap();
    while steps.next().await.is_some() {}
}

/// A server over the real store in `directory`, until `drain` ends it.
async fn over_sqlite(directory: &Path, drain: &Drain) -> (Arc<SqliteStore>, AuthorityManager, Publisher) {
    let store = SqliteStore::open(&directory.join("data"), &trust_domain()).unwrap();
    let (store, reports) = (Arc::new(store), watch::Sender::new(SpreadReports::default()));
    let (manager, publisher) = start(
        store.clone(),
        directory,
        Arc::new(TrustedClock::agreed(Arc::new(SystemClock))),
        &reports,
        drain,
    )
    .await;
    (store, manager, publisher)
}

/// Covers INV-2, INV-3, CRL-12.
#[tokio::test]
async fn over_the_real_store_lists_sequence_and_authorities_survive_a_restart() {
    let directory = signet_testkit::folder();
    let drain = Drain::new();
    let (store, manager, publisher) = over_sqlite(directory.path(), &drain).await;
    rotate(&manager).await;
    let active = manager.current().borrow().kind(X509).active().unwrap().id();
    let request = RevokeRequest {
        target: RevokeTarget::Serial {
            serial: serial(1),
            authority: Some(active),
            expires_by: None,
        },
        reason: RevocationReason::KeyCompromise,
        comment: String::new(),
        author: "admin".to_owned(),
        origin: Origin::Admin,
        invalid_since: None,
        keep_issuing: false,
        denial_expires: None,
        rooms: publisher.rooms(),
        now: SystemClock.now(),
        earliest: SystemClock.now(),
    };
    let revoked = store.revoke(request).await.unwrap();
    let before = publisher.wait_published(revoked.revision, MINUTE).await.unwrap();
    assert!(before.get(active).unwrap().crl.is_revoked(&serial(1)));
    assert!(drain.finish(MINUTE).await);
    drop((store, manager, publisher));
    let drain = Drain::new();
    let (_store, manager, publisher) = over_sqlite(directory.path(), &drain).await;
    let after = publisher.snapshots().borrow().clone();
    assert!(before.same_content(&after), "{before:?}\n{after:?}");
    assert_eq!(
        manager.current().borrow().kind(X509).active().unwrap().id(),
        active
    );
    assert!(drain.finish(MINUTE).await);
}
