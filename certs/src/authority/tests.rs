//! Authorities: the certificates we make, and those of others that we take or refuse.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::bundle::TrustBundle;
use crate::link::{create_link, walk};
use crate::signer::{AuthoritySigner, LocalSigner, SignatureAlgorithm};
use crate::svid::X509Svid;
use crate::testing::*;
use crate::testkit::{self, Upstream, authority_by, authority_profile};
use crate::verify::{Role, VerifyError, verify_chain};

fn foreign(adjust: impl FnOnce(&mut CertificateParams)) -> Result<AuthorityCertificate, AuthorityError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    adjust(&mut params);
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    AuthorityCertificate::from_der(certificate.der())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Covers ID-18, ID-19, CA-01, CA-02, CA-03, CA-04, CA-05, CA-09, CA-10, CA-11, CA-12, CA-13, CA-15.
#[test]
fn our_authority_has_exactly_the_extensions_of_the_profile_in_der() {
    let authority = authority("td").certificate().clone();
    let (_, ca) = X509Certificate::from_der(authority.der()).unwrap();
    ca.verify_signature(None).unwrap();
    let extension = |oid: &str| {
        let found = ca
            .extensions()
            .iter()
            .find(|e| e.oid.to_id_string() == oid)
            .unwrap();
        (found.critical, found.value.to_vec())
    };
    assert_eq!(ca.extensions().len(), 5);
    // keyCertSign and cRLSign: bits 5 and 6.
    assert_eq!(extension("2.5.29.15"), (true, vec![0x03, 0x02, 0x01, 0x06]));
    assert_eq!(
        extension("2.5.29.19"),
        (true, vec![0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00])
    );
    assert_eq!(
        extension("2.5.29.17"),
        (false, nest(0x30, &[&tlv(0x86, b"spiffe://td")]))
    );
    let id = authority.id();
    assert_eq!(extension("2.5.29.14"), (false, tlv(0x04, id.as_bytes())));
    assert_eq!(
        extension("2.5.29.35"),
        (false, nest(0x30, &[&tlv(0x80, id.as_bytes())]))
    );
    assert_eq!(authority.trust_domain(), Some(&td("td")));
    assert_eq!(id, AuthorityId::of_spki(ca.public_key().raw));
}

/// Covers CRL-31, CA-13.
#[test]
fn two_keys_of_one_domain_have_two_names() {
    let (one, two) = (
        authority("td").certificate().clone(),
        authority("td").certificate().clone(),
    );
    assert_ne!(one.subject_der(), two.subject_der());
    let subject = one.subject();
    assert!(
        subject.contains("O=Signet") && subject.contains("CN=Signet x509 CA td"),
        "{subject}"
    );
    assert!(subject.contains(&one.id().to_string()), "{subject}");
    assert_ne!(one, two);
    assert_eq!(one, AuthorityCertificate::from_der(one.der()).unwrap());
}

#[test]
fn a_long_trust_domain_keeps_the_common_name_within_its_bound() {
    let name = "a".repeat(255);
    let authority = authority(&name).certificate().clone();
    let (_, ca) = X509Certificate::from_der(authority.der()).unwrap();
    assert_eq!(
        ca.subject().iter_common_name().next().unwrap().as_slice().len(),
        64
    );
    assert_eq!(authority.trust_domain().unwrap().as_str(), name);
}

#[test]
fn a_life_that_ends_before_it_begins_is_refused() {
    let (signer, _) = LocalSigner::generate(SignatureAlgorithm::P256, &rng()).unwrap();
    for not_after in [now(), now() - Duration::from_secs(1)] {
        let profile = AuthorityProfile {
            trust_domain: td("td"),
            kind: AuthorityKind::Control,
            not_before: now(),
            not_after,
            serial: serial(1),
        };
        assert_eq!(create_authority(&profile, &signer), Err(AuthorityError::Validity));
    }
}

#[test]
fn a_sealed_key_signs_again_after_it_was_read_back() {
    let (signer, pkcs8) = LocalSigner::generate(SignatureAlgorithm::P256, &rng()).unwrap();
    let again = LocalSigner::from_pkcs8(&pkcs8, rng()).unwrap();
    assert_eq!(signer.public_point(), again.public_point());
    assert!(LocalSigner::from_pkcs8(&pkcs8[1..], rng()).is_err());
}

