//! What ends protection ends by the earliest time it may be.

use std::sync::Arc;
use std::time::SystemTime;

use super::fixture::{
    HOUR, at, authority, by_id, by_serial, crl, issuance, issue, issued, of_agent, revocation, to_list,
};
use crate::store::{
    IssueRefusal, KnownTime, NewIssuance, PresentedCertificate, RevokeRequest, RevokeTarget, Revoked,
    Standing, Store,
};

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

/// A denial that ends by itself ends for good only once it can be no earlier: for pods, for an agent and what it asks for, and in
/// the list.
///
/// Covers INV-11.
pub(crate) async fn a_denial_ends_by_the_earliest_time_it_may_be(store: Arc<dyn Store>) {
    let agent = of_agent("n", at(0));
    issue(&store, agent.clone(), at(0)).await.unwrap();
    let presented = |earliest| PresentedCertificate {
        spiffe_id: agent.workload.spiffe_id.clone(),
        authority: agent.authority,
        serial: agent.serial,
        not_after: agent.not_after,
        earliest,
    };
    let ahead = at(120);
    for path in ["/a", "/signet/agent/c/n"] {
        let until = RevokeRequest {
            denial_expires: Some(at(60)),
            ..revocation(by_id(path), at(0))
        };
        store.revoke(until).await.unwrap();
    }
    let asked = |path, earliest| NewIssuance {
        earliest,
        ..issuance(path, "one", ahead)
    };
    let by_agent = |earliest| NewIssuance {
        caller: Some(agent.serial),
        ..asked("/b", earliest)
    };
    let denied = issue(&store, asked("/a", at(59)), ahead).await;
    assert!(matches!(denied, Err(IssueRefusal::Denied { .. })), "{denied:?}");
    let denied = issue(&store, by_agent(at(59)), ahead).await;
    let lost = Err(IssueRefusal::Caller(Standing::Revoked));
    assert!(
        matches!(denied, Err(IssueRefusal::Caller(Standing::Denied(_)))),
        "{denied:?}"
    );
    let judged = store.present(presented(at(59)), ahead).await.unwrap();
    assert!(matches!(judged.standing, Standing::Denied(_)), "{judged:?}");
    assert_eq!(store.denials(false, at(59)).await.unwrap().len(), 2);
    issue(&store, asked("/a", at(60)), ahead).await.unwrap();
    assert_eq!(issue(&store, by_agent(at(60)), ahead).await, lost);
    let judged = store.present(presented(at(60)), ahead).await.unwrap();
    assert_eq!(judged.standing, Standing::Revoked);
    assert_eq!(store.denials(false, at(60)).await.unwrap(), []);
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
