use std::sync::Arc;

use signet_certs::crl::RevocationReason;

use super::fixture::{
    DAY, HOUR, add_key, at, authority, below, by_id, by_serial, issuance, issue, issued, revocation, serial,
    to_list,
};
use crate::store::{
    EvidenceKind, IssueRefusal, KnownTime, NewIssuance, RevokeError, RevokeRequest, RevokeTarget, Revoked,
    RevokedSvid, Store, StoreError,
};

/// A clock that jumped ahead and came back: what seemed to have ended in between is still good, and revocable.
pub(crate) async fn a_clock_that_was_ahead_hides_nothing_from_a_revocation(store: Arc<dyn Store>) {
    let serial = issued(&store, "/ns/shop/sa/web", "one", at(0)).await;
    store
        .housekeeping(KnownTime::settled(at(0) + 2 * HOUR))
        .await
        .unwrap();
    let revoked = store
        .revoke(revocation(by_id("/ns/shop/sa/web"), at(60)))
        .await
        .unwrap();
    assert_eq!(revoked.svids.len(), 1);
    assert_eq!(to_list(&store).await, [serial]);
}

/// Covers INV-11.
pub(crate) async fn a_revoked_identity_is_marked_and_denied(store: Arc<dyn Store>) {
    let one = issued(&store, "/ns/shop/sa/web", "one", at(0)).await;
    let two = issued(&store, "/ns/shop/sa/web", "two", at(1)).await;
    let revoked = store
        .revoke(revocation(by_id("/ns/shop/sa/web"), at(2)))
        .await
        .unwrap();
    assert_eq!(
        revoked.svids.iter().map(|svid| svid.serial).collect::<Vec<_>>(),
        [one, two]
    );
    assert_eq!(to_list(&store).await, [one, two]);
    assert!(store.revoked(authority(1)).await.unwrap().revision >= revoked.revision);
    let denial = revoked.denial.unwrap();
    assert_eq!(
        store.denials(false, at(2)).await.unwrap(),
        std::slice::from_ref(&denial)
    );
    assert_eq!(denial.comment, "found on a laptop");
    let refusal = IssueRefusal::Denied { denial_id: denial.id };
    assert!(!refusal.to_string().contains("laptop"), "that is for admins");
    assert_eq!(
        issue(&store, issuance("/ns/shop/sa/web", "three", at(3)), at(3)).await,
        Err(refusal)
    );
    let row = &store.list(below("/ns/shop")).await.unwrap().rows[0];
    assert_eq!(row.revoked, Some((at(2), RevocationReason::KeyCompromise)));
}

pub(crate) async fn a_neighbour_is_not_denied(store: Arc<dyn Store>) {
    for path in ["/ns/shop", "/ns/shop/sa/web", "/ns/shop-admin"] {
        issued(&store, path, "one", at(0)).await;
    }
    assert_eq!(
        store
            .revoke(revocation(by_id("/ns/shop"), at(1)))
            .await
            .unwrap()
            .svids
            .len(),
        1
    );
    issued(&store, "/ns/shop/sa/web", "one", at(2)).await;
    issued(&store, "/ns/shop-admin", "one", at(2)).await;
}

pub(crate) async fn a_revoked_serial_denies_nothing(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    issued(&store, "/a", "one", at(0)).await;
    let revoked = store.revoke(revocation(by_serial(one), at(1))).await.unwrap();
    let svid = RevokedSvid {
        serial: one,
        authority: authority(1),
        spiffe_id: Some(super::fixture::id("/a")),
        not_after: Some(at(0) + HOUR),
        waits: false,
    };
    assert_eq!((revoked.svids, revoked.denial), (vec![svid], None));
    assert_eq!(to_list(&store).await, [one]);
    issued(&store, "/a", "one", at(2)).await;
}

pub(crate) async fn a_serial_that_the_ledger_lacks_needs_its_authority(store: Arc<dyn Store>) {
    let stray = serial(at(0));
    let target = |authority| RevokeTarget::Serial {
        serial: stray,
        authority,
        expires_by: Some(at(0) + HOUR),
    };
    let revoke = |target| store.revoke(revocation(target, at(1)));
    assert_eq!(revoke(target(None)).await, Err(RevokeError::UnknownSerial));
    let unknown = authority(1);
    assert_eq!(
        revoke(target(Some(unknown))).await,
        Err(RevokeError::UnknownAuthority(unknown))
    );
    add_key(&store, 1).await;
    let revoked = revoke(target(Some(authority(1)))).await.unwrap();
    assert_eq!(revoked.svids[0].spiffe_id, None);
    assert_eq!(to_list(&store).await, [stray]);
}

