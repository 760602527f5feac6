//! Leaves: what is decided, what is written, and that the check notices every difference.

use std::time::Duration;

use proptest::prelude::*;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::authority::{
    AuthorityError, AuthorityKind, AuthorityProfile, OutsideLife, X509Authority, create_authority,
};
use crate::csr::WorkloadPublicKey;
use crate::dates::{OutsideDates, WhoseClock};
use crate::der;
use crate::signer::{LocalSigner, SignatureAlgorithm};
use crate::testing::*;
use crate::time::{from_unix_seconds, rfc3339};
use crate::verify::{Role, TrustRoots, TrustedAuthority, verify_chain};

const WORKLOAD: &str = "spiffe://td/ns/shop/sa/cart";

fn try_template(authority: &X509Authority, text: &str, purpose: Purpose) -> Result<SvidTemplate, SvidError> {
    template(
        &profile(),
        purpose,
        id(text),
        Vec::new(),
        serial(1),
        authority.certificate(),
        now(),
    )
}

struct Signed {
    authority: X509Authority,
    key: WorkloadPublicKey,
    template: SvidTemplate,
    leaf: Vec<u8>,
}

fn signed_leaf(adjust: impl FnOnce(&mut SvidTemplate)) -> Signed {
    let authority = authority("td");
    let mut template = template_for(&authority, WORKLOAD, 1);
    adjust(&mut template);
    let key = public_key(&leaf_key());
    let leaf = sign(&template, &key, &authority).unwrap();
    check(&leaf, &template, &key, authority.certificate()).unwrap();
    Signed {
        authority,
        key,
        template,
        leaf,
    }
}

/// The extension's criticality and value.
fn extension_of<'a>(leaf: &'a X509Certificate<'_>, oid: &str) -> (bool, &'a [u8]) {
    let found: Vec<_> = leaf
        .extensions()
        .iter()
        .filter(|e| e.oid.to_id_string() == oid)
        .collect();
    assert_eq!(found.len(), 1, "extension {oid}");
    (found[0].critical, found[0].value)
}

/// Covers X509-01, X509-04, X509-05, X509-06, X509-07, X509-08, X509-09, X509-10, X509-11, X509-12, X509-13.
/// Covers X509-15, X509-19, ID-21, RS-07.
#[test]
fn a_leaf_has_exactly_the_extensions_of_the_profile_in_der() {
    let signed = signed_leaf(|_| {});
    let (rest, leaf) = X509Certificate::from_der(&signed.leaf).unwrap();
    assert!(rest.is_empty());
    assert_eq!(leaf.version.0, 2);
    assert_eq!(leaf.raw_serial(), signed.template.serial.as_bytes());
    assert_eq!(leaf.signature, leaf.signature_algorithm);
    assert_eq!(leaf.subject().as_raw(), [0x30, 0x00]);
    assert_eq!(
        leaf.issuer().as_raw(),
        signed.authority.certificate().subject_der()
    );
    assert_eq!(leaf.extensions().len(), 6);

    let uri = tlv(0x86, WORKLOAD.as_bytes());
    assert_eq!(
        extension_of(&leaf, "2.5.29.17"),
        (true, nest(0x30, &[&uri]).as_slice())
    );
    assert_eq!(extension_of(&leaf, "2.5.29.19"), (true, [0x30, 0x00].as_slice()));
    assert_eq!(
        extension_of(&leaf, "2.5.29.15"),
        (true, [0x03, 0x02, 0x07, 0x80].as_slice())
    );
    let usages = nest(0x30, &[&oid("2b06010505070301"), &oid("2b06010505070302")]);
    assert_eq!(extension_of(&leaf, "2.5.29.37"), (false, usages.as_slice()));
    let key_id = tlv(0x04, signed.key.key_id().as_bytes());
    assert_eq!(extension_of(&leaf, "2.5.29.14"), (false, key_id.as_slice()));
    let issuer = nest(
        0x30,
        &[&tlv(0x80, signed.authority.certificate().id().as_bytes())],
    );
    assert_eq!(extension_of(&leaf, "2.5.29.35"), (false, issuer.as_slice()));

    let ca = X509Certificate::from_der(signed.authority.certificate().der())
        .unwrap()
        .1;
    leaf.verify_signature(Some(ca.public_key())).unwrap();
    der::signed(&signed.leaf).unwrap();
}

/// Covers X509-02.
#[test]
fn dns_names_stand_beside_the_one_uri() {
    let names = vec!["cart.shop.svc".to_owned(), "cart".to_owned()];
    let signed = signed_leaf(|template| template.dns_names.clone_from(&names));
    let leaf = Certificate::parse(&signed.leaf).unwrap();
    assert_eq!(leaf.uris, [WORKLOAD]);
    assert_eq!(leaf.dns_names, names);
}

