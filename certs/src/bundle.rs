//! Trust bundles: the authorities of one trust domain, and their SPIFFE document.

use std::time::Duration;

use bytes::Bytes;
use ring::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};

use crate::authority::AuthorityCertificate;
use crate::id::TrustDomain;

mod jwk;
mod read;
#[cfg(test)]
mod tests;

/// How often others should ask again when a document does not say (SPIFFE Federation §4.1).
pub const DEFAULT_REFRESH_HINT: Duration = Duration::from_secs(300);
/// Bounds that a foreign document's hint is brought into.
pub const REFRESH_HINT_BOUNDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));
/// Largest bundle document read, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 4 * 1024 * 1024;
/// Most keys in a document read.
pub const MAX_BUNDLE_KEYS: usize = 1000;

/// Why a bundle was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Larger than [`MAX_BUNDLE_BYTES`] or with more than [`MAX_BUNDLE_KEYS`] keys.
    #[error("the bundle is too large: {0}")]
    TooLarge(String),
    /// Not a JWK set.
    #[error("the bundle document is malformed: {0}")]
    Malformed(String),
    /// It carries a private key. Whoever wrote it has leaked that key.
    #[error("the bundle holds private key material (member `{0}`); replace that key")]
    PrivateKey(String),
    /// Not PEM certificates.
    #[error("the PEM text is refused: {0}")]
    Pem(String),
    /// It cannot be written.
    #[error("the bundle cannot be written: {0}")]
    Write(String),
}

/// The authorities of one trust domain at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Whose authorities these are. It stands beside the document, never inside.
    pub trust_domain: TrustDomain,
    /// By authority id and then bytes, none twice.
    pub authorities: Vec<AuthorityCertificate>,
    /// Grows with every change and never falls.
    pub sequence_number: u64,
    /// How often readers should ask again.
    pub refresh_hint: Duration,
}

impl TrustBundle {
    /// A bundle with its authorities put in order.
    #[must_use]
    pub fn new(
        trust_domain: TrustDomain,
        mut authorities: Vec<AuthorityCertificate>,
        sequence_number: u64,
        refresh_hint: Duration,
    ) -> Self {
        authorities.sort_by(|a, b| (a.id(), a.der()).cmp(&(b.id(), b.der())));
        authorities.dedup();
        Self {
            trust_domain,
            authorities,
            sequence_number,
            refresh_hint,
        }
    }

    /// The SPIFFE bundle document. Equal bundles give equal bytes. An authority whose key has no JWK form
    /// that every reader knows (RSA, EC P-256, P-384) is refused rather than written.
    pub fn to_json(&self) -> Result<Bytes, BundleError> {
        jwk::write(self)
    }

    /// Reads another party's document for `trust_domain`. Keys that are not X.509 authorities, or not usable
    /// ones, are skipped; a document that leaves none is valid and means that nothing is trusted.
    pub fn parse_json(trust_domain: &TrustDomain, document: &[u8]) -> Result<Self, BundleError> {
        read::parse(trust_domain, document)
    }

    /// The certificates as one run of DER, as the Workload API carries them.
    #[must_use]
    pub fn to_der_concat(&self) -> Bytes {
        self.authorities
            .iter()
            .map(AuthorityCertificate::der)
            .collect::<Vec<_>>()
            .concat()
            .into()
    }

    /// SHA-256 over all that is published except the sequence number: equal contents, equal digest.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut field = |bytes: &[u8]| {
            context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(bytes);
        };
        field(self.trust_domain.as_str().as_bytes());
        field(&self.refresh_hint.as_secs().to_be_bytes());
        self.authorities
            .iter()
            .for_each(|authority| field(authority.der()));
        let mut sum = [0; 32];
        sum.copy_from_slice(context.finish().as_ref());
        sum
    }
}

/// Takes the certificates out of PEM text. Refuses text without any, and text with anything else, above all
/// keys.
pub fn parse_pem_certificates(text: &str) -> Result<Vec<Vec<u8>>, BundleError> {
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section.map_err(|error| BundleError::Pem(error.to_string()))? {
            (SectionKind::Certificate, der) => certificates.push(CertificateDer::from(der).to_vec()),
            (kind, _) => {
                return Err(BundleError::Pem(format!(
                    "it holds a {kind:?} where only certificates belong"
                )));
            }
        }
    }
    if certificates.is_empty() {
        return Err(BundleError::Pem("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}
