//! Lists that have no room for everything: what is denied, who enters, who waits, and for how long.

use std::sync::Arc;

use signet_certs::authority::AuthorityId;
use signet_certs::crl::RevocationReason;
use signet_certs::serial::SerialNumber;

use super::fixture::{
    HOUR, add_key, at, authority, by_id, by_serial, crl, issuance, issue, issued, revocation, to_list,
};
use crate::store::{IssueRefusal, KnownTime, ListRoom, RevokeRequest, RevokeTarget, Revoked, Store};

fn room(capacity: usize, authorities: &[AuthorityId]) -> Vec<ListRoom> {
    vec![ListRoom {
        authorities: authorities.to_vec(),
        capacity,
    }]
}

/// An identity that is not trusted any more; nobody's key leaked.
fn withdrawn(path: &str, capacity: usize, seconds: u64) -> RevokeRequest {
    RevokeRequest {
        reason: RevocationReason::PrivilegeWithdrawn,
        rooms: room(capacity, &[authority(1)]),
        ..revocation(by_id(path), at(seconds))
    }
}

fn waiting(revoked: &Revoked) -> Vec<SerialNumber> {
    let waiting = revoked.svids.iter().filter(|svid| svid.waits);
    waiting.map(|svid| svid.serial).collect()
}

/// Covers INV-11, INV-15.
pub(crate) async fn a_full_list_never_refuses_the_denial(store: Arc<dyn Store>) {
    let mut serials = Vec::new();
    for (pod, seconds) in [("one", 0), ("two", 1), ("three", 2)] {
        serials.push(issued(&store, "/web", pod, at(seconds)).await);
    }
    let revoked = store.revoke(withdrawn("/web", 2, 10)).await.unwrap();
    assert_eq!(revoked.svids.len(), 3);
    assert_eq!(waiting(&revoked), serials[..1], "those that end last are listed");
    let ends = revoked.svids.iter().map(|svid| svid.not_after).min().unwrap();
    assert_eq!(ends, Some(at(0) + HOUR), "and what waits is named with its end");
    let denial = revoked.denial.unwrap();
    assert_eq!(
        issue(&store, issuance("/web", "four", at(11)), at(11)).await,
        Err(IssueRefusal::Denied { denial_id: denial.id })
    );
    assert_eq!(to_list(&store).await, serials[1..]);
    let set = store.revoked(authority(1)).await.unwrap();
    assert!(set.revision >= revoked.revision);
    let live = store.live_counts(at(11)).await.unwrap();
    assert_eq!(live[0].live, 0, "what waits is revoked all the same");
}

/// Covers INV-15.
pub(crate) async fn what_waits_enters_once_there_is_room_and_pushes_nobody_off(store: Arc<dyn Store>) {
    add_key(&store, 1).await;
    let mut web = Vec::new();
    for (pod, seconds) in [("one", 0), ("two", 1), ("three", 2), ("four", 3)] {
        web.push(issued(&store, "/web", pod, at(seconds)).await);
    }
    let other = issued(&store, "/api", "five", at(4)).await;
    let rooms = room(4, &[authority(1)]);
    let revoked = store.revoke(withdrawn("/web", 4, 100)).await.unwrap();
    assert_eq!(waiting(&revoked), web[..1], "a quarter is kept for leaked keys");
    let leaked = RevokeRequest {
        rooms: rooms.clone(),
        ..revocation(by_serial(other), at(101))
    };
    assert_eq!(waiting(&store.revoke(leaked).await.unwrap()), []);
    let listed = [&web[1..], &[other]].concat();
    assert_eq!(to_list(&store).await, listed);
    let smaller = store.admit(room(0, &[authority(1)]), at(102)).await.unwrap();
    assert_eq!(smaller.waiting, [1]);
    assert_eq!(to_list(&store).await, listed, "less room throws nobody out");
    let larger = store.admit(room(8, &[authority(1)]), at(103)).await.unwrap();
    assert_eq!(larger.waiting, [0]);
    assert!(larger.revision > revoked.revision);
    assert_eq!(to_list(&store).await, [&web[..], &[other]].concat());
    let again = store.admit(rooms, at(104)).await.unwrap();
    assert_eq!((again.waiting, again.revision), (vec![0], larger.revision));
}