/// Covers CA-04, CA-05, CA-15, X509-14.
#[test]
fn certificates_that_are_no_spiffe_authority_are_refused() {
    assert!(foreign(|_| {}).unwrap().trust_domain().is_none());
    assert!(foreign(|params| params.subject_alt_names = vec![uri("spiffe://td")]).is_ok());
    let refused = |adjust: &dyn Fn(&mut CertificateParams)| foreign(|params| adjust(params)).unwrap_err();
    refused(&|params| params.is_ca = IsCa::ExplicitNoCa);
    refused(&|params| params.is_ca = IsCa::NoCa);
    refused(&|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    refused(&|params| params.distinguished_name = DistinguishedName::new());
    refused(&|params| params.subject_alt_names = vec![uri("spiffe://td"), uri("spiffe://td2")]);
    for text in ["spiffe://td/path", "spiffe://td/", "https://td", "spiffe://TD"] {
        let error = refused(&|params| params.subject_alt_names = vec![uri(text)]);
        assert!(matches!(error, AuthorityError::Name(_)), "{text}");
    }
    let leaf = svid(&authority("td"), "spiffe://td/w", 1);
    assert!(AuthorityCertificate::from_der(&leaf.chain()[0]).is_err());
}

#[test]
fn broken_der_is_refused() {
    let der = authority("td").certificate().der().to_vec();
    for end in 0..der.len() {
        assert!(AuthorityCertificate::from_der(&der[..end]).is_err());
    }
    let mut trailing = der;
    trailing.push(0);
    assert!(AuthorityCertificate::from_der(&trailing).is_err());
}

/// Covers VAL-11.
#[test]
fn an_unknown_critical_extension_is_refused_and_a_plain_one_is_not() {
    let with = |critical| {
        foreign(move |params| {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
        })
    };
    assert!(with(false).is_ok());
    let refusal = AuthorityError::Certificate(CertificateError::UnknownCritical(
        "1.3.6.1.4.1.99999.1".to_owned(),
    ));
    assert_eq!(with(true), Err(refusal));
}

#[test]
fn the_number_of_extensions_is_bounded() {
    let with = |count: u64| {
        foreign(|params| {
            let custom = |n| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, n], vec![5, 0]);
            params.custom_extensions.extend((0..count).map(custom));
        })
    };
    assert!(with(10).is_ok());
    assert!(with(100).unwrap_err().to_string().contains("the limit is 32"));
}

#[test]
fn names_that_rcgen_cannot_repeat_are_trusted_but_not_signed_under() {
    let teletex = foreign(|params| {
        let value = DnValue::TeletexString("Old".try_into().unwrap());
        params.distinguished_name.push(DnType::OrganizationName, value);
    })
    .unwrap();
    assert_eq!(teletex.issuer_params().err(), Some(AuthorityError::Subject));
}

#[test]
fn ids_and_kinds_are_written_and_read() {
    let id = authority("td").certificate().id();
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(AuthorityId::from_bytes(*id.as_bytes()), id);
    assert_eq!(
        serde_json::from_str::<AuthorityId>(&serde_json::to_string(&id).unwrap()).unwrap(),
        id
    );
    for text in ["", "ab", &"g".repeat(40), &"a".repeat(42)] {
        assert!(text.parse::<AuthorityId>().is_err());
    }
    for kind in [AuthorityKind::X509, AuthorityKind::Control] {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
    }
    assert!("jwt".parse::<AuthorityKind>().is_err());
}

/// Nothing assumes the size of a signature or of a key.
#[test]
fn authorities_of_every_algorithm_sign_leaves_lists_bundles_and_links_that_hold() {
    let by = |algorithm| authority_by(algorithm, authority_profile("td"));
    for algorithm in SignatureAlgorithm::ALL {
        let authority = by(algorithm);
        let (good, bad) = (
            svid(&authority, "spiffe://td/good", 1),
            svid(&authority, "spiffe://td/bad", 2),
        );
        let list = testkit::crl(&authority, 1, &[bad.serial()]);
        let roots = testkit::roots(&[(&authority, Some(&list))]);
        let judged = |svid: &X509Svid| verify_chain(&chain(&svid.chain()[0]), Role::Client, &roots, now());
        assert_eq!(
            judged(&good).unwrap().authority_id(),
            authority.certificate().id()
        );
        let revoked = judged(&bad).unwrap_err();
        assert!(matches!(revoked, VerifyError::Revoked { .. }), "{revoked}");
        let certificates = vec![authority.certificate().clone()];
        let bundle = TrustBundle::new(td("td"), certificates.clone(), 1, HOUR);
        let read = TrustBundle::parse_json(&td("td"), &bundle.to_json().unwrap()).unwrap();
        assert_eq!(read.authorities, certificates);
        for other in SignatureAlgorithm::ALL {
            let successor = by(other);
            let made = create_link(&authority, successor.certificate(), serial(3), now()).unwrap();
            let reached = walk(&certificates, &[made], &td("td"), |_| false, now());
            assert_eq!(reached[0].id(), successor.certificate().id());
        }
    }
}

#[test]
fn a_key_of_another_algorithm_does_not_belong_to_a_certificate() {
    let [one, other] =
        SignatureAlgorithm::ALL.map(|algorithm| authority_by(algorithm, authority_profile("td")));
    let joined = X509Authority::new(one.certificate().clone(), other.signer().clone());
    assert_eq!(joined.err(), Some(AuthorityError::KeyMismatch));
}

