//! Keys that sign.

use rcgen::{PublicKeyData, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::{KeyError, LeafKey, generate_pkcs8, key_pair};

/// A signature could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing failed: {0}")]
pub struct SignError(pub String);

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
