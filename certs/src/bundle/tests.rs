//! Bundle documents: what we write, and what we take from others (conformance §7, §15.7).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::*;

fn bundle(authorities: usize) -> TrustBundle {
    let authorities = (0..authorities)
        .map(|_| authority("td").certificate().clone())
        .collect();
    TrustBundle::new(td("td"), authorities, 7, Duration::from_secs(60))
}

fn document(bundle: &TrustBundle) -> Value {
    serde_json::from_slice(&bundle.to_json().unwrap()).unwrap()
}

fn parse(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::parse_json(&td("td"), document.to_string().as_bytes())
}

/// Covers BND-01, BND-02, BND-03, BND-04, BND-05, BND-06, BND-08, BND-09, BND-10, BND-11, BND-15, BND-18, BND-19, BND-20.
#[test]
fn the_document_has_exactly_the_standard_members() {
    let bundle = bundle(1);
    let document = document(&bundle);
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        members(&document),
        ["keys", "spiffe_refresh_hint", "spiffe_sequence"]
    );
    assert_eq!(document["spiffe_sequence"], 7);
    assert_eq!(document["spiffe_refresh_hint"], 60);
    let key = &document["keys"][0];
    assert_eq!(members(key), ["crv", "kty", "use", "x", "x5c", "y"]);
    assert_eq!(
        (&key["kty"], &key["crv"], &key["use"]),
        (&json!("EC"), &json!("P-256"), &json!("x509-svid"))
    );
    assert_eq!(key["x5c"], json!([STANDARD.encode(bundle.authorities[0].der())]));
    assert_eq!(key["x"].as_str().unwrap().len(), 43);
    assert!(!document.to_string().contains("td\""));
}

/// Covers BND-23.
#[test]
fn equal_contents_give_equal_bytes_and_digests_in_any_order() {
    let one = bundle(3);
    let mut reversed = one.authorities.clone();
    reversed.reverse();
    reversed.push(one.authorities[0].clone());
    let two = TrustBundle::new(td("td"), reversed, 7, Duration::from_secs(60));
    assert_eq!(one, two);
    assert_eq!(one.to_json(), two.to_json());
    assert_eq!(one.digest(), two.digest());
    assert_eq!(one.to_der_concat(), two.to_der_concat());
}

#[test]
fn the_digest_names_everything_but_the_sequence_number() {
    let base = bundle(2);
    let changed = |change: &dyn Fn(&mut TrustBundle)| {
        let mut bundle = base.clone();
        change(&mut bundle);
        bundle.digest() != base.digest()
    };
    assert!(!changed(&|bundle| bundle.sequence_number = 8));
    assert!(changed(&|bundle| bundle.refresh_hint = Duration::from_secs(61)));
    assert!(changed(&|bundle| bundle.trust_domain = td("te")));
    assert!(changed(&|bundle| drop(bundle.authorities.pop())));
}

/// Covers BND-14, BD-03, BD-04.
#[test]
fn a_document_without_usable_keys_is_a_valid_empty_bundle() {
    let key = document(&bundle(1))["keys"][0].clone();
    for keys in [
        json!([]),
        json!([{"kty": "EC"}]),
        json!([{"kty": "EC", "use": "sig"}, {"kty": "EC", "use": 5}]),
        json!([{"use": "X509-SVID", "kty": "EC", "x5c": key["x5c"]}]),
        json!([{"use": "jwt-svid", "kty": "EC", "kid": "a"}, {"use": "wit-svid", "kty": "EC", "kid": "a"}]),
    ] {
        assert_eq!(parse(&json!({ "keys": keys })).unwrap().authorities, []);
    }
}

/// Covers BND-02, BD-01, BD-02, BD-13, RS-10.
#[test]
fn what_is_no_document_is_refused() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "\"x\"",
        "keys",
        "{\"keys\":null}",
        "{\"keys\":\"\"}",
        "{\"keys\":{}}",
        "{\"keys\":[]} x",
        "\u{feff}{\"keys\":[]}",
        "{\"keys\":[],\"keys\":[]}",
        "{\"keys\":[5]}",
        "{\"keys\":[{\"use\":\"a\",\"use\":\"b\"}]}",
    ] {
        let refusal = TrustBundle::parse_json(&td("td"), text.as_bytes());
        assert!(
            matches!(refusal, Err(BundleError::Malformed(_))),
            "{text}: {refusal:?}"
        );
    }
    let utf16: Vec<u8> = "{\"keys\":[]}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(TrustBundle::parse_json(&td("td"), &utf16).is_err());
}

/// Covers BND-07, BND-08, BND-09, BND-12, BND-17, BD-05, BD-06, BD-07, BD-15.
#[test]
fn unusable_entries_are_skipped_and_the_good_ones_kept() {
    let good = bundle(2);
    let [one, two] = [&document(&good)["keys"][0], &document(&good)["keys"][1]].map(Clone::clone);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut entry = two.clone();
        change(&mut entry);
        parse(&json!({"keys": [entry, one], "other": {"a": 1}}))
            .unwrap()
            .authorities
            .len()
    };
    assert_eq!(with(&|_| {}), 2);
    let der = good.authorities[1].der();
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(der);
    let leaf = svid(&authority("td"), "spiffe://td/w", 1);
    for x5c in [
        json!([]),
        json!(""),
        json!([""]),
        json!([url_safe]),
        json!([good.authorities[1].pem()]),
        json!([STANDARD.encode(&der[..der.len() - 1])]),
        json!([STANDARD.encode(&leaf.chain()[0])]),
        json!([5]),
        one["x5c"].clone(),
    ] {
        assert_eq!(with(&|entry| entry["x5c"] = x5c.clone()), 1, "{x5c}");
    }
    assert_eq!(
        with(&|entry| drop(entry.as_object_mut().unwrap().remove("x5c"))),
        1
    );
    assert_eq!(with(&|entry| entry["kty"] = json!("OKP")), 1);
    assert_eq!(with(&|entry| entry["crv"] = json!("P-384")), 1);
    assert_eq!(with(&|entry| entry["x"] = one["x"].clone()), 1);
    assert_eq!(with(&|entry| entry["y"] = json!(5)), 1);
    // Two certificates in one entry: the first counts.
    let double = json!([two["x5c"][0], "junk"]);
    assert_eq!(with(&|entry| entry["x5c"] = double.clone()), 2);
}