/// An authority below a root of somebody else's.
fn below(root: &Upstream) -> (X509Authority, AuthorityProfile) {
    let profile = authority_profile("td");
    let (signer, _) = LocalSigner::generate(SignatureAlgorithm::P256, &rng()).unwrap();
    let chain = root.certify(&profile, &signer.spki(), |_| {}).unwrap();
    (X509Authority::new(chain, Arc::new(signer)).unwrap(), profile)
}

#[test]
fn a_leaf_below_a_root_is_shown_with_what_leads_there() {
    let root = Upstream::default();
    let (authority, profile) = below(&root);
    profile
        .check(authority.certificate(), authority.signer().as_ref(), now())
        .unwrap();
    let leaf = svid(&authority, "spiffe://td/w", 1).chain()[0].clone();
    let shown: Vec<CertificateDer<'_>> = authority
        .chain_of(leaf)
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    assert_eq!(shown.len(), 2, "the root is not sent");
    let time = UnixTime::since_unix_epoch(now().duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let leaf = webpki::EndEntityCert::try_from(&shown[0]).unwrap();
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[root.certificate().anchor().clone()],
        &shown[1..],
        time,
        webpki::KeyUsage::client_auth(),
        None,
        None,
    )
    .unwrap();
    assert_eq!(
        crate::testing::authority("td").chain_of(vec![1]),
        [[1]],
        "one that signed itself is the root"
    );
}

#[test]
fn certificates_that_do_not_follow_each_other_are_no_chain() {
    let root = Upstream::default();
    let (authority, _) = below(&root);
    let (own, above) = (authority.certificate().clone(), root.certificate().clone());
    let refused = |certificates| matches!(AuthorityChain::new(certificates), Err(AuthorityError::Chain(_)));
    assert!(!refused(vec![own.clone(), above.clone()]));
    assert!(!refused(vec![own.clone()]), "the anchor may be any certificate");
    assert!(refused(vec![]));
    assert!(refused(vec![above, own.clone()]));
    assert!(refused(vec![
        own.clone(),
        Upstream::default().certificate().clone()
    ]));
    assert!(refused(vec![own; MAX_AUTHORITY_CHAIN + 1]));
    let narrow = Upstream::new(BasicConstraints::Constrained(0));
    let made = narrow.certify(&authority_profile("td"), &authority.signer().spki(), |_| {});
    assert!(
        matches!(made, Err(AuthorityError::Chain(_))),
        "a root that allows no authority below it"
    );
}

/// What was asked for, what came back for it, and what is wrong with that.
#[test]
fn a_certificate_that_says_something_else_than_was_asked_for_is_not_taken() {
    let root = Upstream::default();
    let (authority, profile) = below(&root);
    let signer = authority.signer().as_ref();
    let check = |change: &dyn Fn(&mut CertificateParams)| {
        let chain = root
            .certify(&profile, &signer.spki(), |params| change(params))
            .unwrap();
        profile.check(chain.own(), signer, now())
    };
    assert_eq!(check(&|_| {}), Ok(()));
    assert_eq!(
        check(&|params| params.not_after = (now() + 16 * DAY).into()),
        Ok(()),
        "shorter"
    );
    assert_eq!(
        check(&|params| params.not_before = now().into()),
        Ok(()),
        "not set back for slow clocks"
    );
    let late = profile.not_after + HOUR;
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);
    let wrong: [(&str, Change<'_>); 6] = [
        ("ends later", &|params| params.not_after = late.into()),
        ("not valid yet", &|params| {
            params.not_before = (now() + HOUR).into();
        }),
        ("trust domain", &|params| {
            params.subject_alt_names = vec![uri("spiffe://other")];
        }),
        ("trust domain", &|params| params.subject_alt_names.clear()),
        ("cRLSign", &|params| {
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }),
        ("subject", &|params| {
            params.distinguished_name = {
                let mut name = DistinguishedName::new();
                name.push(DnType::CommonName, "Somebody");
                name
            }
        }),
    ];
    for (what, change) in wrong {
        let refused = check(change).unwrap_err().to_string();
        assert!(refused.contains(what), "{what}: {refused}");
    }
    let key_id = rcgen::KeyIdMethod::PreSpecified(vec![7; 20]);
    let refused = check(&move |params| params.key_identifier_method = key_id.clone());
    assert!(refused.unwrap_err().to_string().contains("SubjectKeyIdentifier"));
    let (other, _) = LocalSigner::generate(SignatureAlgorithm::P256, &rng()).unwrap();
    assert!(
        profile
            .check(authority.certificate(), &other, now())
            .unwrap_err()
            .to_string()
            .contains("key")
    );
}