pub(crate) async fn a_named_authority_counts_before_the_ledger(store: Arc<dyn Store>) {
    let ours = issued(&store, "/a", "one", at(0)).await;
    add_key(&store, 2).await;
    let target = RevokeTarget::Serial {
        serial: ours,
        authority: Some(authority(2)),
        expires_by: None,
    };
    store.revoke(revocation(target, at(1))).await.unwrap();
    assert!(to_list(&store).await.is_empty());
    assert_eq!(store.revoked(authority(2)).await.unwrap().entries.len(), 1);
    let live = store.live_counts(at(1)).await.unwrap();
    assert_eq!(
        live.iter()
            .find(|usage| usage.authority == authority(1))
            .unwrap()
            .live,
        1
    );
}

pub(crate) async fn an_expired_certificate_is_not_revoked(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    let ends = at(0) + HOUR;
    let refused = store.revoke(revocation(by_serial(one), ends)).await;
    assert!(
        matches!(refused, Err(RevokeError::Expired(dates)) if dates.not_after == ends && dates.now == ends),
        "{refused:?}"
    );
    let revoked = store.revoke(revocation(by_id("/a"), ends)).await.unwrap();
    assert!(revoked.svids.is_empty() && revoked.denial.is_some());
}

pub(crate) async fn revoking_again_changes_nothing(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    let first = store.revoke(revocation(by_serial(one), at(1))).await.unwrap();
    assert_eq!(first.fresh, 1);
    let again = RevokeRequest {
        reason: RevocationReason::Superseded,
        ..revocation(by_serial(one), at(9))
    };
    let nothing_new = Revoked { fresh: 0, ..first };
    assert_eq!(store.would_revoke(again.clone()).await.unwrap(), nothing_new);
    assert_eq!(store.revoke(again).await.unwrap(), nothing_new);
    let entry = store.revoked(authority(1)).await.unwrap().entries[0];
    assert_eq!(
        (entry.revoked_at, entry.reason),
        (at(1), RevocationReason::KeyCompromise)
    );
    let denied = store.revoke(revocation(by_id("/a"), at(10))).await.unwrap();
    let twice = store.revoke(revocation(by_id("/a"), at(11))).await.unwrap();
    assert_eq!(denied.denial, twice.denial);
    assert_eq!(store.denials(true, at(12)).await.unwrap().len(), 1);
}

pub(crate) async fn keep_issuing_leaves_the_denial_out(store: Arc<dyn Store>) {
    issued(&store, "/a", "one", at(0)).await;
    let request = RevokeRequest {
        keep_issuing: true,
        ..revocation(by_id("/a"), at(1))
    };
    let revoked = store.revoke(request).await.unwrap();
    assert_eq!((revoked.svids.len(), revoked.denial), (1, None));
    issued(&store, "/a", "one", at(2)).await;
}

pub(crate) async fn a_denial_ends_by_itself(store: Arc<dyn Store>) {
    let request = RevokeRequest {
        denial_expires: Some(at(60)),
        ..revocation(by_id("/a"), at(0))
    };
    store.revoke(request).await.unwrap();
    issue(&store, issuance("/a", "one", at(59)), at(59))
        .await
        .unwrap_err();
    issued(&store, "/a", "one", at(60)).await;
    assert!(store.denials(false, at(60)).await.unwrap().is_empty());
    assert_eq!(store.denials(true, at(60)).await.unwrap().len(), 1);
}

