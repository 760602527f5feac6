//! Judging peers' chains (conformance §4). Odd leaves come from rcgen directly, signed by a real authority key.

use std::time::Duration;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::*;
use crate::authority::{OutsideLife, X509Authority};
use crate::certificate::CertificateError;
use crate::crl::{CrlNumber, RevocationReason, RevokedEntry, sign_crl};
use crate::signer::RcgenSigner;
use crate::testing::*;
use crate::time::to_datetime;

const WORKLOAD: &str = "spiffe://td/ns/shop/sa/cart";
const SECOND: Duration = Duration::from_secs(1);

fn trusted(authority: &X509Authority, revoked: &[RevokedEntry]) -> TrustedAuthority {
    TrustedAuthority {
        certificate: authority.certificate().clone(),
        crl: Some(crl(authority, revoked)),
    }
}

fn roots(authority: &X509Authority) -> TrustRoots {
    TrustRoots::new(vec![(td("td"), vec![trusted(authority, &[])])])
}

fn revocation(number: u8) -> RevokedEntry {
    RevokedEntry {
        serial: serial(number),
        revoked_at: now(),
        reason: RevocationReason::KeyCompromise,
        invalid_since: None,
    }
}

fn verify(leaf: &[u8], roots: &TrustRoots) -> Result<VerifiedSvid, VerifyError> {
    let as_client = verify_chain(&chain(leaf), Role::Client, roots, now());
    assert_eq!(as_client, verify_chain(&chain(leaf), Role::Server, roots, now()));
    as_client
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A leaf as `adjust` wants it.
fn odd_leaf(authority: &X509Authority, adjust: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = to_datetime(now() - HOUR);
    params.not_after = to_datetime(now() + HOUR);
    params.subject_alt_names = vec![uri(WORKLOAD)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    adjust(&mut params);
    let issuer = authority.certificate().issuer_params().unwrap();
    let issuer = Issuer::from_params(issuer, RcgenSigner(authority.signer().as_ref()));
    params
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap()
        .der()
        .to_vec()
}

/// Covers VAL-01, VAL-08.
#[test]
fn a_leaf_of_a_trusted_authority_is_believed_in_both_roles() {
    let authority = authority("td");
    let svid = svid(&authority, WORKLOAD, 1);
    let verified = verify(&svid.chain()[0], &roots(&authority)).unwrap();
    assert_eq!(verified.spiffe_id(), svid.spiffe_id());
    assert_eq!(
        (verified.serial, verified.authority_id),
        (serial(1), authority.certificate().id())
    );
    assert_eq!(verified.not_after, svid.not_after());
}

/// Covers VAL-02, VAL-03, VAL-04, VAL-05, VAL-06, VAL-07, VAL-12, X509-12, RS-09.
#[test]
fn leaves_that_break_a_spiffe_rule_are_refused() {
    let authority = authority("td");
    let roots = roots(&authority);
    assert!(verify(&odd_leaf(&authority, |_| {}), &roots).is_ok());
    let refused = |adjust: &dyn Fn(&mut CertificateParams), why: &str| {
        let leaf = odd_leaf(&authority, |params| adjust(params));
        let error = verify(&leaf, &roots).unwrap_err();
        assert!(error.to_string().contains(why), "{error} is not about {why}");
        assert_eq!(inspect_leaf(&leaf), Err(error));
    };
    refused(
        &|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
        "CA certificate",
    );
    refused(
        &|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
        "key usage allows",
    );
    refused(
        &|p| p.key_usages.push(KeyUsagePurpose::CrlSign),
        "key usage allows",
    );
    refused(&|p| p.key_usages.clear(), "key usage is missing");
    refused(
        &|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement],
        "key usage is missing",
    );
    refused(
        &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        "extended key usage",
    );
    refused(
        &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
        "extended key usage",
    );
    refused(
        &|p| p.subject_alt_names = vec![uri("https://td/w")],
        "no SPIFFE ID",
    );
    refused(&|p| p.subject_alt_names = vec![uri("spiffe://td")], "no path");
    refused(
        &|p| p.subject_alt_names = vec![uri("spiffe://td/a/")],
        "no SPIFFE ID",
    );
    refused(
        &|p| p.subject_alt_names = vec![uri("spiffe://TD/a")],
        "no SPIFFE ID",
    );
    refused(
        &|p| p.subject_alt_names.push(uri("spiffe://td/other")),
        "more than one",
    );
    refused(&|p| p.subject_alt_names.push(uri("https://x")), "more than one");
    refused(&|p| p.subject_alt_names.clear(), "no URI name");
    refused(
        &|p| p.subject_alt_names = vec![SanType::DnsName("td".try_into().unwrap())],
        "no URI name",
    );
}

/// Covers VAL-11.
#[test]
fn an_unknown_critical_extension_is_refused() {
    let authority = authority("td");
    let leaf = odd_leaf(&authority, |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let refusal = verify(&leaf, &roots(&authority));
    assert!(matches!(
        refusal,
        Err(VerifyError::Malformed(CertificateError::UnknownCritical(_)))
    ));
}

#[test]
fn a_leaf_without_our_key_identifier_is_not_one_of_ours() {
    let authority = authority("td");
    let leaf = odd_leaf(&authority, |params| {
        params.use_authority_key_identifier_extension = false;
    });
    assert!(matches!(inspect_leaf(&leaf), Err(VerifyError::NotAnSvid(_))));
    assert!(verify(&leaf, &roots(&authority)).is_ok());
}

/// Covers ID-22, VAL-08, VAL-09, VAL-15, BND-16, FED-08.
#[test]
fn only_the_authorities_of_the_leaf_s_own_domain_count() {
    let (ours, theirs) = (authority("td"), authority("other"));
    let both = TrustRoots::new(vec![
        (td("td"), vec![trusted(&ours, &[])]),
        (td("other"), vec![trusted(&theirs, &[])]),
        (td("empty"), Vec::new()),
    ]);
    assert!(verify(&svid(&theirs, "spiffe://other/w", 1).chain()[0], &both).is_ok());
    // Signed by the other domain, naming ours.
    let confused = odd_leaf(&theirs, |_| {});
    assert!(matches!(
        verify(&confused, &both),
        Err(VerifyError::Untrusted { .. })
    ));
    let unknown = odd_leaf(&ours, |params| {
        params.subject_alt_names = vec![uri("spiffe://third/w")];
    });
    assert_eq!(
        verify(&unknown, &both),
        Err(VerifyError::UnknownTrustDomain(td("third")))
    );
    let emptied = odd_leaf(&ours, |params| {
        params.subject_alt_names = vec![uri("spiffe://empty/w")];
    });
    assert!(matches!(
        verify(&emptied, &both),
        Err(VerifyError::Untrusted { .. })
    ));
}

/// Covers VAL-11.
#[test]
fn leaves_and_authorities_outside_their_life_are_refused() {
    let signer = authority("td");
    let svid = svid(&signer, WORKLOAD, 1);
    let roots = roots(&signer);
    let at = |time| verify_chain(&chain(&svid.chain()[0]), Role::Client, &roots, time);
    let outside = |time| OutsideDates::check(svid.not_before(), svid.not_after(), time).unwrap_err();
    assert!(at(svid.not_after()).is_ok() && at(svid.not_before()).is_ok());
    assert_eq!(
        at(svid.not_after() + SECOND),
        Err(VerifyError::Expired(outside(svid.not_after() + SECOND)))
    );
    assert_eq!(
        at(svid.not_before() - SECOND),
        Err(VerifyError::NotYetValid(outside(svid.not_before() - SECOND)))
    );

    let old = authority_between("td", now() - DAY, now() - SECOND);
    let outliving = odd_leaf(&old, |_| {});
    let roots = TrustRoots::new(vec![(td("td"), vec![trusted(&old, &[])])]);
    assert_eq!(
        verify(&outliving, &roots),
        Err(VerifyError::AuthorityNotValid(OutsideLife {
            authority: old.certificate().id(),
            dates: OutsideDates::check(now() - DAY, now() - SECOND, now()).unwrap_err(),
        }))
    );
}

/// Covers CRL-29.
#[test]
fn revocation_fails_closed() {
    let authority = authority("td");
    let svid = svid(&authority, WORKLOAD, 1);
    let leaf = &svid.chain()[0];
    let id = authority.certificate().id();
    let with = |crl: Option<Crl>| {
        let certificate = authority.certificate().clone();
        verify(
            leaf,
            &TrustRoots::new(vec![(td("td"), vec![TrustedAuthority { certificate, crl }])]),
        )
    };
    assert_eq!(with(None), Err(VerifyError::CrlMissing(id)));
    assert!(with(Some(crl(&authority, &[revocation(2)]))).is_ok());
    let revoked = VerifyError::Revoked {
        id: svid.spiffe_id().clone(),
        serial: serial(1),
    };
    assert_eq!(
        with(Some(crl(&authority, &[revocation(1)]))),
        Err(revoked.clone())
    );
    let past = |entries: &[RevokedEntry]| {
        sign_crl(&authority, entries, CrlNumber(1), now() - HOUR, now() - SECOND).unwrap()
    };
    let stale = past(&[]);
    let dates = OutsideDates::check(stale.this_update(), stale.next_update(), now()).unwrap_err();
    let outside = OutsideLife { authority: id, dates };
    assert_eq!(with(Some(stale)), Err(VerifyError::CrlStale(outside)));
    assert_eq!(with(Some(past(&[revocation(1)]))), Err(revoked));
    let stranger = crl(&crate::testing::authority("td"), &[]);
    assert_eq!(with(Some(stranger)), Err(VerifyError::CrlMissing(id)));
}

/// Only listed certificates are refused under the policy of an agent towards its server.
#[test]
fn a_tolerant_policy_forgives_missing_lists_but_no_revocation() {
    let authority = authority("td");
    let svid = svid(&authority, WORKLOAD, 1);
    let with = |crl: Option<Crl>| {
        let certificate = authority.certificate().clone();
        let roots = TrustRoots::new(vec![(td("td"), vec![TrustedAuthority { certificate, crl }])]);
        let roots = roots.with_crl_policy(CrlPolicy::Tolerate);
        let peer = verify(&svid.chain()[0], &roots)?;
        assert_eq!(peer.recheck(&roots, now()), Ok(()));
        Ok(())
    };
    let past = |entries: &[RevokedEntry]| {
        sign_crl(&authority, entries, CrlNumber(1), now() - HOUR, now() - SECOND).unwrap()
    };
    let revoked = VerifyError::Revoked {
        id: svid.spiffe_id().clone(),
        serial: serial(1),
    };
    assert_eq!(with(None), Ok(()));
    assert_eq!(with(Some(past(&[]))), Ok(()));
    assert_eq!(
        with(Some(crl(&crate::testing::authority("td"), &[revocation(1)]))),
        Ok(())
    );
    assert_eq!(with(Some(past(&[revocation(1)]))), Err(revoked.clone()));
    assert_eq!(with(Some(crl(&authority, &[revocation(1)]))), Err(revoked));
}

/// Covers CRL-31, CA-16.
#[test]
fn two_keys_of_one_domain_have_their_own_lists() {
    let (old, new) = (authority("td"), authority("td"));
    let roots = TrustRoots::new(vec![(
        td("td"),
        vec![trusted(&old, &[revocation(1)]), trusted(&new, &[revocation(2)])],
    )]);
    let leaf = |authority: &X509Authority, number| svid(authority, WORKLOAD, number).chain()[0].clone();
    assert!(matches!(
        verify(&leaf(&old, 1), &roots),
        Err(VerifyError::Revoked { .. })
    ));
    assert!(verify(&leaf(&old, 2), &roots).is_ok());
    assert!(verify(&leaf(&new, 1), &roots).is_ok());
    assert!(matches!(
        verify(&leaf(&new, 2), &roots),
        Err(VerifyError::Revoked { .. })
    ));
}

/// Covers VAL-01, VAL-10.
#[test]
fn forged_chains_are_refused() {
    let (ours, stranger) = (authority("td"), authority("td"));
    let roots = roots(&ours);
    let forged = svid(&stranger, WORKLOAD, 1).chain()[0].clone();
    assert!(matches!(
        verify(&forged, &roots),
        Err(VerifyError::Untrusted { .. })
    ));
    // Bringing the stranger's root along changes nothing.
    let root = CertificateDer::from(stranger.certificate().der().to_vec());
    let with_root = [CertificateDer::from(forged), root.clone()];
    assert!(matches!(
        verify_chain(&with_root, Role::Client, &roots, now()),
        Err(VerifyError::Untrusted { .. })
    ));
    // Our own root behind a good leaf is harmless, the wrong order is not.
    let good = CertificateDer::from(svid(&ours, WORKLOAD, 1).chain()[0].clone());
    let own_root = CertificateDer::from(ours.certificate().der().to_vec());
    assert!(verify_chain(&[good.clone(), own_root.clone()], Role::Client, &roots, now()).is_ok());
    assert!(verify_chain(&[own_root.clone(), good.clone()], Role::Client, &roots, now()).is_err());
    assert_eq!(
        verify_chain(&[], Role::Client, &roots, now()),
        Err(VerifyError::EmptyChain)
    );
    let long = vec![good.clone(); MAX_CHAIN + 1];
    assert!(matches!(
        verify_chain(&long, Role::Client, &roots, now()),
        Err(VerifyError::Chain(_))
    ));
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(verify_chain(&chain(&flipped), Role::Client, &roots, now()).is_err());
}

/// Covers ID-20, VAL-01.
#[test]
fn every_single_bit_counts() {
    let authority = authority("td");
    let roots = roots(&authority);
    let leaf = svid(&authority, WORKLOAD, 1).chain()[0].clone();
    for bit in 0..leaf.len() * 8 {
        let mut changed = leaf.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            verify_chain(&chain(&changed), Role::Client, &roots, now()).is_err(),
            "bit {bit}"
        );
    }
}

/// An intermediate below a trusted root has no CRL of its own here, so what it signed cannot be checked.
#[test]
fn an_issuer_that_is_not_in_the_bundle_is_refused() {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root_key = KeyPair::generate().unwrap();
    let root = params.self_signed(&root_key).unwrap();
    let root_issuer = Issuer::from_params(&params, &root_key);
    let mut below = params.clone();
    below
        .distinguished_name
        .push(rcgen::DnType::CommonName, "intermediate");
    let key = KeyPair::generate().unwrap();
    let intermediate = below.signed_by(&key, &root_issuer).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![uri(WORKLOAD)];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.not_before = to_datetime(now() - HOUR);
    let leaf = leaf
        .signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&below, &key))
        .unwrap();

    let certificate = AuthorityCertificate::from_der(root.der()).unwrap();
    let roots = TrustRoots::new(vec![(
        td("td"),
        vec![TrustedAuthority {
            certificate,
            crl: None,
        }],
    )]);
    let refusal = verify_chain(
        &[leaf.der().clone(), intermediate.der().clone()],
        Role::Client,
        &roots,
        now(),
    );
    assert!(matches!(refusal, Err(VerifyError::Untrusted { ref reason, .. }) if reason.contains("no CRL")));
}

