//! Signed tokens: compact JWS (RFC 7515) with RS256 or ES256, verified against a JSON web key set.
//!
//! Stricter than the RFCs where that costs none of the tokens that are expected: a key id is required, header members other than `alg`,
//! `kid` and `typ` are refused (so no key, URL or critical extension can ride along), members must not repeat, and
//! base64url has neither padding nor loose trailing bits.
//!
//! What a token claims is for whoever expects it to read ([`crate::json`]) and to judge.

mod keys;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::json;

pub use self::keys::{JwkSet, JwksError, MAX_JWKS_BYTES};

/// Longest token accepted, in bytes. Tokens of service accounts have about 1 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
const MAX_KEY_ID_BYTES: usize = 256;

/// Signature algorithms that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256, signature as r and s of 32 bytes each.
    Es256,
}

/// Why a token is refused; free of the token's content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("it is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLarge,
    /// Not header, payload and signature with two dots between them.
    #[error("it is not a compact JWS of three parts")]
    NotCompact,
    /// A part is not strict base64url.
    #[error("its {0} is not base64url without padding")]
    Encoding(&'static str),
    /// The header is not a JSON object of distinct members.
    #[error("its header is not a JSON object of distinct members")]
    Header,
    /// The header carries something besides `alg`, `kid` and `typ`.
    #[error("its header carries members besides alg, kid and typ")]
    HeaderMember,
    /// `alg` is absent or none of the accepted ones.
    #[error("its algorithm is neither RS256 nor ES256")]
    Algorithm,
    /// `kid` is absent, empty or too long.
    #[error("its header names no key id of 1 to {MAX_KEY_ID_BYTES} bytes")]
    KeyId,
    /// `typ` is present and not `JWT`.
    #[error("its type is not JWT")]
    Type,
    /// No key of the set has that id.
    #[error("no signing key of the cluster has its key id")]
    UnknownKey,
    /// The header's algorithm and the kind of the key differ.
    #[error("its algorithm does not fit the key that its key id names")]
    AlgorithmDoesNotFitKey,
    /// The signature does not verify.
    #[error("its signature does not verify")]
    BadSignature,
}

/// A token in its parts, not yet verified.
pub struct CompactJws<'a> {
    signing_input: &'a str,
    algorithm: Algorithm,
    key_id: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> CompactJws<'a> {
    /// Splits and decodes a token; checks everything about it that needs no key.
    pub fn parse(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwsError::TooLarge);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(JwsError::NotCompact)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwsError::NotCompact)?;
        if payload.contains('.') || header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(JwsError::NotCompact);
        }
        let decode = |part: &str, name| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Encoding(name));
        let (algorithm, key_id) = read_header(&decode(header, "header")?)?;
        Ok(Self {
            signing_input,
            algorithm,
            key_id,
            payload: decode(payload, "payload")?,
            signature: decode(signature, "signature")?,
        })
    }

    /// The id of the key that is said to have signed.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The payload as it is, trustworthy only once [`verify`](Self::verify) has succeeded.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Verifies the signature with the key that the header names.
    pub fn verify(&self, keys: &JwkSet) -> Result<(), JwsError> {
        keys.verify(
            &self.key_id,
            self.algorithm,
            self.signing_input.as_bytes(),
            &self.signature,
        )
    }
}

fn read_header(bytes: &[u8]) -> Result<(Algorithm, String), JwsError> {
    let Ok(Value::Object(header)) = json::parse(bytes) else {
        return Err(JwsError::Header);
    };
    if header
        .keys()
        .any(|name| !matches!(name.as_str(), "alg" | "kid" | "typ"))
    {
        return Err(JwsError::HeaderMember);
    }
    let algorithm = match header.get("alg").and_then(Value::as_str) {
        Some("RS256") => Algorithm::Rs256,
        Some("ES256") => Algorithm::Es256,
        _ => return Err(JwsError::Algorithm),
    };
    if header.get("typ").is_some_and(|kind| kind != "JWT") {
        return Err(JwsError::Type);
    }
    let key_id = header.get("kid").and_then(Value::as_str).unwrap_or_default();
    if key_id.is_empty() || key_id.len() > MAX_KEY_ID_BYTES {
        return Err(JwsError::KeyId);
    }
    Ok((algorithm, key_id.to_owned()))
}
