//! Who takes how much of the room on the lists.

use std::sync::Arc;

use signet_certs::crl::RevocationReason;

use super::fixture::{HOUR, at, authority, by_serial, issuance, issue, issued, revocation};
use super::targets::{pod, serials};
use crate::store::{ListRoom, NewIssuance, Origin, RevokeRequest, Store};

/// What the server revokes by itself gets a quarter of the room, and none of what is kept for admins.
pub(crate) async fn what_is_automatic_leaves_room_for_admins(store: Arc<dyn Store>) {
    let request = |target, origin| RevokeRequest {
        origin,
        keep_issuing: true,
        reason: RevocationReason::CessationOfOperation,
        rooms: vec![ListRoom {
            authorities: vec![authority(1)],
            capacity: 8,
        }],
        ..revocation(target, at(1))
    };
    let mut entered = 0;
    for n in 0..6 {
        let serial = issued(&store, &format!("/{n}"), "one", at(0)).await;
        let target = by_serial(serial);
        let revoked = store.revoke(request(target, Origin::Automatic)).await.unwrap();
        entered += revoked.svids.iter().filter(|svid| !svid.waits).count();
    }
    assert_eq!(entered, 2);
    for n in 6..12 {
        let serial = issued(&store, &format!("/{n}"), "one", at(0)).await;
        let revoked = store
            .revoke(request(by_serial(serial), Origin::Admin))
            .await
            .unwrap();
        assert!(!revoked.svids[0].waits, "{n}");
    }
    let of_pods = issuance("/p", "p", at(0));
    issue(
        &store,
        NewIssuance {
            not_after: at(0) + HOUR / 2,
            ..of_pods
        },
        at(0),
    )
    .await
    .unwrap();
    let revoked = store.revoke(request(pod("p"), Origin::Admin)).await.unwrap();
    assert!(revoked.svids[0].waits, "the room is full");
}

/// On the list as it was said first, and never a time to come.
pub(crate) async fn an_entry_says_since_when_it_is_invalid(store: Arc<dyn Store>) {
    let all = serials(
        &store,
        vec![issuance("/a", "one", at(0)), issuance("/b", "one", at(0))],
    )
    .await;
    let since = |target, since, now| RevokeRequest {
        invalid_since: since,
        rooms: vec![ListRoom {
            authorities: vec![authority(1)],
            capacity: 4,
        }],
        ..revocation(target, at(now))
    };
    let to_come = store.revoke(since(by_serial(all[0]), Some(at(11)), 10)).await;
    assert!(to_come.is_err(), "{to_come:?}");
    store
        .revoke(since(by_serial(all[0]), Some(at(5)), 10))
        .await
        .unwrap();
    store.revoke(since(by_serial(all[0]), None, 11)).await.unwrap();
    store.revoke(since(by_serial(all[1]), None, 12)).await.unwrap();
    let entries = store.revoked(authority(1)).await.unwrap().entries;
    let dates: Vec<_> = entries.iter().map(|entry| entry.invalid_since).collect();
    assert_eq!(dates, [Some(at(5)), None]);
    let more = serials(
        &store,
        vec![issuance("/c", "one", at(0)), issuance("/d", "one", at(0))],
    )
    .await;
    let would = store
        .would_revoke(since(by_serial(more[0]), Some(at(5)), 13))
        .await
        .unwrap();
    assert!(would.svids[0].waits, "of four two and one are taken");
    let dated = store
        .revoke(since(by_serial(more[0]), Some(at(5)), 13))
        .await
        .unwrap();
    assert_eq!(dated.svids, would.svids, "what would be done is done");
    let again = since(by_serial(more[0]), None, 14);
    let would = store.would_revoke(again.clone()).await.unwrap();
    assert!(
        would.svids[0].waits,
        "it goes on taking the room of two: what was said first is kept"
    );
    assert_eq!(store.revoke(again).await.unwrap().svids, would.svids);
    let plain = store.revoke(since(by_serial(more[1]), None, 14)).await.unwrap();
    assert!(!plain.svids[0].waits);
}
