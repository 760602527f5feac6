//! What a message of the Workload API must be to be used.

use std::collections::HashMap;
use std::time::Duration;

use signet_certs::crl::Crl;
use signet_certs::verify;
use signet_proto::workload::X509BundlesResponse;
use signet_testkit::{DOMAIN, authority, chain, crl, crl_at, now, svid, td, trust_domain};

use super::*;
use crate::policy::{CrlPolicy, Federated};
use made::{bundle, entry, message};

#[allow(unreachable_pub, reason = "shared with the tests of the whole crate")]
#[path = "../../tests/common/message.rs"]
mod made;

fn trust(message: &X509svidResponse) -> Result<TrustRoots, MessageError> {
    Reader::default().trust(message, now())
}

fn granted(message: &X509svidResponse) -> Result<Vec<GrantedSvid>, MessageError> {
    svids(message, &trust(message)?, &SystemRandom::new(), now())
}

fn number_in_force(roots: &TrustRoots) -> Option<u64> {
    let authority = &roots.authorities(&trust_domain())[0];
    authority.crl.as_ref().map(|crl| crl.number().0)
}

fn accepted(leaf: &X509Svid, roots: &TrustRoots) -> Result<(), VerifyError> {
    verify_chain(&chain(leaf), Role::Client, roots, now()).map(drop)
}

/// Covers API-04, X5S-04, X5S-05, X5S-06, X5S-08.
#[test]
fn a_whole_message_gives_identity_trust_and_revocations() {
    let ca = authority(DOMAIN);
    let (me, bad) = (svid(&ca, "/me"), svid(&ca, "/bad"));
    let message = message(&me, &[&ca], &[&crl(&ca, 5, &[bad.serial()])]);
    let granted = granted(&message).unwrap();
    assert_eq!(granted[0].svid.spiffe_id(), me.spiffe_id());
    let roots = trust(&message).unwrap();
    assert_eq!(accepted(&me, &roots), Ok(()));
    assert!(matches!(accepted(&bad, &roots), Err(VerifyError::Revoked { .. })));
}

/// Covers X5S-02.
#[test]
fn a_message_without_svids_is_refused() {
    assert!(matches!(
        trust(&X509svidResponse::default()),
        Err(MessageError::NoSvids)
    ));
}

#[test]
fn an_answer_that_does_not_fit_together_is_refused() {
    let ca = authority(DOMAIN);
    let me = svid(&ca, "/me");
    let good = || message(&me, &[&ca], &[&crl(&ca, 1, &[])]);
    let read = |message: &X509svidResponse, now| whole(message, &SystemRandom::new(), now);
    let (svids, roots) = read(&good(), now()).unwrap();
    assert_eq!(svids[0].svid.spiffe_id(), me.spiffe_id());
    assert_eq!(number_in_force(&roots), Some(1));
    assert!(read(&X509svidResponse::default(), now()).is_err());
    let late = me.not_after() + Duration::from_secs(1);
    assert!(read(&good(), late).is_err(), "expired");
    let other = authority(DOMAIN);
    let mut other_key = good();
    other_key.svids[0].x509_svid_key = svid(&other, "/me").key().pkcs8_der().to_vec().into();
    assert!(read(&other_key, now()).is_err());
    let mut foreign_crl = good();
    foreign_crl.crl = vec![crl(&other, 1, &[]).der().clone()];
    assert!(matches!(read(&foreign_crl, now()), Err(MessageError::Crl(_))));
    let mut foreign_bundle = good();
    foreign_bundle.svids[0].bundle = bundle(&other).into();
    assert!(read(&foreign_bundle, now()).is_err());
    let mut cut = good();
    cut.svids[0].bundle = cut.svids[0].bundle.slice(..100);
    assert!(read(&cut, now()).is_err());
}

#[test]
fn crls_never_go_back_and_stay_when_left_out() {
    let ca = authority(DOMAIN);
    let (me, bad) = (svid(&ca, "/me"), svid(&ca, "/bad"));
    let (old, new) = (crl(&ca, 5, &[]), crl(&ca, 6, &[bad.serial()]));
    let mut reader = Reader::default();
    let mut number = |crls: &[&Crl]| {
        let roots = reader.trust(&message(&me, &[&ca], crls), now()).unwrap();
        number_in_force(&roots)
    };
    assert_eq!(number(&[]), None, "nothing known, nobody accepted");
    assert_eq!(number(&[&old]), Some(5));
    assert_eq!(number(&[&new]), Some(6));
    assert_eq!(number(&[&old]), Some(6), "an older list changes nothing");
    assert_eq!(number(&[]), Some(6), "nor does leaving it out");
    assert_eq!(
        number(&[&crl(&ca, 6, &[])]),
        Some(6),
        "nor other bytes under the same number"
    );
    let other = authority(DOMAIN);
    let next_leaf = svid(&other, "/me");
    reader.trust(&message(&next_leaf, &[&other], &[]), now()).unwrap();
    let roots = reader.trust(&message(&me, &[&ca], &[&old]), now()).unwrap();
    assert_eq!(
        number_in_force(&roots),
        Some(6),
        "nor does the authority's leaving and coming back"
    );
    assert!(accepted(&bad, &roots).is_err());
}