#[test]
fn a_crl_address_is_written_only_when_a_base_is_configured() {
    let authority = authority("td");
    let with = |base: &str| {
        let profile = SvidProfile {
            crl_base_url: Some(base.to_owned()),
            ..profile()
        };
        template(
            &profile,
            Purpose::Workload,
            id(WORKLOAD),
            Vec::new(),
            serial(1),
            authority.certificate(),
            now(),
        )
    };
    let template = with("http://crl.example.org/").unwrap();
    let url = format!("http://crl.example.org/crl/{}.crl", authority.certificate().id());
    assert_eq!(template.crl_url.as_deref(), Some(url.as_str()));
    let key = public_key(&leaf_key());
    let leaf = sign(&template, &key, &authority).unwrap();
    check(&leaf, &template, &key, authority.certificate()).unwrap();
    let point = nest(0xa0, &[&nest(0xa0, &[&tlv(0x86, url.as_bytes())])]);
    let expected = nest(0x30, &[&nest(0x30, &[&point])]);
    assert_eq!(
        Certificate::parse(&leaf).unwrap().crl_points,
        Some(expected.as_slice())
    );
    for bad in [
        "",
        "crl.example.org",
        "ftp://x",
        "http://",
        "http://a b",
        "http://a?x",
        "http://u@h",
        "http://ü",
    ] {
        assert!(matches!(with(bad), Err(SvidError::CrlUrl(_))), "{bad}");
    }
}

/// Covers X509-03, BI-17, BI-18, BI-19, CA-06.
#[test]
fn ids_that_no_leaf_may_carry_are_refused() {
    let authority = authority("td");
    let refused = |text, purpose| {
        matches!(
            try_template(&authority, text, purpose),
            Err(SvidError::Identity { .. })
        )
    };
    for text in [
        "spiffe://td",
        "spiffe://other/w",
        "spiffe://td.x/w",
        "spiffe://td/signet",
        "spiffe://td/signet/server",
    ] {
        assert!(refused(text, Purpose::Workload), "{text}");
    }
    for text in [
        "spiffe://td",
        "spiffe://td/w",
        "spiffe://other/signet/server",
        "spiffe://td/signet-x",
    ] {
        assert!(refused(text, Purpose::Control), "{text}");
    }
    assert!(try_template(&authority, WORKLOAD, Purpose::Workload).is_ok());
    assert!(try_template(&authority, "spiffe://td/signet/server", Purpose::Control).is_ok());
}

/// Covers X509-16, INV-10.
#[test]
fn life_begins_in_the_past_and_never_outlives_the_authority() {
    let authority = authority_between("td", now() - HOUR, now() + Duration::from_secs(1800));
    let template = try_template(&authority, WORKLOAD, Purpose::Workload).unwrap();
    assert_eq!(template.not_before, now() - SKEW);
    assert_eq!(template.not_after, authority.certificate().not_after());
    let young = authority_between("td", now() - Duration::from_secs(5), now() + DAY);
    let template = try_template(&young, WORKLOAD, Purpose::Workload).unwrap();
    assert_eq!(template.not_before, young.certificate().not_before());
    assert_eq!(template.not_after, now() + HOUR);
    for (not_before, not_after) in [
        (now() - DAY, now() - HOUR),
        (now() + HOUR, now() + DAY),
        (now() - DAY, now()),
    ] {
        let dead = authority_between("td", not_before, not_after);
        let authority = dead.certificate().id();
        let now = now();
        let expected = OutsideLife {
            authority,
            dates: OutsideDates {
                not_before,
                not_after,
                now,
                clock: WhoseClock::Here,
            },
        };
        let refusal = try_template(&dead, WORKLOAD, Purpose::Workload);
        assert_eq!(refusal, Err(SvidError::AuthorityNotValid(expected)));
        // Both times stand in the words, and nobody has to guess which of the two it is.
        let words = expected.to_string();
        let named = if not_before > now { not_before } else { not_after };
        assert!(
            words.contains(&rfc3339(named)) && words.contains(&rfc3339(now)),
            "{words}"
        );
        assert_eq!(words.contains("expired"), not_before <= now, "{words}");
    }
}

/// Covers INV-10.
#[test]
fn no_life_is_refused_and_an_endless_one_ends_with_the_authority() {
    let young = authority_between("td", now() - Duration::from_secs(5), now() + DAY);
    let none = SvidProfile {
        ttl: Duration::ZERO,
        ..profile()
    };
    let refusal = template(
        &none,
        Purpose::Workload,
        id(WORKLOAD),
        Vec::new(),
        serial(1),
        young.certificate(),
        now(),
    );
    assert_eq!(refusal, Err(SvidError::Lifetime));
    let endless = SvidProfile {
        ttl: Duration::MAX,
        clock_skew: Duration::MAX,
        ..profile()
    };
    let capped = template(
        &endless,
        Purpose::Workload,
        id(WORKLOAD),
        Vec::new(),
        serial(1),
        young.certificate(),
        now(),
    );
    assert_eq!(capped.unwrap().not_after, young.certificate().not_after());
}