/// Covers BND-18, BD-10.
#[test]
fn private_key_material_refuses_the_document() {
    for member in ["d", "p", "q", "k", "dp"] {
        let mut with = document(&bundle(2));
        with["keys"][1][member] = json!("AAAA");
        assert_eq!(parse(&with), Err(BundleError::PrivateKey(member.to_owned())));
    }
}

/// Covers BND-04, BND-06, BND-21, BD-11, BD-12, RS-10.
#[test]
fn sequence_numbers_are_strict_and_hints_are_brought_into_bounds() {
    let with = |name: &str, value: &str| {
        let text = format!("{{\"keys\":[],\"{name}\":{value}}}");
        TrustBundle::parse_json(&td("td"), text.as_bytes())
    };
    for (value, number) in [
        ("0", 0),
        ("9223372036854775808", 1 << 63),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(with("spiffe_sequence", value).unwrap().sequence_number, number);
    }
    for value in ["-1", "1.5", "\"7\"", "18446744073709551616", "null", "1e3"] {
        assert!(with("spiffe_sequence", value).is_err(), "{value}");
    }
    for (value, seconds) in [
        ("0", 10),
        ("-1", 10),
        ("1", 10),
        ("1000000000000", 86_400),
        ("600", 600),
        ("\"60\"", 300),
        ("1e3", 300),
        ("null", 300),
        ("99999999999999999999", 300),
    ] {
        assert_eq!(
            with("spiffe_refresh_hint", value).unwrap().refresh_hint.as_secs(),
            seconds,
            "{value}"
        );
    }
    let neither = parse(&json!({"keys": []})).unwrap();
    assert_eq!(
        (neither.sequence_number, neither.refresh_hint),
        (0, DEFAULT_REFRESH_HINT)
    );
}

/// Covers BD-14.
#[test]
fn size_count_and_nesting_are_bounded() {
    let large = vec![b' '; MAX_BUNDLE_BYTES + 1];
    assert!(matches!(
        TrustBundle::parse_json(&td("td"), &large),
        Err(BundleError::TooLarge(_))
    ));
    let many = json!({"keys": vec![json!({}); MAX_BUNDLE_KEYS + 1]});
    assert!(matches!(parse(&many), Err(BundleError::TooLarge(_))));
    let deep = format!("{{\"keys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(TrustBundle::parse_json(&td("td"), deep.as_bytes()).is_err());
}

#[test]
fn pem_comes_back_and_anything_else_in_it_is_refused() {
    let bundle = bundle(2);
    let pem: String = bundle.authorities.iter().map(AuthorityCertificate::pem).collect();
    let expected: Vec<Vec<u8>> = bundle
        .authorities
        .iter()
        .map(|authority| authority.der().to_vec())
        .collect();
    assert_eq!(parse_pem_certificates(&pem).unwrap(), expected);
    assert_eq!(
        parse_pem_certificates(&pem.replace('\n', "\r\n")).unwrap(),
        expected
    );
    assert_eq!(bundle.to_der_concat(), expected.concat());
    let key = crate::pem::encode("PRIVATE KEY", leaf_key().pkcs8_der());
    for text in ["", "hello", &format!("{pem}{key}"), &key, &pem[..pem.len() - 40]] {
        let refusal = parse_pem_certificates(text).unwrap_err().to_string();
        assert!(!refusal.contains("MIG"), "{refusal}");
    }
}

/// P-384 authorities of others are written and read; Ed25519 ones are not written, because clients choke on them.
#[test]
fn kinds_of_keys_that_every_reader_knows_are_written() {
    let foreign = |algorithm| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let authority = AuthorityCertificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        TrustBundle::new(td("td"), vec![authority], 1, DEFAULT_REFRESH_HINT)
    };
    let p384 = foreign(&rcgen::PKCS_ECDSA_P384_SHA384);
    assert_eq!(parse(&document(&p384)).unwrap(), p384);
    assert!(matches!(
        foreign(&rcgen::PKCS_ED25519).to_json(),
        Err(BundleError::Write(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn bundles_survive_writing_and_reading(count in 0_usize..5, sequence in any::<u64>(), hint in 10_u64..86_400) {
        let mut bundle = bundle(count);
        bundle.sequence_number = sequence;
        bundle.refresh_hint = Duration::from_secs(hint);
        let again = TrustBundle::parse_json(&td("td"), &bundle.to_json().unwrap()).unwrap();
        prop_assert_eq!(again.digest(), bundle.digest());
        prop_assert_eq!(again.to_json(), bundle.to_json());
        prop_assert_eq!(again, bundle);
    }

    #[test]
    fn any_text_ends_in_an_answer(text in "\\PC{0,200}") {
        let _ = TrustBundle::parse_json(&td("td"), text.as_bytes());
        let _ = parse_pem_certificates(&text);
    }
}