#[test]
fn crls_that_prove_nothing_are_left_out() {
    let (ca, stranger) = (authority(DOMAIN), authority(DOMAIN));
    let me = svid(&ca, "/me");
    let start = now() + Duration::from_secs(3600);
    let future = crl_at(&ca, 7, &[], start, start + Duration::from_secs(60));
    let mut forged = message(&me, &[&ca], &[&crl(&stranger, 9, &[]), &future]);
    let mut broken = crl(&ca, 8, &[]).der().to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    forged.crl.push(broken.into());
    forged.crl.push(b"junk".as_slice().into());
    let roots = trust(&forged).unwrap();
    assert_eq!(number_in_force(&roots), None);
    assert_eq!(
        accepted(&me, &roots),
        Err(VerifyError::CrlMissing(ca.certificate().id()))
    );
    assert_eq!(
        granted(&forged).unwrap().len(),
        1,
        "we are told who we are all the same"
    );
}

#[test]
fn our_own_revocation_does_not_hold_the_list_back() {
    let ca = authority(DOMAIN);
    let me = svid(&ca, "/me");
    let message = message(&me, &[&ca], &[&crl(&ca, 5, &[me.serial()])]);
    assert_eq!(granted(&message).unwrap().len(), 1);
    assert!(matches!(
        accepted(&me, &trust(&message).unwrap()),
        Err(VerifyError::Revoked { .. })
    ));
}

/// Covers X5S-05, X5S-07.
#[test]
fn an_svid_must_fit_its_key_its_name_and_the_bundle() {
    let (ca, stranger) = (authority(DOMAIN), authority(DOMAIN));
    let (me, other) = (svid(&ca, "/me"), svid(&ca, "/other"));
    let good = message(&me, &[&ca], &[]);
    let refused = |change: &dyn Fn(&mut X509svidResponse)| {
        let mut message = good.clone();
        change(&mut message);
        granted(&message).unwrap_err()
    };
    let wrong_key =
        refused(&|message| message.svids[0].x509_svid_key = other.key().pkcs8_der().to_vec().into());
    assert!(
        matches!(
            wrong_key,
            MessageError::Svid {
                source: VerifyError::KeyMismatch,
                ..
            }
        ),
        "{wrong_key}"
    );
    let no_key = refused(&|message| message.svids[0].x509_svid_key = b"x".as_slice().into());
    assert!(matches!(no_key, MessageError::Key { .. }), "{no_key}");
    let wrong_name = refused(&|message| message.svids[0].spiffe_id = other.spiffe_id().to_string());
    assert!(wrong_name.to_string().contains("differs"), "{wrong_name}");
    let no_name = refused(&|message| message.svids[0].spiffe_id = "me\n".into());
    assert!(matches!(no_name, MessageError::Id { .. }), "{no_name}");
    let untrusted = refused(&|message| message.svids[0].bundle = bundle(&stranger).into());
    assert!(
        matches!(
            untrusted,
            MessageError::Svid {
                source: VerifyError::Untrusted { .. },
                ..
            }
        ),
        "{untrusted}"
    );
    let no_chain = refused(&|message| message.svids[0].x509_svid = vec![].into());
    assert!(matches!(no_chain, MessageError::Svid { .. }), "{no_chain}");
    let cut = refused(&|message| {
        message.svids[0].x509_svid = me.chain()[0][..me.chain()[0].len() - 1].to_vec().into();
    });
    assert!(matches!(cut, MessageError::Svid { .. }), "{cut}");
}