/// Covers BC-11.
#[test]
fn names_that_are_no_dns_names_are_refused() {
    let label = "a".repeat(64);
    let long = ["abcdefg"; 40].join(".");
    for name in [
        "", "*", "*.x", "*.*.x", "a..b", ".a", "a.", "-a", "a-", "A", "a_b", "a b", "a\0b", "ü", "10.0.0.1",
        "::1", &label, &long,
    ] {
        assert!(check_dns_names(&[name.to_owned()]).is_err(), "{name:?}");
    }
    assert!(check_dns_names(&["a".to_owned(), "a".to_owned()]).is_err());
    let many: Vec<String> = (0..10_000).map(|n| format!("n{n}")).collect();
    assert_eq!(check_dns_names(&many), Err(SvidError::TooManyDnsNames(10_000)));
    assert!(check_dns_names(&["xn--bcher-kva.example".to_owned(), "0.a-b.c".to_owned()]).is_ok());
}

/// Covers CRL-06, X509-15.
#[test]
fn dates_are_utctime_until_2049_and_generalizedtime_from_2050() {
    let last_utc = from_unix_seconds(2_524_607_999);
    let begin = last_utc - HOUR;
    for (not_after, encoded) in [
        (last_utc, tlv(0x17, b"491231235959Z")),
        (last_utc + Duration::from_secs(1), tlv(0x18, b"20500101000000Z")),
    ] {
        let authority = authority_between("td", begin, not_after);
        let count = |der: &[u8]| {
            der.windows(encoded.len())
                .filter(|window| *window == encoded)
                .count()
        };
        assert_eq!(count(authority.certificate().der()), 1);
        assert_eq!(authority.certificate().not_after(), not_after);
        let profile = SvidProfile {
            ttl: DAY,
            ..profile()
        };
        let template = template(
            &profile,
            Purpose::Workload,
            id(WORKLOAD),
            Vec::new(),
            serial(1),
            authority.certificate(),
            begin,
        )
        .unwrap();
        let key = public_key(&leaf_key());
        let leaf = sign(&template, &key, &authority).unwrap();
        check(&leaf, &template, &key, authority.certificate()).unwrap();
        assert_eq!(count(&leaf), 1);
    }
}

/// Covers X509-20.
#[test]
fn the_check_notices_every_difference() {
    let signed = signed_leaf(|_| {});
    let differs = |change: &dyn Fn(&mut SvidTemplate), what: &str| {
        let mut template = signed.template.clone();
        change(&mut template);
        match check(
            &signed.leaf,
            &template,
            &signed.key,
            signed.authority.certificate(),
        ) {
            Err(SvidError::Wrong(found)) => assert!(found.contains(what), "{found} is not about {what}"),
            other => panic!("{what}: {other:?}"),
        }
    };
    differs(&|t| t.spiffe_id = id("spiffe://td/other"), "URI");
    differs(&|t| t.dns_names = vec!["a".to_owned()], "DNS");
    differs(&|t| t.serial = serial(2), "serial");
    differs(&|t| t.not_after += Duration::from_secs(1), "validity");
    differs(&|t| t.not_before -= Duration::from_secs(1), "validity");
    differs(
        &|t| t.crl_url = Some("http://x/crl/y.crl".to_owned()),
        "CRLDistributionPoints",
    );

    let other = authority("td");
    assert!(check(&signed.leaf, &signed.template, &signed.key, other.certificate()).is_err());
    let stranger = public_key(&leaf_key());
    assert!(
        check(
            &signed.leaf,
            &signed.template,
            &stranger,
            signed.authority.certificate()
        )
        .is_err()
    );
    assert!(
        check(
            signed.authority.certificate().der(),
            &signed.template,
            &signed.key,
            other.certificate()
        )
        .is_err()
    );
    assert!(
        check(
            &signed.leaf[1..],
            &signed.template,
            &signed.key,
            signed.authority.certificate()
        )
        .is_err()
    );
}

#[test]
fn a_key_of_another_authority_does_not_sign() {
    let (one, two) = (authority("td"), authority("td"));
    let mixed = X509Authority::new(one.certificate().clone(), two.signer().clone());
    assert_eq!(mixed.unwrap_err(), AuthorityError::KeyMismatch);
}