/// Covers CRL-21.
pub(crate) async fn a_lifted_denial_revives_no_certificate(store: Arc<dyn Store>) {
    let one = issued(&store, "/a", "one", at(0)).await;
    let denial = store
        .revoke(revocation(by_id("/a"), at(1)))
        .await
        .unwrap()
        .denial
        .unwrap();
    let missing = StoreError::NotFound {
        what: "denial",
        id: "d9-9".into(),
    };
    assert_eq!(store.allow("d9-9", "bob", at(2)).await, Err(missing));
    let lifted = store.allow(&denial.id, "bob", at(2)).await.unwrap();
    assert_eq!(
        lifted
            .lifted
            .as_ref()
            .map(|lifted| (lifted.at, lifted.by.as_str())),
        Some((at(2), "bob"))
    );
    assert_eq!(
        store.allow(&denial.id, "carol", at(3)).await.unwrap(),
        lifted,
        "lifted once"
    );
    issued(&store, "/a", "one", at(4)).await;
    assert_eq!(to_list(&store).await, [one]);
    let next = store
        .revoke(revocation(by_id("/a"), at(5)))
        .await
        .unwrap()
        .denial
        .unwrap();
    assert_ne!(next.id, denial.id);
}

pub(crate) async fn a_longer_denial_is_added_to_a_shorter_one(store: Arc<dyn Store>) {
    let until = |end| RevokeRequest {
        denial_expires: end,
        ..revocation(by_id("/a"), at(0))
    };
    let short = store.revoke(until(Some(at(60)))).await.unwrap().denial.unwrap();
    let long = store.revoke(until(Some(at(600)))).await.unwrap().denial.unwrap();
    assert_ne!(short.id, long.id);
    assert_eq!(
        store.revoke(until(Some(at(300)))).await.unwrap().denial.unwrap(),
        long
    );
    store.allow(&long.id, "bob", at(1)).await.unwrap();
    issue(&store, issuance("/a", "one", at(2)), at(2))
        .await
        .expect_err("the short one stands");
    let forever = store.revoke(until(None)).await.unwrap().denial.unwrap();
    issue(&store, issuance("/a", "one", at(2)), at(2) + 100 * HOUR)
        .await
        .expect_err("for ever");
    assert_eq!(forever.expires, None);
    let too_long = RevokeRequest {
        comment: "x".repeat(1025),
        ..until(None)
    };
    assert!(matches!(
        store.revoke(too_long).await,
        Err(RevokeError::Store(StoreError::Invalid { .. }))
    ));
}

/// Covers INV-11: a key that leaked is no key, on any path, whatever became of the certificate and its row.
pub(crate) async fn a_compromised_key_is_never_certified_again(store: Arc<dyn Store>) {
    let with = |path: &str, key: u8, evidence, seconds| NewIssuance {
        spki_sha256: [key; 32],
        evidence,
        token_jti: None,
        ..issuance(path, "one", at(seconds))
    };
    let leaked = with("/signet/agent/c/n", 1, EvidenceKind::NodeToken, 0);
    issue(&store, leaked.clone(), at(0)).await.unwrap();
    let superseded = with("/b", 2, EvidenceKind::PodToken, 0);
    issue(&store, superseded.clone(), at(0)).await.unwrap();
    store
        .revoke(revocation(by_serial(leaked.serial), at(1)))
        .await
        .unwrap();
    let otherwise = RevokeRequest {
        reason: RevocationReason::Superseded,
        ..revocation(by_serial(superseded.serial), at(1))
    };
    store.revoke(otherwise).await.unwrap();
    let paths = [
        EvidenceKind::NodeToken,
        EvidenceKind::PodToken,
        EvidenceKind::Unix,
        EvidenceKind::Own,
    ];
    for (n, evidence) in (2..).zip(paths) {
        let refused = issue(&store, with("/c", 1, evidence, n), at(n)).await;
        assert_eq!(refused, Err(IssueRefusal::CompromisedKey), "{evidence}");
        issue(&store, with("/c", 2, evidence, n), at(n)).await.unwrap();
    }
    store
        .housekeeping(KnownTime::settled(at(0) + 100 * DAY))
        .await
        .unwrap();
    let late = with("/d", 1, EvidenceKind::PodToken, 9_000_000);
    assert_eq!(
        issue(&store, late, at(9_000_000)).await,
        Err(IssueRefusal::CompromisedKey),
        "expiry gives no key back"
    );
    store
        .revoke(revocation(by_serial(superseded.serial), at(9)))
        .await
        .unwrap();
    assert_eq!(
        issue(&store, with("/c", 2, EvidenceKind::PodToken, 10), at(10)).await,
        Err(IssueRefusal::CompromisedKey),
        "said later, and meant all the same"
    );
}