/// Covers VAL-13.
#[test]
fn an_anchor_that_is_not_self_signed_works() {
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "upstream");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut below = params.clone();
    below.distinguished_name.push(rcgen::DnType::CommonName, "ours");
    let key = KeyPair::generate().unwrap();
    let cross = below
        .signed_by(&key, &Issuer::from_params(&params, &root_key))
        .unwrap();
    let certificate = AuthorityCertificate::from_der(cross.der()).unwrap();
    let list = rcgen::CertificateRevocationListParams {
        this_update: to_datetime(now() - HOUR),
        next_update: to_datetime(now() + HOUR),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    }
    .signed_by(&Issuer::from_params(&below, &key))
    .unwrap();
    let crl = Some(Crl::verify(list.der(), &certificate).unwrap());
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![uri(WORKLOAD)];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = leaf
        .signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&below, &key))
        .unwrap();
    let roots = TrustRoots::new(vec![(td("td"), vec![TrustedAuthority { certificate, crl }])]);
    assert!(verify(leaf.der(), &roots).is_ok());
}

/// Covers VAL-15, VAL-16.
#[test]
fn a_verified_peer_is_checked_again_against_later_roots() {
    let authority = authority("td");
    let before = roots(&authority);
    let peer = verify(&svid(&authority, WORKLOAD, 1).chain()[0], &before).unwrap();
    assert_eq!(peer.recheck(&before, now()), Ok(()));
    let after = |authorities| TrustRoots::new(vec![(td("td"), authorities)]);
    let revoked = after(vec![trusted(&authority, &[revocation(1)])]);
    assert!(matches!(
        peer.recheck(&revoked, now()),
        Err(VerifyError::Revoked { .. })
    ));
    let gone = after(vec![trusted(&crate::testing::authority("td"), &[])]);
    assert_eq!(
        peer.recheck(&gone, now()),
        Err(VerifyError::AuthorityGone(authority.certificate().id()))
    );
    assert!(matches!(
        peer.recheck(&TrustRoots::default(), now()),
        Err(VerifyError::UnknownTrustDomain(_))
    ));
    let late = peer.not_after + SECOND;
    assert_eq!(
        peer.recheck(&before, late),
        Err(VerifyError::Expired(peer.over_at(late)))
    );
    assert_eq!(peer.recheck_revocation(&before, late), Ok(()));
    assert!(matches!(
        peer.recheck_revocation(&before, now() + DAY),
        Err(VerifyError::CrlStale(_))
    ));
}

/// Covers VAL-17.
#[test]
fn weak_signatures_are_not_among_the_accepted_algorithms() {
    // sha1WithRSAEncryption has no entry at all; ring's RSA verifiers begin at 2048 bits.
    let sha1 = tlv(0x30, &[oid("2a864886f70d010105"), vec![5, 0]].concat());
    let content = &sha1[2..];
    assert!(
        webpki::ALL_VERIFICATION_ALGS
            .iter()
            .all(|algorithm| algorithm.signature_alg_id().as_ref() != content)
    );
}

#[test]
fn errors_say_who_and_why() {
    let authority = authority("td");
    let svid = svid(&authority, WORKLOAD, 1);
    let roots = TrustRoots::new(vec![(td("td"), vec![trusted(&authority, &[revocation(1)])])]);
    let error = verify(&svid.chain()[0], &roots).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("certificate {} of {WORKLOAD} is revoked", serial(1))
    );
}