/// Covers CA-08, X509-14.
#[test]
fn an_authority_s_certificate_is_nobody_s_svid() {
    let (signer, pkcs8) = LocalSigner::generate(SignatureAlgorithm::P256, &rng()).unwrap();
    let profile = AuthorityProfile {
        trust_domain: td("td"),
        kind: AuthorityKind::X509,
        not_before: now() - HOUR,
        not_after: now() + DAY,
        serial: serial(1),
    };
    let authority = create_authority(&profile, &signer).unwrap();
    // The key is the right one; what is refused is what the certificate says.
    let key = LeafKey::from_pkcs8(pkcs8, &rng()).unwrap();
    let refusal = X509Svid::new(vec![authority.der().to_vec()], key);
    assert!(matches!(refusal, Err(VerifyError::NotAnSvid(_))));
}

/// Covers ID-14.
#[test]
fn the_longest_id_fits_a_certificate_and_its_verifier() {
    let longest = format!("spiffe://td/{}", "a".repeat(2048 - 12));
    let signed = signed_leaf(|template| template.spiffe_id = id(&longest));
    let info = inspect_leaf(&signed.leaf).unwrap();
    assert_eq!(info.spiffe_id.as_str(), longest);
    let trusted = TrustedAuthority {
        certificate: signed.authority.certificate().clone(),
        crl: Some(crl(&signed.authority, &[])),
    };
    let roots = TrustRoots::new(vec![(td("td"), vec![trusted])]);
    let verified = verify_chain(&chain(&signed.leaf), Role::Client, &roots, now()).unwrap();
    assert_eq!(verified.spiffe_id().as_str(), longest);
}

#[test]
fn an_svid_joins_a_leaf_with_its_own_key_and_authorities_above() {
    let signer = authority("td");
    let key = leaf_key();
    let leaf = sign(&template_for(&signer, WORKLOAD, 1), &public_key(&key), &signer).unwrap();
    let root = signer.certificate().der().to_vec();
    assert!(matches!(
        X509Svid::new(vec![leaf.clone()], leaf_key()),
        Err(VerifyError::KeyMismatch)
    ));
    assert!(matches!(
        X509Svid::new(Vec::new(), leaf_key()),
        Err(VerifyError::EmptyChain)
    ));
    let again = |key: &LeafKey| LeafKey::from_pkcs8(key.pkcs8_der().to_vec().into(), &rng()).unwrap();
    assert!(matches!(
        X509Svid::new(vec![leaf.clone(), leaf.clone()], again(&key)),
        Err(VerifyError::Chain(_))
    ));
    let svid = X509Svid::new(vec![leaf.clone(), root.clone()], key).unwrap();
    assert_eq!((svid.spiffe_id.as_str(), svid.serial), (WORKLOAD, serial(1)));
    assert_eq!(svid.authority_id, signer.certificate().id());
    assert_eq!(svid.chain_der(), [leaf, root].concat());
    let shown = format!("{svid:?}");
    assert!(shown.contains(WORKLOAD) && !shown.contains("key"), "{shown}");
}

/// Covers X509-18, RS-14.
#[test]
fn keys_are_pkcs8_version_0() {
    let key = leaf_key();
    let sequence = der::single(key.pkcs8_der()).unwrap();
    assert!(sequence.content.starts_with(&[0x02, 0x01, 0x00]));
    assert_eq!(key.public_key_spki().len(), 91);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Covers X509-20.
    #[test]
    fn every_template_comes_back_from_its_leaf(
        segments in prop::collection::vec("[A-Za-z0-9_-]{1,30}", 1..5),
        names in prop::collection::btree_set("[a-z]{1,20}(\\.[a-z0-9]{1,10}){0,3}", 0..5),
        ttl in 60_u64..2_000_000,
        tail in any::<u8>(),
    ) {
        let authority = authority("td");
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let spiffe_id = SpiffeId::from_segments(&td("td"), &parts).unwrap();
        let profile = SvidProfile { ttl: Duration::from_secs(ttl), ..profile() };
        let names = names.into_iter().collect();
        let purpose = if spiffe_id.is_reserved() { Purpose::Control } else { Purpose::Workload };
        let template =
            template(&profile, purpose, spiffe_id, names, serial(tail), authority.certificate(), now()).unwrap();
        let key = leaf_key();
        let public = public_key(&key);
        let leaf = sign(&template, &public, &authority).unwrap();
        prop_assert_eq!(check(&leaf, &template, &public, authority.certificate()), Ok(()));
        let info = inspect_leaf(&leaf).unwrap();
        prop_assert_eq!(&info.spiffe_id, &template.spiffe_id);
        prop_assert_eq!((info.serial, info.authority_id), (template.serial, authority.certificate().id()));
        prop_assert_eq!((info.not_before, info.not_after), (template.not_before, template.not_after));
        prop_assert_eq!(info.spki_sha256, public.spki_sha256());
        prop_assert!(info.not_after <= authority.certificate().not_after());
    }
}