/// Covers X5S-12.
#[test]
fn an_expired_svid_is_refused() {
    let ca = authority(DOMAIN);
    let message = message(&svid(&ca, "/me"), &[&ca], &[&crl(&ca, 1, &[])]);
    let later = now() + Duration::from_secs(3601);
    let roots = Reader::default().trust(&message, later).unwrap();
    let error = svids(&message, &roots, &SystemRandom::new(), later).unwrap_err();
    assert!(
        matches!(
            error,
            MessageError::Svid {
                source: VerifyError::Expired(_),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_bundle_of_ours_must_be_whole() {
    let (ca, foreign) = (authority(DOMAIN), authority("example.com"));
    let me = svid(&ca, "/me");
    for faulty in [vec![], b"junk".to_vec(), me.chain()[0].clone(), bundle(&foreign)] {
        let mut message = message(&me, &[&ca], &[]);
        message.svids[0].bundle = faulty.into();
        assert!(matches!(trust(&message), Err(MessageError::Bundle { .. })));
    }
    let mut two = message(&me, &[&ca], &[]);
    two.svids
        .push(entry(&svid(&ca, "/other"), &bundle(&authority(DOMAIN))));
    assert!(matches!(trust(&two), Err(MessageError::Bundle { .. })));
}

/// Covers API-10, API-17, X5S-09, X5S-13.
#[test]
fn foreign_bundles_count_for_their_domain_only_and_faulty_ones_for_none() {
    let (ca, foreign, imposter) = (authority(DOMAIN), authority("example.com"), authority(DOMAIN));
    let me = svid(&ca, "/me");
    let mut message = message(
        &me,
        &[&ca],
        &[&crl(&ca, 1, &[]), &crl(&foreign, 1, &[]), &crl(&imposter, 1, &[])],
    );
    message
        .federated_bundles
        .insert("spiffe://example.com".into(), bundle(&foreign).into());
    message
        .federated_bundles
        .insert("spiffe://example.org".into(), bundle(&imposter).into());
    message
        .federated_bundles
        .insert("spiffe://example.net".into(), vec![].into());
    message
        .federated_bundles
        .insert("spiffe://example.edu".into(), bundle(&ca).into());
    let roots = trust(&message).unwrap();
    assert_eq!(accepted(&svid(&foreign, "/peer"), &roots), Ok(()));
    assert_eq!(accepted(&me, &roots), Ok(()));
    assert!(accepted(&svid(&imposter, "/me"), &roots).is_err());
    for unused in ["example.net", "example.edu"] {
        assert!(roots.authorities(&td(unused)).is_empty());
    }
}

/// Covers API-11, API-13.
#[test]
fn order_is_kept_and_a_hint_counts_once() {
    let ca = authority(DOMAIN);
    let mut message = message(&svid(&ca, "/first"), &[&ca], &[]);
    for (path, hint) in [
        ("/a", "internal"),
        ("/b", "internal"),
        ("/c", "external"),
        ("/d", ""),
    ] {
        let mut entry = entry(&svid(&ca, path), &bundle(&ca));
        entry.hint = hint.into();
        message.svids.push(entry);
    }
    let granted = granted(&message).unwrap();
    let paths: Vec<&str> = granted
        .iter()
        .map(|granted| granted.svid.spiffe_id().path())
        .collect();
    assert_eq!(paths, ["/first", "/a", "/c", "/d"]);
}

#[test]
fn lists_are_bounded() {
    let ca = authority(DOMAIN);
    let mut message = message(&svid(&ca, "/me"), &[&ca], &[]);
    message.crl = vec![b"x".as_slice().into(); 257];
    let error = trust(&message).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the message holds 257 CRLs, at most 256 are read"
    );
}

/// As an agent looks that knows nothing of revocation, and then as one that does.
#[test]
fn lists_are_required_from_the_first_one_seen_of_that_trust_domain_on() {
    let (ca, foreign) = (authority(DOMAIN), authority("example.com"));
    let (me, bad, peer) = (svid(&ca, "/me"), svid(&ca, "/bad"), svid(&foreign, "/peer"));
    let with = |crls: &[&Crl]| {
        let mut message = message(&me, &[&ca], crls);
        let federated = bundle(&foreign).into();
        message
            .federated_bundles
            .insert("spiffe://example.com".into(), federated);
        message
    };
    let mut reader = Reader::new(CrlPolicy::Prefer, Federated::All);
    let roots = reader.trust(&with(&[]), now()).unwrap();
    assert_eq!(accepted(&me, &roots), Ok(()));
    assert_eq!(accepted(&peer, &roots), Ok(()));

    let roots = reader
        .trust(&with(&[&crl(&ca, 5, &[bad.serial()])]), now())
        .unwrap();
    assert!(matches!(accepted(&bad, &roots), Err(VerifyError::Revoked { .. })));
    assert_eq!(
        accepted(&peer, &roots),
        Ok(()),
        "of the other domain none was seen"
    );

    // The list has ended, and no newer one comes.
    let late = now() + Duration::from_secs(30 * 24 * 3600);
    let roots = reader.trust(&with(&[]), late).unwrap();
    let judged = |leaf, at| verify_chain(&chain(leaf), Role::Client, &roots, at).map(drop);
    assert!(matches!(judged(&me, now()), Ok(())));
    assert_eq!(roots.crl_policy(&trust_domain()), verify::CrlPolicy::Require);
    assert_eq!(roots.crl_policy(&td("example.com")), verify::CrlPolicy::Tolerate);

    // Nor does it help that the authority is another one.
    let next = authority(DOMAIN);
    let leaf = svid(&next, "/me");
    let roots = reader.trust(&message(&leaf, &[&next], &[]), now()).unwrap();
    assert_eq!(
        accepted(&leaf, &roots),
        Err(VerifyError::CrlMissing(next.certificate().id()))
    );
}

#[test]
fn under_require_no_list_means_nobody() {
    let ca = authority(DOMAIN);
    let me = svid(&ca, "/me");
    let mut reader = Reader::new(CrlPolicy::Require, Federated::All);
    let roots = reader.trust(&message(&me, &[&ca], &[]), now()).unwrap();
    let missing = VerifyError::CrlMissing(ca.certificate().id());
    assert_eq!(accepted(&me, &roots), Err(missing));
}

#[test]
fn federated_domains_count_as_the_program_wants() {
    let (ca, com, net) = (
        authority(DOMAIN),
        authority("example.com"),
        authority("example.net"),
    );
    let (me, of_com, of_net) = (svid(&ca, "/me"), svid(&com, "/peer"), svid(&net, "/peer"));
    let lists = [crl(&ca, 1, &[]), crl(&com, 1, &[]), crl(&net, 1, &[])];
    let mut message = message(&me, &[&ca], &lists.each_ref());
    for (name, authority) in [("spiffe://example.com", &com), ("spiffe://example.net", &net)] {
        let federated = bundle(authority).into();
        message.federated_bundles.insert(name.into(), federated);
    }
    for (federated, expected) in [
        (Federated::All, [true, true]),
        (Federated::Only(vec![td("example.com")]), [true, false]),
        (Federated::None, [false, false]),
    ] {
        let mut reader = Reader::new(CrlPolicy::Require, federated);
        let roots = reader.trust(&message, now()).unwrap();
        assert_eq!(accepted(&me, &roots), Ok(()));
        let found = [&of_com, &of_net].map(|leaf| accepted(leaf, &roots).is_ok());
        assert_eq!(found, expected);
    }
}

#[test]
fn bundles_alone_say_whom_to_trust() {
    let (ca, com) = (authority(DOMAIN), authority("example.com"));
    let bundles = HashMap::from([
        ("spiffe://example.org".to_owned(), bundle(&ca).into()),
        ("spiffe://example.com".to_owned(), b"junk".as_slice().into()),
    ]);
    let crl = vec![crl(&ca, 1, &[]).der().clone(), crl(&com, 1, &[]).der().clone()];
    let mut reader = Reader::default();
    let message = X509BundlesResponse { crl, bundles };
    let roots = reader.trust_bundles(&message, now()).unwrap();
    assert_eq!(accepted(&svid(&ca, "/server"), &roots), Ok(()));
    assert!(roots.authorities(&td("example.com")).is_empty());
    let empty = X509BundlesResponse::default();
    assert!(matches!(
        reader.trust_bundles(&empty, now()),
        Err(MessageError::NoBundles)
    ));
}

#[test]
fn a_program_picks_among_its_identities() {
    let ca = authority(DOMAIN);
    let mut message = message(&svid(&ca, "/first"), &[&ca], &[]);
    message.svids.push(entry(&svid(&ca, "/second"), &bundle(&ca)));
    message.svids[1].hint = "internal".into();
    let granted = granted(&message).unwrap();
    let by = |pick: fn(&[GrantedSvid]) -> Option<usize>| Pick::By(Arc::new(pick)).choose(&granted);
    assert_eq!(Pick::Default.choose(&granted).unwrap(), 0);
    assert_eq!(Pick::Hint("internal".into()).choose(&granted).unwrap(), 1);
    let second = |svids: &[GrantedSvid]| {
        let is_second = |granted: &GrantedSvid| granted.svid.spiffe_id().path() == "/second";
        svids.iter().position(is_second)
    };
    assert_eq!(by(second).unwrap(), 1);
    assert!(matches!(by(|_| None), Err(MessageError::NotPicked(2))));
    assert!(matches!(by(|_| Some(2)), Err(MessageError::NotPicked(2))));
}
