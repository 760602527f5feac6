use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use super::*;

/// For tests only; it signs nothing else.
const RSA_KEY: &[u8] = include_bytes!("../../tests/fixtures/test-rsa-2048.pk8");

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Ec {
    key: EcdsaKeyPair,
    rng: SystemRandom,
}

impl Ec {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        Self { key, rng }
    }

    fn jwk(&self, kid: &str) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
               "x": b64(&point[1..33]), "y": b64(&point[33..])})
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", b64(header), b64(claims));
        let signature = self.key.sign(&self.rng, input.as_bytes()).unwrap();
        format!("{input}.{}", b64(signature))
    }
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(RSA_KEY).unwrap()
}

fn rsa_jwk(kid: &str) -> Value {
    let key = RsaPublicKeyComponents::<Vec<u8>>::from(rsa().public());
    json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": b64(&key.n), "e": b64(&key.e)})
}

fn rsa_token(header: &str, claims: &str) -> String {
    let input = format!("{}.{}", b64(header), b64(claims));
    let key = rsa();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        input.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{input}.{}", b64(signature))
}

fn set(keys: Vec<Value>) -> JwkSet {
    JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

const EC_HEADER: &str = r#"{"alg":"ES256","kid":"ec"}"#;
const RSA_HEADER: &str = r#"{"alg":"RS256","kid":"rsa"}"#;

#[test]
fn both_algorithms_verify_with_their_key() {
    let ec = Ec::new();
    let keys = set(vec![ec.jwk("ec"), rsa_jwk("rsa")]);
    for token in [ec.token(EC_HEADER, "{}"), rsa_token(RSA_HEADER, "{}")] {
        let jws = CompactJws::parse(&token).unwrap();
        assert_eq!(jws.payload(), b"{}");
        assert_eq!(jws.verify(&keys), Ok(()));
    }
}

/// Covers BT-07.
#[test]
fn algorithms_other_than_the_two_are_refused() {
    let ec = Ec::new();
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""HS256""#,
        r#""EdDSA""#,
        r#""ES256K""#,
        r#""RS256 ""#,
        r#""PS256""#,
        "7",
        "null",
    ] {
        let token = ec.token(&format!(r#"{{"alg":{alg},"kid":"ec"}}"#), "{}");
        assert_eq!(
            CompactJws::parse(&token).err(),
            Some(JwsError::Algorithm),
            "{alg}"
        );
    }
    let token = ec.token(r#"{"kid":"ec"}"#, "{}");
    assert_eq!(CompactJws::parse(&token).err(), Some(JwsError::Algorithm));
}

/// Covers BT-07.
#[test]
fn an_algorithm_that_does_not_fit_the_key_is_refused() {
    let ec = Ec::new();
    let keys = set(vec![ec.jwk("ec"), rsa_jwk("rsa")]);
    for token in [
        rsa_token(r#"{"alg":"RS256","kid":"ec"}"#, "{}"),
        ec.token(r#"{"alg":"ES256","kid":"rsa"}"#, "{}"),
    ] {
        let jws = CompactJws::parse(&token).unwrap();
        assert_eq!(jws.verify(&keys), Err(JwsError::AlgorithmDoesNotFitKey));
    }
}

/// Covers BT-04, BT-07.
#[test]
fn an_unknown_key_id_and_a_foreign_key_under_a_known_one_are_refused() {
    let (ours, theirs) = (Ec::new(), Ec::new());
    let keys = set(vec![ours.jwk("ec")]);
    for kid in ["EC", "ec ", "../../x", "' OR 1=1"] {
        let token = ours.token(&json!({"alg": "ES256", "kid": kid}).to_string(), "{}");
        assert_eq!(
            CompactJws::parse(&token).unwrap().verify(&keys),
            Err(JwsError::UnknownKey),
            "{kid}"
        );
    }
    let token = theirs.token(EC_HEADER, "{}");
    assert_eq!(
        CompactJws::parse(&token).unwrap().verify(&keys),
        Err(JwsError::BadSignature)
    );
}

#[test]
fn a_key_id_is_required_and_bounded() {
    let ec = Ec::new();
    let long = json!({"alg": "ES256", "kid": "k".repeat(257)}).to_string();
    for header in [
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"ES256","kid":""}"#,
        r#"{"alg":"ES256","kid":1}"#,
        &long,
    ] {
        let token = ec.token(header, "{}");
        assert_eq!(CompactJws::parse(&token).err(), Some(JwsError::KeyId), "{header}");
    }
}

#[test]
fn headers_with_repeated_or_foreign_members_are_refused() {
    let ec = Ec::new();
    let repeated = ec.token(r#"{"alg":"ES256","kid":"ec","alg":"ES256"}"#, "{}");
    assert_eq!(CompactJws::parse(&repeated).err(), Some(JwsError::Header));
    for member in ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"] {
        let token = ec.token(
            &json!({"alg": "ES256", "kid": "ec", member: false}).to_string(),
            "{}",
        );
        assert_eq!(
            CompactJws::parse(&token).err(),
            Some(JwsError::HeaderMember),
            "{member}"
        );
    }
    for (kind, expected) in [
        ("JWT", None),
        ("at+jwt", Some(JwsError::Type)),
        ("", Some(JwsError::Type)),
    ] {
        let token = ec.token(
            &json!({"alg": "ES256", "kid": "ec", "typ": kind}).to_string(),
            "{}",
        );
        assert_eq!(CompactJws::parse(&token).err(), expected, "{kind}");
    }
}

/// Covers BT-01.
#[test]
fn the_compact_form_is_strict() {
    let token = Ec::new().token(EC_HEADER, "{}");
    let padded = format!("{}=.{}.{}", b64(EC_HEADER), b64("{}"), b64([0; 64]));
    let cases = [
        (String::new(), JwsError::NotCompact),
        (".".into(), JwsError::NotCompact),
        ("..".into(), JwsError::NotCompact),
        ("a.b".into(), JwsError::NotCompact),
        ("a.b.c.d".into(), JwsError::NotCompact),
        ("A".repeat(1 << 20), JwsError::TooLarge),
        (padded, JwsError::Encoding("header")),
        (format!("Bearer {token}"), JwsError::Encoding("header")),
        (format!(" {token}"), JwsError::Encoding("header")),
        (format!("{token}\n"), JwsError::Encoding("signature")),
        (format!("{token}+"), JwsError::Encoding("signature")),
        (
            r#"{"payload":"e30","signatures":[]}"#.into(),
            JwsError::NotCompact,
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(CompactJws::parse(&text).err(), Some(expected), "{text:.40}");
    }
}

#[test]
fn loose_trailing_bits_are_refused() {
    let token = format!("{}.e31.{}", b64(EC_HEADER), b64([0; 64]));
    assert_eq!(
        CompactJws::parse(&token).err(),
        Some(JwsError::Encoding("payload"))
    );
}

#[test]
fn an_ecdsa_signature_must_be_64_bytes_and_not_zero() {
    let ec = Ec::new();
    let keys = set(vec![ec.jwk("ec")]);
    let input = format!("{}.{}", b64(EC_HEADER), b64("{}"));
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &ec.rng).unwrap();
    let der_signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &ec.rng).unwrap();
    let der = der_signer.sign(&ec.rng, input.as_bytes()).unwrap();
    let short = vec![1; 63];
    let long = vec![1; 65];
    let zero = vec![0; 64];
    for signature in [der.as_ref(), &short, &long, &zero] {
        let token = format!("{input}.{}", b64(signature));
        assert_eq!(
            CompactJws::parse(&token).unwrap().verify(&keys),
            Err(JwsError::BadSignature)
        );
    }
}

#[test]
fn key_sets_keep_only_keys_that_can_verify() {
    let ec = Ec::new();
    let mut weak = rsa_jwk("weak");
    weak["n"] = json!(b64([0xff; 128]));
    let mut encryption = ec.jwk("encryption");
    encryption["use"] = json!("enc");
    let mut unnamed = ec.jwk("unnamed");
    unnamed.as_object_mut().unwrap().remove("kid");
    let mut p384 = ec.jwk("p384");
    p384["crv"] = json!("P-384");
    let symmetric = json!({"kty": "oct", "kid": "oct", "k": "AAAA"});
    let keys = set(vec![
        weak.clone(),
        encryption,
        unnamed,
        p384,
        symmetric,
        ec.jwk("ec"),
    ]);
    assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["ec"]);
    let only_weak = json!({"keys": [weak]}).to_string();
    assert_eq!(JwkSet::parse(only_weak.as_bytes()), Err(JwksError::NoUsableKey));
}

#[test]
fn key_sets_that_are_ambiguous_or_junk_are_refused() {
    let twice = json!({"keys": [Ec::new().jwk("a"), Ec::new().jwk("a")]}).to_string();
    assert_eq!(
        JwkSet::parse(twice.as_bytes()),
        Err(JwksError::DuplicateKeyId("a".into()))
    );
    assert!(matches!(JwkSet::parse(b"<html>"), Err(JwksError::Malformed(_))));
    assert!(matches!(
        JwkSet::parse(b"{\"keys\":{}}"),
        Err(JwksError::Malformed(_))
    ));
    assert!(matches!(
        JwkSet::parse(b"{\"keys\":[1]}"),
        Err(JwksError::Malformed(_))
    ));
    assert_eq!(
        JwkSet::parse(&vec![b' '; MAX_JWKS_BYTES + 1]),
        Err(JwksError::TooLarge)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in ".{0,300}", payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = CompactJws::parse(&text);
        let _ = JwkSet::parse(&payload);
        let _ = CompactJws::parse(&format!("{}.{}.{}", b64(EC_HEADER), b64(&payload), b64(&payload)));
    }

    #[test]
    fn one_changed_character_never_verifies(position in 0usize..10_000, replacement in "[A-Za-z0-9_.-]") {
        let token = rsa_token(RSA_HEADER, r#"{"sub":"frontend","exp":1795286800}"#);
        let position = position % token.len();
        let mut changed = token.clone();
        changed.replace_range(position..=position, &replacement);
        prop_assume!(changed != token);
        let keys = set(vec![rsa_jwk("rsa")]);
        let accepted = CompactJws::parse(&changed).is_ok_and(|jws| jws.verify(&keys).is_ok());
        prop_assert!(!accepted);
    }
}
