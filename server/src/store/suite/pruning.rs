use std::sync::Arc;
use std::time::Duration;

use super::fixture::{
    DAY, HOUR, add_key, at, authority, below, by_id, by_serial, crl, issuance, issue, issued, of_agent,
    revocation, to_list,
};
use crate::audit_event::AuditCursor;
use crate::store::{Housekeeping, KnownTime, NewIssuance, RevokeRequest, Store, SvidFilter};

async fn rows(store: &Arc<dyn Store>) -> usize {
    store.list(SvidFilter::default()).await.unwrap().rows.len()
}

pub(crate) async fn rows_stay_a_day_and_until_a_later_list(store: Arc<dyn Store>) {
    add_key(&store, 1).await;
    let one = issued(&store, "/a", "one", at(0)).await;
    issued(&store, "/b", "two", at(3600)).await;
    store.revoke(revocation(by_serial(one), at(1))).await.unwrap();
    let set = store.revoked(authority(1)).await.unwrap();
    let over = at(0) + HOUR + DAY + Duration::from_secs(1);
    store.save_crl(crl(1, &set, at(0))).await.unwrap();
    assert_eq!(
        store.housekeeping(KnownTime::settled(over)).await.unwrap().pruned,
        0,
        "no list after its expiry yet"
    );
    store.save_crl(crl(2, &set, over)).await.unwrap();
    assert_eq!(
        store
            .housekeeping(KnownTime::settled(over - Duration::from_secs(2)))
            .await
            .unwrap()
            .pruned,
        0,
        "not a day yet"
    );
    assert_eq!(
        store.housekeeping(KnownTime::settled(over)).await.unwrap().pruned,
        0,
        "its audit line is not out yet"
    );
    let stored = *store.stored().borrow();
    store
        .advance(
            AuditCursor {
                sequence: stored,
                hash: [0; 32],
            },
            None,
        )
        .await
        .unwrap();
    assert_eq!(
        store.housekeeping(KnownTime::settled(over)).await.unwrap(),
        Housekeeping { pruned: 1 }
    );
    assert_eq!(rows(&store).await, 1);
    assert_eq!(store.list(below("/b")).await.unwrap().rows.len(), 1);
    assert!(store.revoked(authority(1)).await.unwrap().entries.is_empty());
    issued(&store, "/a", "one", over).await;
    assert_eq!(rows(&store).await, 2, "a workload can come back");
}

/// Covers INV-15: nothing is let go by a time that is not settled, whatever it is, and nothing is taken for listed by the date of a
/// list alone.
pub(crate) async fn a_time_that_is_not_settled_lets_nothing_go(store: Arc<dyn Store>) {
    add_key(&store, 1).await;
    let one = issued(&store, "/a", "one", at(0)).await;
    store.revoke(revocation(by_serial(one), at(1))).await.unwrap();
    let (set, future) = (store.revoked(authority(1)).await.unwrap(), at(0) + 100 * DAY);
    let wrong = KnownTime {
        confirmed: None,
        settled: None,
        jumped: true,
    };
    assert_eq!(store.housekeeping(wrong).await.unwrap().pruned, 0);
    store.save_crl(crl(1, &set, future)).await.unwrap();
    assert_eq!(to_list(&store).await, [one], "a list of the future hides nothing");
    let right = at(60);
    store.housekeeping(KnownTime::settled(right)).await.unwrap();
    let set = store.revoked(authority(1)).await.unwrap();
    store.save_crl(crl(2, &set, right)).await.unwrap();
    assert_eq!(to_list(&store).await, [one]);
    assert_eq!(rows(&store).await, 1);
}

/// However much there is, all that may go goes in one call, and what lies between it and may not stays.
pub(crate) async fn all_that_may_go_goes_at_once(store: Arc<dyn Store>) {
    add_key(&store, 1).await;
    let stays = |n: usize| n.is_multiple_of(3);
    let item = |n: usize| NewIssuance {
        authority: authority(if stays(n) { 1 } else { 2 }),
        ..issuance("/a", &format!("pod-{n}"), at(0))
    };
    let batch: Vec<_> = (0..900).map(item).collect();
    let recorded = store.issue(batch, at(0)).await.unwrap();
    assert!(recorded.iter().all(Result::is_ok));
    store.revoke(revocation(by_id("/a"), at(1))).await.unwrap();
    let sequence = *store.stored().borrow();
    let hash = [0; 32];
    store.advance(AuditCursor { sequence, hash }, None).await.unwrap();
    let over = at(0) + HOUR + 2 * DAY;
    let found = store.housekeeping(KnownTime::settled(over)).await.unwrap();
    assert_eq!(found.pruned, 600);
    let left = store.list(below("/a")).await.unwrap().rows;
    assert_eq!(left.len(), 300);
    assert!(left.iter().all(|row| row.authority == authority(1)));
    assert_eq!(store.revoked(authority(1)).await.unwrap().entries.len(), 300);
    assert!(store.revoked(authority(2)).await.unwrap().entries.is_empty());
    let found = store.housekeeping(KnownTime::settled(over)).await.unwrap();
    assert_eq!(found.pruned, 0);
}

pub(crate) async fn small_tables_are_pruned(store: Arc<dyn Store>) {
    issue(&store, of_agent("n", at(0)), at(0)).await.unwrap();
    let short = RevokeRequest {
        denial_expires: Some(at(60)),
        ..revocation(by_id("/a"), at(0))
    };
    store.revoke(short).await.unwrap();
    store.revoke(revocation(by_id("/b"), at(0))).await.unwrap();
    store
        .housekeeping(KnownTime::settled(at(0) + 4 * HOUR + 8 * DAY))
        .await
        .unwrap();
    let agents = store.agents().await.unwrap();
    assert_eq!(agents.len(), 1);
    let known = store.agent(&agents[0].spiffe_id).await.unwrap();
    assert_eq!(known.as_ref(), agents.first());
    let later = at(3601) + 31 * DAY;
    store.housekeeping(KnownTime::settled(later)).await.unwrap();
    assert!(store.agents().await.unwrap().is_empty());
    assert_eq!(store.agent(&agents[0].spiffe_id).await.unwrap(), None);
    let left = store.denials(true, later).await.unwrap();
    assert_eq!(
        left.iter().map(|denial| denial.target.name()).collect::<Vec<_>>(),
        ["spiffe://example.org/b"]
    );
}

/// The clock was hours ahead for a while; what it took for expired is alive again, and can be revoked.
///
/// Covers INV-11.
pub(crate) async fn a_revocation_while_the_clock_is_behind_finds_every_row(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    store
        .housekeeping(KnownTime::settled(at(0) + 5 * HOUR))
        .await
        .unwrap();
    let revoked = store.revoke(revocation(by_id("/a"), at(60))).await.unwrap();
    assert_eq!(
        revoked.svids.iter().map(|svid| svid.serial).collect::<Vec<_>>(),
        [one]
    );
}
