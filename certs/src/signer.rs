//! Private keys. Randomness always comes from the caller.
//!
//! Neither key type has `Debug` or `Clone`; key bytes are wiped when dropped.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _};
use zeroize::Zeroizing;

#[cfg(feature = "issue")]
mod algorithm;
#[cfg(feature = "issue")]
mod authority;
#[cfg(feature = "issue")]
pub use algorithm::{SignatureAlgorithm, UnknownAlgorithm};
#[cfg(feature = "issue")]
pub use authority::{AuthoritySigner, LocalSigner, SignError};
#[cfg(feature = "issue")]
pub(crate) use authority::{RcgenLeafKey, RcgenSigner};

/// The DER of a P-256 SubjectPublicKeyInfo up to the 65 bytes of the uncompressed point.
pub(crate) const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a key could not be made or read. Says nothing about the key itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The random source failed.
    #[error("the random source gave no key")]
    Random,
    /// The bytes are no such key in PKCS#8.
    #[error("the private key is not an elliptic curve key that is known here, in PKCS#8 form: {0}")]
    Malformed(String),
}

fn generate_pkcs8(
    algorithm: &'static EcdsaSigningAlgorithm,
    rng: &SystemRandom,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, rng).map_err(|_| KeyError::Random)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn key_pair(
    algorithm: &'static EcdsaSigningAlgorithm,
    pkcs8: &[u8],
    rng: &SystemRandom,
) -> Result<EcdsaKeyPair, KeyError> {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, rng).map_err(|error| KeyError::Malformed(error.to_string()))
}

/// SubjectPublicKeyInfo of an uncompressed P-256 point.
#[must_use]
pub fn p256_spki(point: &[u8]) -> Vec<u8> {
    [P256_SPKI_PREFIX.as_slice(), point].concat()
}

/// A workload's P-256 key. It is made where it is used and leaves only to the workload itself.
pub struct LeafKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
    #[cfg(feature = "issue")]
    rng: SystemRandom,
}

impl LeafKey {
    /// A new key.
    pub fn generate(rng: &SystemRandom) -> Result<Self, KeyError> {
        Self::from_pkcs8(generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, rng)?, rng)
    }

    /// Takes a key over from its PKCS#8 form.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>, rng: &SystemRandom) -> Result<Self, KeyError> {
        Ok(Self {
            pair: key_pair(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, rng)?,
            pkcs8,
            #[cfg(feature = "issue")]
            rng: rng.clone(),
        })
    }

    /// The key in PKCS#8, version 0: the form that the Workload API carries and every client reads.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half as DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_spki(&self) -> Vec<u8> {
        p256_spki(self.pair.public_key().as_ref())
    }
}
