//! What ends protection ends by the earliest time it may be.

use std::sync::Arc;
use std::time::SystemTime;

use super::fixture::{
    HOUR, at, authority, by_id, by_serial, crl, issuance, issue, issued, revocation, to_list,
};
use crate::store::{IssueRefusal, KnownTime, NewIssuance, RevokeRequest, RevokeTarget, Revoked, Store};

/// An order while the server's clock is two hours ahead, and it knows that it may be.
fn revocation_ahead(target: RevokeTarget, true_time: SystemTime) -> RevokeRequest {
    RevokeRequest {
        earliest: true_time,
        ..revocation(target, true_time + 2 * HOUR)
    }
}

/// What the server's time has passed may be good again when the clock is right: it is revoked by either name, its key with it.
///
/// Covers INV-11.
pub(crate) async fn what_has_ended_by_a_time_that_may_be_wrong_is_revoked(store: Arc<dyn Store>) {
    let leaked = issuance("/a", "one", at(0));
    issue(&store, leaked.clone(), at(0)).await.unwrap();
    let by_hand = store
        .revoke(revocation_ahead(by_serial(leaked.serial), at(60)))
        .await
        .unwrap();
    let web = issued(&store, "/ns/shop/sa/web", "one", at(0)).await;
    let by_name = store
        .revoke(revocation_ahead(by_id("/ns/shop/sa/web"), at(60)))
        .await
        .unwrap();
    let listed = |revoked: &Revoked| {
        let svids = revoked.svids.iter().map(|svid| (svid.serial, svid.waits));
        svids.collect::<Vec<_>>()
    };
    assert_eq!(listed(&by_hand), [(leaked.serial, false)]);
    assert_eq!(listed(&by_name), [(web, false)]);
    assert_eq!(to_list(&store).await, [leaked.serial, web]);
    let with_its_key = NewIssuance {
        spki_sha256: leaked.spki_sha256,
        ..issuance("/b", "one", at(61))
    };
    assert_eq!(
        issue(&store, with_its_key, at(61)).await,
        Err(IssueRefusal::CompromisedKey)
    );
}

/// Nor does memory matter, which may have let go of it by a time that was believed.
///
/// Covers INV-11.
pub(crate) async fn what_had_ended_by_the_mark_is_revoked_where_it_may_be_earlier(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    let ahead = at(0) + 2 * HOUR;
    store.housekeeping(KnownTime::settled(ahead)).await.unwrap();
    let revoked = store.revoke(revocation_ahead(by_id("/a"), at(60))).await.unwrap();
    assert_eq!(revoked.svids.len(), 1);
    assert_eq!(to_list(&store).await, [one]);
}

/// Two clocks that were wrong together at a start may have been believed; what a list may leave out waits until that has stood.
///
/// Covers INV-2, INV-15.
pub(crate) async fn an_entry_stays_until_its_end_is_settled(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    store.revoke(revocation(by_serial(one), at(60))).await.unwrap();
    let set = store.revoked(authority(1)).await.unwrap();
    let over = at(0) + 2 * HOUR;
    let confirmed = KnownTime {
        settled: None,
        ..KnownTime::settled(over)
    };
    for (number, known) in [(1, confirmed), (2, KnownTime::settled(at(120)))] {
        store.housekeeping(known).await.unwrap();
        store.save_crl(crl(number, &set, over)).await.unwrap();
        assert_eq!(to_list(&store).await, [one], "{known:?}");
    }
    store.housekeeping(KnownTime::settled(over)).await.unwrap();
    store.save_crl(crl(3, &set, over)).await.unwrap();
    assert_eq!(to_list(&store).await, []);
}
