//! X25519MLKEM768 for TLS 1.3 (draft-ietf-tls-ecdhe-mlkem §4): ML-KEM-768 of FIPS 203 beside ring's X25519. Shares and secrets of both stand
//! one behind the other, ML-KEM first. What one half is worth does not depend on the other: whoever breaks ML-KEM, or this use of it, still has
//! X25519 before them.

use ml_kem::kem::{Decapsulate as _, KeyExport as _};
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Seed, SharedKey};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

/// Bytes of ML-KEM-768's encapsulation key, which is the client's share (FIPS 203 §8).
const ENCAPSULATION_KEY: usize = 1184;
/// Bytes of its ciphertext, the server's share.
const CIPHERTEXT: usize = 1088;
/// Bytes of X25519's shares.
const POINT: usize = 32;
/// What a share is refused as, with the alert `illegal_parameter`.
const BAD_SHARE: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

type Secret = Zeroizing<SharedKey>;

/// The group, with the source of its randomness.
#[derive(Debug)]
pub(super) struct X25519MlKem768(pub(super) &'static dyn SecureRandom);

impl X25519MlKem768 {
    fn random<const N: usize>(&self) -> Result<Zeroizing<[u8; N]>, Error> {
        let mut bytes = Zeroizing::new([0; N]);
        self.0.fill(bytes.as_mut_slice())?;
        Ok(bytes)
    }
}

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classical = X25519.start()?;
        let key = decapsulation_key(&*self.random()?);
        let share = [key.encapsulation_key().to_bytes().as_slice(), classical.pub_key()].concat();
        Ok(Box::new(Started {
            classical,
            key,
            share,
        }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (key, point) = split(share)?;
        let (ciphertext, secret) = encapsulate(key, &*self.random()?)?;
        let classical = X25519.start_and_complete(point)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [ciphertext.as_slice(), &classical.pub_key].concat(),
            secret: joined(&secret, &classical.secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// A client's, between its share and the server's.
struct Started {
    classical: Box<dyn ActiveKeyExchange>,
    /// Overwritten when dropped.
    key: Box<DecapsulationKey>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, point) = split(share)?;
        let classical = self.classical.complete(point)?;
        Ok(joined(&decapsulate(&self.key, ciphertext), &classical))
    }

    /// Lets X25519 be offered beside it, by the same key.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// The two halves of a share whose first has `KEM` bytes.
fn split<const KEM: usize>(share: &[u8]) -> Result<(&[u8; KEM], &[u8]), Error> {
    let (kem, point) = share.split_first_chunk().ok_or(BAD_SHARE)?;
    if point.len() == POINT {
        Ok((kem, point))
    } else {
        Err(BAD_SHARE)
    }
}

fn joined(secret: &Secret, classical: &SharedSecret) -> SharedSecret {
    SharedSecret::from([secret.as_slice(), classical.secret_bytes()].concat())
}

/// ML-KEM.KeyGen_internal (FIPS 203 §6.1), d and z being the halves of the seed.
fn decapsulation_key(seed: &[u8; 64]) -> Box<DecapsulationKey> {
    Box::new(DecapsulationKey::from_seed(*Zeroizing::new(Seed::from(*seed))))
}

/// ML-KEM.Encaps (FIPS 203 §7.2), which refuses a key with coefficients that are not reduced.
fn encapsulate(key: &[u8; ENCAPSULATION_KEY], message: &[u8; 32]) -> Result<(Ciphertext, Secret), Error> {
    let key = EncapsulationKey::new(key.into()).map_err(|_| BAD_SHARE)?;
    let message = Zeroizing::new(B32::from(*message));
    let (ciphertext, secret) = key.encapsulate_deterministic(&message);
    Ok((ciphertext, Zeroizing::new(secret)))
}

/// ML-KEM.Decaps (FIPS 203 §7.3): a ciphertext that is not by this key gives another secret, and no error.
fn decapsulate(key: &DecapsulationKey, ciphertext: &[u8; CIPHERTEXT]) -> Secret {
    Zeroizing::new(key.decapsulate(ciphertext.into()))
}

#[cfg(test)]
mod tests;
