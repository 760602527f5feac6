use std::time::SystemTime;

use super::*;
use crate::fixtures::{MINUTE, START, authority, published, snapshot};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + START
}

fn both() -> Arc<TrustSnapshot> {
    let (x509, control) = (
        authority(AuthorityKind::X509, now()),
        authority(AuthorityKind::Control, now()),
    );
    snapshot(
        7,
        vec![published(&x509, &[], 4, now())],
        vec![published(&control, &[], 3, now())],
    )
}

/// Covers INV-14.
#[test]
fn control_authorities_are_in_no_bundle_and_workload_authorities_in_no_control_root() {
    let snapshot = both();
    let bundle = snapshot.bundle();
    assert_eq!(bundle.sequence_number, 7);
    assert_eq!(
        bundle.authorities,
        [snapshot.kind(AuthorityKind::X509)[0].certificate.clone()]
    );
    let domain = &snapshot.trust_domain;
    let roots = snapshot.control_roots();
    let ids: Vec<_> = roots
        .authorities(domain)
        .iter()
        .map(|known| known.certificate.id())
        .collect();
    assert_eq!(ids, [snapshot.kind(AuthorityKind::Control)[0].certificate.id()]);
}

#[test]
fn a_snapshot_is_as_far_as_its_slowest_list() {
    assert_eq!(both().published_revision(), 3);
    assert_eq!(
        channel(both().trust_domain.clone(), MINUTE)
            .1
            .borrow()
            .published_revision(),
        0
    );
}

#[test]
fn the_content_digest_goes_by_authorities_kinds_and_hint_but_not_by_order() {
    let snapshot = both();
    let (a, b) = (
        &snapshot.kind(AuthorityKind::X509)[0].certificate,
        &snapshot.kind(AuthorityKind::Control)[0].certificate,
    );
    let (x509, control) = (AuthorityKind::X509, AuthorityKind::Control);
    let digest = |list: &[(AuthorityKind, &AuthorityCertificate)], hint| {
        content_digest(list.iter().copied(), std::iter::empty(), hint)
    };
    let one = digest(&[(x509, a), (control, b)], MINUTE);
    assert_eq!(one, digest(&[(control, b), (x509, a)], MINUTE));
    assert_ne!(one, digest(&[(x509, b), (control, a)], MINUTE));
    assert_ne!(one, digest(&[(x509, a), (control, b)], 2 * MINUTE));
    assert_ne!(one, digest(&[(x509, a)], MINUTE));
}

/// What is to be distrusted is news to every reader; where nothing is, the digest is the one that earlier builds made.
#[test]
fn a_mark_and_a_departure_are_a_new_content() {
    let plain = both();
    let changed = |change: &dyn Fn(&mut TrustSnapshot)| {
        let mut changed = (*plain).clone();
        change(&mut changed);
        changed
    };
    let tainted = changed(&|snapshot| {
        let x509 = snapshot.kinds.get_mut(&AuthorityKind::X509).unwrap();
        x509[0].tainted = true;
    });
    let id = plain.kind(AuthorityKind::X509)[0].certificate.id();
    let departed = changed(&|snapshot| snapshot.departed = Arc::from([id]));
    let digests = [&*plain, &tainted, &departed].map(TrustSnapshot::content_digest);
    assert_ne!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
    assert_ne!(digests[1], digests[2]);
    assert!(!plain.same_content(&tainted) && !plain.same_content(&departed));
}

#[tokio::test]
async fn our_own_roots_follow_the_control_authorities() {
    let (first, second) = (both(), both());
    let (sender, receiver) = watch::channel(first.clone());
    let drain = Drain::new();
    let roots = keep_control_roots(receiver, &drain);
    sender.send_replace(second.clone());
    let followed = async {
        let known = |roots: &TrustRoots| {
            roots
                .authorities(&second.trust_domain)
                .iter()
                .any(|one| one.certificate == second.kind(AuthorityKind::Control)[0].certificate)
        };
        while !known(&roots.load()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MINUTE, followed).await.unwrap();
    assert!(drain.finish(MINUTE).await);
}
