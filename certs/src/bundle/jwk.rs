//! Writes authorities as JWKs.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{BundleError, TrustBundle};
use crate::authority::AuthorityCertificate;

pub(super) const USE_X509: &str = "x509-svid";
const UNCOMPRESSED: u8 = 4;

/// The key's own parameters in JWK form.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kty")]
pub(super) enum KeyParameters {
    #[serde(rename = "EC")]
    Ec { crv: &'static str, x: String, y: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

#[derive(Serialize)]
struct Jwk {
    #[serde(flatten)]
    key: KeyParameters,
    r#use: &'static str,
    x5c: [String; 1],
}

#[derive(Serialize)]
struct Document {
    keys: Vec<Jwk>,
    spiffe_sequence: u64,
    spiffe_refresh_hint: u64,
}

pub(super) fn write(bundle: &TrustBundle) -> Result<Bytes, BundleError> {
    let document = Document {
        keys: bundle.authorities.iter().map(jwk).collect::<Result<_, _>>()?,
        spiffe_sequence: bundle.sequence_number,
        spiffe_refresh_hint: bundle.refresh_hint.as_secs(),
    };
    serde_json::to_vec(&document)
        .map(Bytes::from)
        .map_err(|error| BundleError::Write(error.to_string()))
}

fn jwk(authority: &AuthorityCertificate) -> Result<Jwk, BundleError> {
    let key = KeyParameters::of(authority).ok_or_else(|| {
        BundleError::Write(format!(
            "authority {} has a key that is neither RSA nor EC P-256/P-384",
            authority.id()
        ))
    })?;
    Ok(Jwk {
        key,
        r#use: USE_X509,
        x5c: [STANDARD.encode(authority.der())],
    })
}

impl KeyParameters {
    /// The parameters of an authority's key, if it is of a kind that every reader knows.
    pub(super) fn of(authority: &AuthorityCertificate) -> Option<Self> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(authority.spki()).ok()?;
        match spki.parsed().ok()? {
            PublicKey::RSA(key) => {
                let strip = |number: &[u8]| {
                    let zeros = number.iter().take_while(|byte| **byte == 0).count();
                    URL_SAFE_NO_PAD.encode(number.get(zeros..).unwrap_or_default())
                };
                Some(Self::Rsa {
                    n: strip(key.modulus),
                    e: strip(key.exponent),
                })
            }
            PublicKey::EC(point) => {
                let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
                let (crv, size) = match curve.as_str() {
                    "1.2.840.10045.3.1.7" => ("P-256", 32),
                    "1.3.132.0.34" => ("P-384", 48),
                    _ => return None,
                };
                let coordinates = point.data().strip_prefix(&[UNCOMPRESSED])?;
                let (x, y) = coordinates
                    .split_at_checked(size)
                    .filter(|(_, y)| y.len() == size)?;
                Some(Self::Ec {
                    crv,
                    x: URL_SAFE_NO_PAD.encode(x),
                    y: URL_SAFE_NO_PAD.encode(y),
                })
            }
            _ => None,
        }
    }

    /// Whether a JWK states this very key.
    pub(super) fn matches(&self, jwk: &serde_json::Map<String, Value>) -> bool {
        let states = |name: &str, value: &str| jwk.get(name).and_then(Value::as_str) == Some(value);
        match self {
            Self::Ec { crv, x, y } => {
                states("kty", "EC") && states("crv", crv) && states("x", x) && states("y", y)
            }
            Self::Rsa { n, e } => states("kty", "RSA") && states("n", n) && states("e", e),
        }
    }
}
