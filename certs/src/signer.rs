//! Private keys. Randomness always comes from the caller.
//!
//! Neither key type has `Debug` or `Clone`; key bytes are wiped when dropped.

use rcgen::{PublicKeyData, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

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
    /// The bytes are no P-256 key in PKCS#8.
    #[error("the private key is not a P-256 key in PKCS#8 form: {0}")]
    Malformed(String),
}

/// A signature could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing failed: {0}")]
pub struct SignError(pub String);

fn generate_pkcs8(rng: &SystemRandom) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, rng).map_err(|_| KeyError::Random)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn key_pair(pkcs8: &[u8], rng: &SystemRandom) -> Result<EcdsaKeyPair, KeyError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, rng)
        .map_err(|error| KeyError::Malformed(error.to_string()))
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
    rng: SystemRandom,
}

impl LeafKey {
    /// A new key.
    pub fn generate(rng: &SystemRandom) -> Result<Self, KeyError> {
        Self::from_pkcs8(generate_pkcs8(rng)?, rng)
    }

    /// Takes a key over from its PKCS#8 form.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>, rng: &SystemRandom) -> Result<Self, KeyError> {
        Ok(Self {
            pair: key_pair(&pkcs8, rng)?,
            pkcs8,
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

/// A key that signs certificates and CRLs; the key itself may live elsewhere. Calls block: a remote key
/// belongs on a blocking thread.
pub trait AuthoritySigner: Send + Sync {
    /// The uncompressed P-256 point, 65 bytes.
    fn public_point(&self) -> &[u8];

    /// An ECDSA-SHA256 signature over `message`, in DER.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// An authority key in this process's memory.
pub struct LocalSigner {
    pair: EcdsaKeyPair,
    rng: SystemRandom,
}

impl LocalSigner {
    /// A new key, and its PKCS#8 bytes for sealing: the only time they are handed out.
    pub fn generate(rng: &SystemRandom) -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let pkcs8 = generate_pkcs8(rng)?;
        Ok((
            Self {
                pair: key_pair(&pkcs8, rng)?,
                rng: rng.clone(),
            },
            pkcs8,
        ))
    }

    /// Reads a key that was unsealed.
    pub fn from_pkcs8(pkcs8: &[u8], rng: SystemRandom) -> Result<Self, KeyError> {
        Ok(Self {
            pair: key_pair(pkcs8, &rng)?,
            rng,
        })
    }
}

fn sign_with(pair: &EcdsaKeyPair, rng: &SystemRandom, message: &[u8]) -> Result<Vec<u8>, SignError> {
    let signature = pair
        .sign(rng, message)
        .map_err(|_| SignError("the random source failed".to_owned()))?;
    Ok(signature.as_ref().to_vec())
}

impl AuthoritySigner for LocalSigner {
    fn public_point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        sign_with(&self.pair, &self.rng, message)
    }
}

/// Lets rcgen sign with an authority's key.
pub(crate) struct RcgenSigner<'a>(pub(crate) &'a dyn AuthoritySigner);

impl PublicKeyData for RcgenSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for RcgenSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Lets rcgen sign a request with a workload's key.
pub(crate) struct RcgenLeafKey<'a>(pub(crate) &'a LeafKey);

impl PublicKeyData for RcgenLeafKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for RcgenLeafKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        sign_with(&self.0.pair, &self.0.rng, message).map_err(|_| rcgen::Error::RingUnspecified)
    }
}