/// A list that was made before an entry came in does not stand for one that named it.
///
/// Covers CRL-19, INV-15.
pub(crate) async fn what_entered_late_stays_until_a_list_has_named_it(store: Arc<dyn Store>) {
    add_key(&store, 1).await;
    let one = issued(&store, "/web", "one", at(0)).await;
    issued(&store, "/web", "two", at(60)).await;
    store.revoke(withdrawn("/web", 1, 100)).await.unwrap();
    let before = store.revoked(authority(1)).await.unwrap();
    store.admit(room(8, &[authority(1)]), at(101)).await.unwrap();
    let over = at(0) + 2 * HOUR;
    store.housekeeping(KnownTime::settled(over)).await.unwrap();
    store.save_crl(crl(1, &before, over)).await.unwrap();
    assert_eq!(to_list(&store).await, [one]);
    let after = store.revoked(authority(1)).await.unwrap();
    store.save_crl(crl(2, &after, over)).await.unwrap();
    assert_eq!(to_list(&store).await, []);
}

/// What leaves by expiry makes room; what has ended while it waited needs none.
pub(crate) async fn room_comes_back_with_expiry_and_what_ended_does_not_take_it(store: Arc<dyn Store>) {
    add_key(&store, 1).await;
    let one = issued(&store, "/web", "one", at(0)).await;
    issued(&store, "/web", "two", at(60)).await;
    let rooms = room(1, &[authority(1)]);
    assert_eq!(
        waiting(&store.revoke(withdrawn("/web", 1, 100)).await.unwrap()),
        [one]
    );
    let over = at(60) + HOUR + HOUR;
    let late = issued(&store, "/api", "three", over).await;
    let revoked = store
        .revoke(RevokeRequest {
            now: over,
            earliest: over,
            ..withdrawn("/api", 1, 0)
        })
        .await
        .unwrap();
    assert_eq!(waiting(&revoked), [late]);
    store.housekeeping(KnownTime::settled(over)).await.unwrap();
    let set = store.revoked(authority(1)).await.unwrap();
    store.save_crl(crl(1, &set, over)).await.unwrap();
    assert_eq!(store.admit(rooms, over).await.unwrap().waiting, [0]);
    assert_eq!(to_list(&store).await, [late]);
}

pub(crate) async fn a_leaked_key_finds_room_where_an_identity_does_not(store: Arc<dyn Store>) {
    let mut web = Vec::new();
    for (pod, seconds) in [("one", 0), ("two", 1), ("three", 2), ("four", 3), ("five", 4)] {
        web.push(issued(&store, "/web", pod, at(seconds)).await);
    }
    let revoked = store.revoke(withdrawn("/web", 4, 100)).await.unwrap();
    assert_eq!(waiting(&revoked), web[..2]);
    let by_hand = RevokeRequest {
        rooms: room(4, &[authority(1)]),
        ..revocation(by_serial(web[0]), at(101))
    };
    let raised = store.revoke(by_hand).await.unwrap();
    assert_eq!((raised.svids.len(), waiting(&raised)), (1, vec![]));
    assert!(to_list(&store).await.contains(&web[0]));
    let asked_again = store.revoke(withdrawn("/web", 4, 102)).await.unwrap();
    assert_eq!(asked_again.svids.len(), 5);
    assert_eq!(waiting(&asked_again), [web[1]], "asked again, it says so again");
}

pub(crate) async fn lists_of_one_room_share_it_and_others_have_none(store: Arc<dyn Store>) {
    for n in [1, 2, 3, 4] {
        add_key(&store, n).await;
    }
    let stray = |n: u8, rooms: Vec<ListRoom>| {
        let target = RevokeTarget::Serial {
            serial: super::fixture::serial(at(0)),
            authority: Some(authority(n)),
            expires_by: (n != 4).then(|| at(0) + HOUR),
        };
        store.revoke(RevokeRequest {
            rooms,
            ..revocation(target, at(1))
        })
    };
    let rooms = [room(2, &[authority(1), authority(2)]), room(1, &[authority(3)])].concat();
    assert!(waiting(&stray(1, rooms.clone()).await.unwrap()).is_empty());
    assert!(waiting(&stray(2, rooms.clone()).await.unwrap()).is_empty());
    let full = stray(1, rooms.clone()).await.unwrap();
    assert_eq!(waiting(&full), [full.svids[0].serial]);
    assert!(waiting(&stray(3, rooms.clone()).await.unwrap()).is_empty());
    let unknown_end = stray(4, rooms.clone()).await.unwrap();
    assert_eq!(
        (unknown_end.svids[0].waits, unknown_end.svids[0].not_after),
        (false, None),
        "nobody reads that list, so nothing bounds it"
    );
    assert_eq!(store.admit(rooms, at(2)).await.unwrap().waiting, [1, 0]);
}
