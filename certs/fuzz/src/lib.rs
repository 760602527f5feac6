//! What the targets share: one fixed authority and key, and edits that keep or renew a signature.
//!
//! Random bytes alone never get past a signature. So an input is read as an edit script over a good object, and where
//! its first byte asks for it the edited object is signed again: the readers behind the signature check are reached too.

use std::sync::LazyLock;

use ring::rand::SystemRandom;
use signet_certs::authority::X509Authority;
use signet_certs::signer::{LeafKey, LocalSigner};
use signet_testkit::{authority_over, authority_profile};
use zeroize::Zeroizing;

/// For tests only; it signs nothing else.
const KEY: &[u8] = include_bytes!("../../tests/fixtures/test-p256.pk8");

/// AlgorithmIdentifier of ecdsa-with-SHA256.
const ECDSA_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

/// The trust domain of everything here.
pub const DOMAIN: &str = "td";

/// The authority that everything is signed by.
pub static AUTHORITY: LazyLock<X509Authority> = LazyLock::new(|| {
    let signer = LocalSigner::from_pkcs8(KEY, SystemRandom::new()).expect("the fixture is a key");
    authority_over(authority_profile(DOMAIN), signer)
});

/// The fixed key in a workload's hands: the one that signs again after an edit.
pub fn fixed_leaf_key() -> LeafKey {
    LeafKey::from_pkcs8(Zeroizing::new(KEY.to_vec()), &SystemRandom::new()).expect("the fixture is a key")
}

/// How an input wants its object.
pub enum Mode {
    /// The input is the object.
    Raw,
    /// A good object, edited.
    Edited,
    /// A good object, edited inside and signed again.
    SignedAgain,
}

/// Splits an input into its mode and the rest.
pub fn mode(data: &[u8]) -> Option<(Mode, &[u8])> {
    let (first, rest) = data.split_first()?;
    let mode = match first % 4 {
        0 => Mode::Raw,
        1 => Mode::Edited,
        _ => Mode::SignedAgain,
    };
    Some((mode, rest))
}

/// The object that `data` describes, starting from `good`.
pub fn object(data: &[u8], good: &[u8]) -> Option<Vec<u8>> {
    let (mode, script) = mode(data)?;
    Some(match mode {
        Mode::Raw => script.to_vec(),
        Mode::Edited => edit(good, script),
        Mode::SignedAgain => {
            let (tbs, _) = split_element(&good[header(good)?..])?;
            sign(&edit(tbs, script))
        }
    })
}

/// Applies steps of four bytes: kind, position (two bytes), value.
fn edit(good: &[u8], script: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for step in script.chunks_exact(4) {
        let [kind, high, low, value] = step else { continue };
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(u16::from_be_bytes([*high, *low])) % bytes.len();
        match kind % 4 {
            0 => bytes[at] = *value,
            1 => bytes[at] ^= 1 << (value % 8),
            2 => bytes.insert(at, *value),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// Wraps signed bytes with the fixed key's signature.
fn sign(tbs: &[u8]) -> Vec<u8> {
    let signature = AUTHORITY.signer().sign(tbs).expect("a signature");
    let bits = element(0x03, &[&[0], signature.as_slice()].concat());
    element(0x30, &[tbs, &ECDSA_SHA256, &bits].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let skip = length
        .iter()
        .take_while(|byte| **byte == 0)
        .count()
        .min(length.len() - 1);
    let octets = &length[skip..];
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | octets.len() as u8);
    }
    der.extend_from_slice(octets);
    der.extend_from_slice(content);
    der
}

/// Length of the tag and length octets.
fn header(der: &[u8]) -> Option<usize> {
    let first = *der.get(1)?;
    Some(if first < 0x80 {
        2
    } else {
        2 + usize::from(first & 0x7f)
    })
}

fn split_element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = header(der)?;
    let length = match der.get(1)? {
        short @ 0..0x80 => usize::from(*short),
        _ => der
            .get(2..header)?
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte)),
    };
    der.split_at_checked(header + length)
}
