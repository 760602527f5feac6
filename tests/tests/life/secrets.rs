//! INV-13: what must be in no log.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// With what the PKCS#8 of every EC key begins, after its length: version 0, and id-ecPublicKey (RFC 5915, RFC 5480).
const EC_KEY: [u8; 14] = [
    0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01,
];
/// What the private number of a P-256 key comes after (RFC 5915 §3).
const BEFORE_NUMBER: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
const NUMBER_BYTES: usize = 32;

/// What is in the log that must not be: a token, any private key, or one of these by its number alone.
pub(crate) fn found_in(log: &str, keys: &BTreeSet<Vec<u8>>) -> Option<&'static str> {
    let plain = log.replace('-', "+").replace('_', "/");
    let hex = log.to_ascii_lowercase();
    let holds = |secret: &[u8]| hex.contains(&hex::encode(secret)) || holds_base64(&plain, secret);
    if log.match_indices("eyJ").any(|(at, _)| opens_a_token(&log[at..])) {
        return Some("a token");
    }
    if log.contains("PRIVATE KEY") || holds(&EC_KEY) {
        return Some("a private key");
    }
    keys.iter()
        .any(|pkcs8| holds(number(pkcs8)))
        .then_some("the number of a private key")
}

fn number(pkcs8: &[u8]) -> &[u8] {
    let mut windows = pkcs8.windows(BEFORE_NUMBER.len());
    let before = windows.position(|window| window == BEFORE_NUMBER);
    let at = before.expect("a P-256 key") + BEFORE_NUMBER.len();
    &pkcs8[at..at + NUMBER_BYTES]
}

/// Whether an object with a named member is encoded here. The three letters alone come up by chance in digests and signatures.
fn opens_a_token(text: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let text: Vec<u8> = text.bytes().take_while(is_base64).take(64).collect();
    let whole = text.len() / 4 * 4;
    let Ok(decoded) = URL_SAFE_NO_PAD.decode(&text[..whole]) else {
        return false;
    };
    let Some(member) = decoded.strip_prefix(b"{\"") else {
        return false;
    };
    let name = member
        .iter()
        .take_while(|byte| byte.is_ascii_graphic() && **byte != b'"');
    member[name.count()..].starts_with(b"\":")
}

/// Whether base64 of anything that contains the secret is in the text, wherever in it the secret begins.
fn holds_base64(text: &str, secret: &[u8]) -> bool {
    [(0, 0), (1, 2), (2, 3)].into_iter().any(|(before, shared)| {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(secret);
        let encoded = STANDARD_NO_PAD.encode(&bytes);
        // The last letter is shared with what comes after, unless the secret ends with a group.
        let end = bytes.len() * 8 / 6;
        text.contains(&encoded[shared..end])
    })
}

#[test]
fn secrets_are_found_in_any_encoding_and_chance_is_none() {
    let pkcs8 = signet_certs::signer::LeafKey::generate(&ring::rand::SystemRandom::new()).unwrap();
    let pkcs8 = pkcs8.pkcs8_der().to_vec();
    let keys = BTreeSet::from([pkcs8.clone()]);
    assert_eq!(found_in("{\"sha256\":\"ab7eyJqT0+eyJ\"} eyJ eyJ9-_", &keys), None);
    let token = URL_SAFE_NO_PAD.encode(r#"{"kubernetes.io":{}}"#);
    assert_eq!(found_in(&format!("Bearer {token}.x.y"), &keys), Some("a token"));
    for before in 0..3 {
        let line = [&vec![7; before], &pkcs8[..], b"more"].concat();
        let alone = [&vec![7; before], number(&pkcs8), b"more"].concat();
        let encodings: [fn(&[u8]) -> String; 3] = [
            |bytes| STANDARD_NO_PAD.encode(bytes),
            |bytes| URL_SAFE_NO_PAD.encode(bytes),
            |bytes| hex::encode_upper(bytes),
        ];
        for encode in encodings {
            assert_eq!(found_in(&encode(&line), &BTreeSet::new()), Some("a private key"));
            assert_eq!(
                found_in(&encode(&alone), &keys),
                Some("the number of a private key")
            );
        }
    }
}
