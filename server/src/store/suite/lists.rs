use std::sync::Arc;

use super::fixture::{HOUR, at, authority, by_serial, crl, issued, revocation, to_list};
use crate::store::{KnownTime, RevokedSet, Store, StoreError};

/// Covers INV-3, CRL-12.
pub(crate) async fn crl_numbers_only_grow(store: Arc<dyn Store>) {
    let set = store.revoked(authority(1)).await.unwrap();
    store.save_crl(crl(7, &set, at(0))).await.unwrap();
    for number in [7, 6, 0] {
        let refused = StoreError::NotNewer {
            authority: authority(1),
            what: "number",
            stored: 7,
            offered: number,
        };
        assert_eq!(store.save_crl(crl(number, &set, at(1))).await, Err(refused));
    }
    store.save_crl(crl(9, &set, at(2))).await.unwrap();
    assert_eq!(store.load_crls().await.unwrap(), [crl(9, &set, at(2))]);
}

pub(crate) async fn a_crl_of_an_older_set_is_refused(store: Arc<dyn Store>) {
    let old = store.revoked(authority(1)).await.unwrap();
    let one = issued(&store, "/a", "one", at(0)).await;
    store.revoke(revocation(by_serial(one), at(1))).await.unwrap();
    let new = store.revoked(authority(1)).await.unwrap();
    store.save_crl(crl(1, &new, at(2))).await.unwrap();
    let refused = store.save_crl(crl(2, &old, at(3))).await;
    assert!(
        matches!(refused, Err(StoreError::NotNewer { what: "revision", .. })),
        "{refused:?}"
    );
}

/// Covers CRL-18, CRL-19.
pub(crate) async fn an_entry_stays_until_listed_once_after_expiry(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    let two = issued(&store, "/b", "two", at(1800)).await;
    store.revoke(revocation(by_serial(one), at(1900))).await.unwrap();
    store.revoke(revocation(by_serial(two), at(1900))).await.unwrap();
    let set = store.revoked(authority(1)).await.unwrap();
    let expired = at(0) + HOUR;
    store.save_crl(crl(1, &set, expired)).await.unwrap();
    assert_eq!(
        to_list(&store).await,
        [one, two],
        "a list of the very second of expiry is not after it"
    );
    let unaware = RevokedSet {
        entries: vec![],
        revision: set.revision - 1,
    };
    let other = crate::store::StoredCrl {
        authority: authority(2),
        ..crl(1, &unaware, at(9000))
    };
    store.save_crl(other).await.unwrap();
    assert_eq!(
        to_list(&store).await.len(),
        2,
        "another authority's list says nothing"
    );
    store.housekeeping(KnownTime::settled(at(3601))).await.unwrap();
    store.save_crl(crl(2, &set, at(3601))).await.unwrap();
    assert_eq!(to_list(&store).await, [two]);
}
