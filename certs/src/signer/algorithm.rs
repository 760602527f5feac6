//! What an authority's key signs with.

use std::fmt;
use std::str::FromStr;

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaSigningAlgorithm, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use super::P256_SPKI_PREFIX;

/// The DER of a P-384 SubjectPublicKeyInfo up to the 97 bytes of the uncompressed point.
const P384_SPKI_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

/// The algorithm of a signing key: curve and hash together, as every reader of X.509 knows them. An enum of few, because
/// each one has to be understood by all who verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 5758 §3.2).
    #[default]
    P256,
    /// ECDSA on P-384 with SHA-384 (RFC 5758 §3.2).
    P384,
}

/// The text names no algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown algorithm; the algorithms are p256 and p384")]
pub struct UnknownAlgorithm;

impl SignatureAlgorithm {
    /// All of them, the usual one first.
    pub const ALL: [Self; 2] = [Self::P256, Self::P384];

    /// Its name in configurations, journals and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
        }
    }

    /// SubjectPublicKeyInfo of an uncompressed point of its curve.
    #[must_use]
    pub fn spki(self, point: &[u8]) -> Vec<u8> {
        let prefix: &[u8] = match self {
            Self::P256 => &P256_SPKI_PREFIX,
            Self::P384 => &P384_SPKI_PREFIX,
        };
        [prefix, point].concat()
    }

    /// The algorithm of a key and its point, given as SubjectPublicKeyInfo; nothing for another kind of key.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Option<(Self, &[u8])> {
        let p256 = spki
            .strip_prefix(&P256_SPKI_PREFIX)
            .map(|point| (Self::P256, point));
        p256.or_else(|| {
            spki.strip_prefix(&P384_SPKI_PREFIX)
                .map(|point| (Self::P384, point))
        })
    }

    /// Whether `signature`, in DER, is one of the key with this `point` over `message`.
    #[must_use]
    pub fn is_signed_by(self, point: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let verification = match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
        };
        UnparsedPublicKey::new(verification, point)
            .verify(message, signature)
            .is_ok()
    }

    pub(super) fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        }
    }

    pub(super) fn rcgen(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| algorithm.as_str() == text)
            .ok_or(UnknownAlgorithm)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::super::{AuthoritySigner as _, LocalSigner};
    use super::*;

    #[test]
    fn each_algorithm_signs_reads_back_and_has_its_own_keys() {
        for algorithm in SignatureAlgorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
            let (signer, pkcs8) = LocalSigner::generate(algorithm, &SystemRandom::new()).unwrap();
            let spki = signer.spki();
            assert_eq!(
                SignatureAlgorithm::of_spki(&spki),
                Some((algorithm, signer.public_point()))
            );
            let signature = signer.sign(b"message").unwrap();
            let others = SignatureAlgorithm::ALL.map(|other| {
                (
                    other.is_signed_by(signer.public_point(), b"message", &signature),
                    other.is_signed_by(signer.public_point(), b"massage", &signature),
                )
            });
            let expected = SignatureAlgorithm::ALL.map(|other| (other == algorithm, false));
            assert_eq!(others, expected);
            let again = LocalSigner::from_pkcs8(&pkcs8, SystemRandom::new()).unwrap();
            assert_eq!((again.algorithm(), again.spki()), (algorithm, spki));
        }
        assert_eq!("rsa".parse::<SignatureAlgorithm>(), Err(UnknownAlgorithm));
    }
}
