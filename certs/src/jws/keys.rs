//! Public keys that sign tokens: a JSON web key set (RFC 7517), reduced to what RS256 and ES256 need.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Map, Value};

use super::{Algorithm, JwsError};
use crate::json;

/// Longest key set read, in bytes.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;
const MAX_KEYS: usize = 256;
const MAX_KEY_ID_BYTES: usize = 256;

/// The usable keys of a JSON web key set by key id: RSA of at least 2048 bits, and EC P-256.
///
/// Keys of other kinds, for other uses, or without a key id are left out: they can verify nothing here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JwkSet {
    keys: BTreeMap<String, VerifyingKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum VerifyingKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed point, 65 bytes.
    EcP256(Vec<u8>),
}

/// Why a document is not a usable key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Larger than [`MAX_JWKS_BYTES`] or with too many keys.
    #[error("the key set is too large")]
    TooLarge,
    /// Not a JSON object with a list `keys` of objects.
    #[error("the key set is not a JSON web key set: {0}")]
    Malformed(String),
    /// Two usable keys share a key id, so a key id would not name one key.
    #[error("the key set has two keys with the id `{0}`")]
    DuplicateKeyId(String),
    /// Nothing in it can verify RS256 or ES256.
    #[error("the key set has no RSA key of 2048 bits or more and no EC P-256 key with a key id")]
    NoUsableKey,
}

impl JwkSet {
    /// Parses a key set of at most [`MAX_JWKS_BYTES`].
    pub fn parse(document: &[u8]) -> Result<Self, JwksError> {
        if document.len() > MAX_JWKS_BYTES {
            return Err(JwksError::TooLarge);
        }
        let value = json::parse(document).map_err(|error| JwksError::Malformed(error.to_string()))?;
        let listed = value
            .get("keys")
            .and_then(Value::as_array)
            .ok_or_else(|| JwksError::Malformed("no list `keys`".into()))?;
        if listed.len() > MAX_KEYS {
            return Err(JwksError::TooLarge);
        }
        let mut keys = BTreeMap::new();
        for entry in listed {
            let entry = entry
                .as_object()
                .ok_or_else(|| JwksError::Malformed("`keys` holds something that is no object".into()))?;
            if let Some((id, key)) = usable_key(entry)
                && keys.insert(id.clone(), key).is_some()
            {
                return Err(JwksError::DuplicateKeyId(id));
            }
        }
        if keys.is_empty() {
            return Err(JwksError::NoUsableKey);
        }
        Ok(Self { keys })
    }

    /// Whether a key has this id, compared byte by byte.
    pub fn contains(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    /// The key ids, sorted.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    pub(super) fn verify(
        &self,
        key_id: &str,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), JwsError> {
        let key = self.keys.get(key_id).ok_or(JwsError::UnknownKey)?;
        let verified = match (algorithm, key) {
            (Algorithm::Rs256, VerifyingKey::Rsa { modulus, exponent }) => RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            (Algorithm::Es256, VerifyingKey::EcP256(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            _ => return Err(JwsError::AlgorithmDoesNotFitKey),
        };
        verified.map_err(|_| JwsError::BadSignature)
    }
}

fn usable_key(entry: &Map<String, Value>) -> Option<(String, VerifyingKey)> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let id = text("kid").filter(|id| !id.is_empty() && id.len() <= MAX_KEY_ID_BYTES)?;
    if entry.contains_key("use") && text("use") != Some("sig") {
        return None;
    }
    let declared = |algorithm: &str| !entry.contains_key("alg") || text("alg") == Some(algorithm);
    let key = match text("kty")? {
        "RSA" if declared("RS256") => rsa_key(text("n")?, text("e")?)?,
        "EC" if declared("ES256") && text("crv") == Some("P-256") => ec_key(text("x")?, text("y")?)?,
        _ => return None,
    };
    Some((id.to_owned(), key))
}

fn rsa_key(modulus: &str, exponent: &str) -> Option<VerifyingKey> {
    let modulus = unsigned(modulus)?;
    // 256 bytes with the top bit set are 2048 bits; ring checks the rest when it verifies.
    let strong = modulus.len() > 256 || (modulus.len() == 256 && modulus[0] >= 0x80);
    strong.then_some(())?;
    Some(VerifyingKey::Rsa {
        modulus,
        exponent: unsigned(exponent)?,
    })
}

fn ec_key(x: &str, y: &str) -> Option<VerifyingKey> {
    let (x, y) = (URL_SAFE_NO_PAD.decode(x).ok()?, URL_SAFE_NO_PAD.decode(y).ok()?);
    if x.len() != 32 || y.len() != 32 {
        return None;
    }
    Some(VerifyingKey::EcP256([&[4][..], &x, &y].concat()))
}

/// A big-endian number without leading zeros, as ring wants it; some issuers write a leading zero byte.
fn unsigned(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}
