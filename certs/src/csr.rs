//! Certificate requests. A request contributes its public key and the proof that its sender holds the private
//! half; names, usages and lifetimes in it are never read (conformance X509-17).

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData};
use ring::digest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Version};
use x509_parser::x509::AlgorithmIdentifier;

use crate::authority::AuthorityId;
use crate::der::{self, DerError};
use crate::signer::{LeafKey, P256_SPKI_PREFIX, RcgenLeafKey};

#[cfg(test)]
mod tests;

/// Largest request accepted, in bytes.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;
/// AlgorithmIdentifier of rsaEncryption with its NULL.
const RSA_ALGORITHM: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The work of checking an RSA signature grows with the square of its bits; measured, with 2048 of them it is 0.3 of that of one over
/// P-256, and with 4096 it is 1.4 of it. With more than these it counts twice.
const AS_P256_BITS: usize = 3500;

/// AlgorithmIdentifier of ecdsa-with-SHA256.
const ECDSA_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
/// OBJECT IDENTIFIER of PKCS#1 without its last arc.
const PKCS1_PREFIX: [u8; 10] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// Last arcs of sha256, sha384 and sha512 WithRSAEncryption.
const RSA_SIGNATURES: [u8; 3] = [11, 12, 13];
const NULL: [u8; 2] = [0x05, 0x00];

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Larger than [`MAX_CSR_BYTES`].
    #[error("the request has {0} bytes; the limit is {MAX_CSR_BYTES}")]
    TooLarge(usize),
    /// Not DER.
    #[error("the request is not DER: {0}")]
    Der(#[from] DerError),
    /// DER, but no PKCS#10 request.
    #[error("the bytes are not a PKCS#10 certificate request: {0}")]
    NotARequest(String),
    /// A version other than v1.
    #[error("the request has version {0}; PKCS#10 knows only v1 (0)")]
    Version(u32),
    /// A key other than P-256 or RSA.
    #[error("the public key is neither EC P-256 with an uncompressed point nor RSA")]
    KeyType,
    /// An RSA key of another size or exponent.
    #[error("the RSA key is refused: {0}")]
    Rsa(String),
    /// An algorithm that does not fit the key or is too weak.
    #[error(
        "signature algorithm {0} is not accepted with this key; use SHA-256 (EC) or SHA-256/384/512 PKCS#1 (RSA)"
    )]
    SignatureAlgorithm(String),
    /// The proof of possession failed.
    #[error("the request is not signed by the key it holds")]
    Signature,
    /// A key that belongs to one of our authorities.
    #[error("the public key belongs to authority {0}")]
    AuthorityKey(AuthorityId),
    /// Our own request could not be built.
    #[error("cannot create a certificate request: {0}")]
    Create(String),
}

/// What kind of key a workload brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// EC over NIST P-256.
    EcP256,
    /// RSA with this many bits of modulus, exponent 65537.
    Rsa {
        /// Length of the modulus, 2048–4096.
        bits: usize,
    },
}

/// A public key that passed the allow-list and whose holder proved possession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPublicKey {
    spki: Box<[u8]>,
    /// Where the content of the BIT STRING begins in `spki`.
    key_at: usize,
    sha256: [u8; 32],
    algorithm: KeyAlgorithm,
}

impl WorkloadPublicKey {
    /// Applies the allow-list to a SubjectPublicKeyInfo.
    fn from_spki(spki: &[u8]) -> Result<Self, CsrError> {
        let (algorithm, key_at) = allow(spki)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
        Ok(Self {
            spki: spki.into(),
            key_at,
            sha256,
            algorithm,
        })
    }

    /// The key as DER SubjectPublicKeyInfo, byte for byte as in the request.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of [`spki_der`](Self::spki_der).
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// The key's identifier: what its certificate will carry as SubjectKeyIdentifier.
    #[must_use]
    pub fn key_id(&self) -> AuthorityId {
        AuthorityId::from_digest(&self.sha256)
    }

    /// The kind of key.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// Refuses a key that is one of `forbidden`: no workload gets a certificate over an authority's key.
    pub fn refuse_authority_keys(&self, forbidden: &[AuthorityId]) -> Result<(), CsrError> {
        let id = self.key_id();
        if forbidden.contains(&id) {
            Err(CsrError::AuthorityKey(id))
        } else {
            Ok(())
        }
    }
}

impl PublicKeyData for WorkloadPublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.spki.get(self.key_at..).unwrap_or_default()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        // For RSA only the key's own identifier is written, which the hash does not change.
        match self.algorithm {
            KeyAlgorithm::EcP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::Rsa { .. } => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// Checks a DER request and returns its key. Nothing else in the request is looked at.
pub fn verify_csr(der: &[u8]) -> Result<WorkloadPublicKey, CsrError> {
    if der.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLarge(der.len()));
    }
    let parts = der::signed(der)?;
    let (_, request) =
        X509CertificationRequest::from_der(der).map_err(|error| CsrError::NotARequest(error.to_string()))?;
    let info = &request.certification_request_info;
    // The parser stops where it has read enough; the signature must cover exactly what it read.
    if info.raw.len() != parts.tbs.len() {
        return Err(CsrError::NotARequest(
            "unexpected fields after the attributes".to_owned(),
        ));
    }
    if info.version != X509Version::V1 {
        return Err(CsrError::Version(info.version.0));
    }
    let key = WorkloadPublicKey::from_spki(info.subject_pki.raw)?;
    check_signature_algorithm(parts.algorithm, &request.signature_algorithm, key.algorithm)?;
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(key)
}

