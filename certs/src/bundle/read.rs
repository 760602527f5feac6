//! Reads a SPIFFE bundle document that someone else wrote.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::jwk::{KeyParameters, USE_X509};
use super::{
    BundleError, DEFAULT_REFRESH_HINT, MAX_BUNDLE_BYTES, MAX_BUNDLE_KEYS, REFRESH_HINT_BOUNDS, TrustBundle,
};
use crate::authority::AuthorityCertificate;
use crate::id::TrustDomain;
use crate::json;

/// Members of a JWK that only its owner should know.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

pub(super) fn parse(trust_domain: &TrustDomain, document: &[u8]) -> Result<TrustBundle, BundleError> {
    if document.len() > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge(format!(
            "{} bytes; the limit is {MAX_BUNDLE_BYTES}",
            document.len()
        )));
    }
    let value = json::parse(document).map_err(|error| BundleError::Malformed(error.to_string()))?;
    let Value::Object(members) = value else {
        return Err(malformed("it is not a JSON object"));
    };
    let Some(Value::Array(keys)) = members.get("keys") else {
        return Err(malformed("`keys` is missing or not an array"));
    };
    if keys.len() > MAX_BUNDLE_KEYS {
        return Err(BundleError::TooLarge(format!(
            "{} keys; the limit is {MAX_BUNDLE_KEYS}",
            keys.len()
        )));
    }
    let mut authorities = Vec::new();
    for key in keys {
        let Value::Object(jwk) = key else {
            return Err(malformed("an entry of `keys` is not an object"));
        };
        refuse_private(jwk)?;
        authorities.extend(authority(jwk));
    }
    Ok(TrustBundle::new(
        trust_domain.clone(),
        authorities,
        sequence(&members)?,
        refresh_hint(&members),
    ))
}

fn malformed(why: &str) -> BundleError {
    BundleError::Malformed(why.to_owned())
}

fn refuse_private(jwk: &Map<String, Value>) -> Result<(), BundleError> {
    match PRIVATE_MEMBERS.iter().find(|member| jwk.contains_key(**member)) {
        Some(member) => Err(BundleError::PrivateKey((*member).to_owned())),
        None => Ok(()),
    }
}

/// The X.509 authority of an entry, or nothing where the entry is of another use or unusable.
fn authority(jwk: &Map<String, Value>) -> Option<AuthorityCertificate> {
    if jwk.get("use")?.as_str()? != USE_X509 {
        return None;
    }
    // More than one certificate is a writer's mistake: only the first counts.
    let encoded = jwk.get("x5c")?.as_array()?.first()?.as_str()?;
    let authority = AuthorityCertificate::from_der(&STANDARD.decode(encoded).ok()?).ok()?;
    KeyParameters::of(&authority)?.matches(jwk).then_some(authority)
}

/// Absent counts as zero: any later number is newer.
fn sequence(members: &Map<String, Value>) -> Result<u64, BundleError> {
    match members.get("spiffe_sequence") {
        None => Ok(0),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| malformed("`spiffe_sequence` is not an unsigned 64-bit integer")),
    }
}

/// Anything but an integer is ignored; integers are brought into bounds.
fn refresh_hint(members: &Map<String, Value>) -> Duration {
    let (least, most) = REFRESH_HINT_BOUNDS;
    match members.get("spiffe_refresh_hint") {
        Some(Value::Number(number)) if number.is_u64() => {
            Duration::from_secs(number.as_u64().unwrap_or_default()).clamp(least, most)
        }
        Some(Value::Number(number)) if number.is_i64() => least,
        _ => DEFAULT_REFRESH_HINT,
    }
}
