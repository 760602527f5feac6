//! Keys that sign.

use rcgen::{PublicKeyData, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::{KeyError, LeafKey, SignatureAlgorithm, generate_pkcs8, key_pair};

/// A signature could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing failed: {0}")]
pub struct SignError(pub String);

/// A key that signs certificates and CRLs; the key itself may live elsewhere.
pub trait AuthoritySigner: Send + Sync {
    /// What it signs with.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// The uncompressed point of its public half.
    fn public_point(&self) -> &[u8];

    /// Whether a signature is made elsewhere, by a token or a service, and blocks until it is there: then it belongs off the
    /// threads that serve.
    fn is_remote(&self) -> bool;

    /// A signature over `message` by its [`algorithm`](Self::algorithm), in DER. Blocks where the key is remote.
    ///
    /// # Errors
    /// [`SignError`], with the reason for people.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// The public half as DER SubjectPublicKeyInfo.
    fn spki(&self) -> Vec<u8> {
        self.algorithm().spki(self.public_point())
    }
}

/// An authority key in this process's memory.
pub struct LocalSigner {
    algorithm: SignatureAlgorithm,
    pair: EcdsaKeyPair,
    rng: SystemRandom,
}

impl LocalSigner {
    /// A new key, and its PKCS#8 bytes for sealing: the only time they are handed out.
    ///
    /// # Errors
    /// The random source failed.
    pub fn generate(
        algorithm: SignatureAlgorithm,
        rng: &SystemRandom,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let pkcs8 = generate_pkcs8(algorithm.signing(), rng)?;
        Ok((Self::of(algorithm, &pkcs8, rng.clone())?, pkcs8))
    }

    /// Reads a key that was unsealed; its form says which algorithm it is for.
    ///
    /// # Errors
    /// It is a key for no [`SignatureAlgorithm`].
    pub fn from_pkcs8(pkcs8: &[u8], rng: SystemRandom) -> Result<Self, KeyError> {
        let mut refused = KeyError::Malformed(String::new());
        for algorithm in SignatureAlgorithm::ALL {
            match Self::of(algorithm, pkcs8, rng.clone()) {
                Ok(signer) => return Ok(signer),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn of(algorithm: SignatureAlgorithm, pkcs8: &[u8], rng: SystemRandom) -> Result<Self, KeyError> {
        Ok(Self {
            algorithm,
            pair: key_pair(algorithm.signing(), pkcs8, &rng)?,
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
    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn is_remote(&self) -> bool {
        false
    }

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
        self.0.algorithm().rcgen()
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