/// What it costs to check this request, in checks of one over P-256. It is read from the key that the request names, and nothing is
/// checked for it: whoever asks can be made to pay before.
#[must_use]
pub fn verification_work(der: &[u8]) -> u32 {
    let key = || {
        let (_version, rest) = der::split_element(der::single(der::signed(der)?.tbs)?.content)?;
        let (_subject, rest) = der::split_element(rest)?;
        allow(der::split_element(rest)?.0.whole)
    };
    match key() {
        Ok((KeyAlgorithm::Rsa { bits }, _)) if bits > AS_P256_BITS => 2,
        // What is refused for its form has no signature checked.
        Ok(_) | Err(_) => 1,
    }
}

/// Returns the kind of key and where its bits begin.
fn allow(spki: &[u8]) -> Result<(KeyAlgorithm, usize), CsrError> {
    if let Some(point) = spki.strip_prefix(&P256_SPKI_PREFIX) {
        let uncompressed = point.len() == POINT_BYTES && point.first() == Some(&UNCOMPRESSED);
        return if uncompressed {
            Ok((KeyAlgorithm::EcP256, P256_SPKI_PREFIX.len()))
        } else {
            Err(CsrError::KeyType)
        };
    }
    let bits = der::single(spki)?
        .content
        .strip_prefix(&RSA_ALGORITHM)
        .ok_or(CsrError::KeyType)?;
    let bits = der::single(bits)?;
    let (der::BIT_STRING, [0, key @ ..]) = (bits.tag, bits.content) else {
        return Err(CsrError::KeyType);
    };
    Ok((KeyAlgorithm::Rsa { bits: rsa_bits(key)? }, spki.len() - key.len()))
}

/// The modulus length of an RSAPublicKey with an accepted modulus and exponent.
fn rsa_bits(key: &[u8]) -> Result<usize, CsrError> {
    let sequence = der::single(key)?;
    let (modulus, rest) = der::split_element(sequence.content)?;
    let exponent = der::single(rest)?;
    if sequence.tag != der::SEQUENCE || modulus.tag != der::INTEGER || exponent.tag != der::INTEGER {
        return Err(CsrError::KeyType);
    }
    if exponent.content != RSA_EXPONENT {
        return Err(CsrError::Rsa("the public exponent is not 65537".to_owned()));
    }
    let bits = modulus_bits(modulus.content)?;
    if !RSA_BITS.contains(&bits) {
        return Err(CsrError::Rsa(format!("{bits} bits; accepted are 2048 to 4096")));
    }
    Ok(bits)
}

fn modulus_bits(content: &[u8]) -> Result<usize, CsrError> {
    let refused = |why: &str| Err(CsrError::Rsa(format!("the modulus is {why}")));
    let magnitude = match content {
        [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => rest,
        [0, ..] | [] => return refused("zero or not in its shortest form"),
        [first, ..] if *first >= 0x80 => return refused("negative"),
        whole => whole,
    };
    let (Some(first), Some(last)) = (magnitude.first(), magnitude.last()) else {
        return refused("zero");
    };
    if last % 2 == 0 {
        return refused("even");
    }
    let unused = usize::try_from(first.leading_zeros()).unwrap_or(0);
    Ok(magnitude.len() * 8 - unused)
}

/// Compares the identifier byte for byte: nobody signed it, and the parser would let it vary.
fn check_signature_algorithm(
    der: &[u8],
    parsed: &AlgorithmIdentifier<'_>,
    key: KeyAlgorithm,
) -> Result<(), CsrError> {
    let fits = match key {
        KeyAlgorithm::EcP256 => der == ECDSA_SHA256,
        // RFC 4055 §5: NULL parameters, and readers accept their absence.
        KeyAlgorithm::Rsa { .. } => {
            let oid = der
                .strip_prefix(&[der::SEQUENCE, 0x0d])
                .and_then(|oid| oid.strip_suffix(&NULL));
            let oid = oid.or_else(|| der.strip_prefix(&[der::SEQUENCE, 0x0b]));
            let last = oid.and_then(|oid| oid.strip_prefix(&PKCS1_PREFIX));
            matches!(last, Some([hash]) if RSA_SIGNATURES.contains(hash))
        }
    };
    if fits {
        Ok(())
    } else {
        Err(CsrError::SignatureAlgorithm(parsed.algorithm.to_id_string()))
    }
}

/// A request over `key` with an empty subject and no names: all the server would ignore is left out.
pub fn create_csr(key: &LeafKey) -> Result<Vec<u8>, CsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params
        .serialize_request(&RcgenLeafKey(key))
        .map_err(|error| CsrError::Create(error.to_string()))?;
    Ok(request.der().to_vec())
}
