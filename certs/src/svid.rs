//! X.509-SVIDs. They are made in three steps: `template` decides what the leaf will say, `sign` makes it, `check` reads it
//! back.

use std::fmt;
use std::time::SystemTime;

use crate::authority::{AuthorityCertificate, AuthorityId};
use crate::certificate::Certificate;
use crate::id::SpiffeId;
use crate::serial::SerialNumber;
use crate::signer::LeafKey;
use crate::verify::{LeafInfo, VerifyError, inspect_leaf};

#[cfg(feature = "issue")]
mod issue;
#[cfg(feature = "issue")]
mod leaf;
#[cfg(feature = "issue")]
mod template;
#[cfg(test)]
mod tests;

#[cfg(feature = "issue")]
pub use issue::{MAX_DNS_NAMES, Purpose, SvidError, SvidProfile, SvidTemplate};
#[cfg(feature = "issue")]
pub use leaf::{check, sign};
#[cfg(feature = "issue")]
pub use template::{check_dns_names, crl_url, template};

/// A workload's certificate chain with its private key, which belong together. `Debug` shows neither.
pub struct X509Svid {
    chain: Vec<Vec<u8>>,
    key: LeafKey,
    spiffe_id: SpiffeId,
    serial: SerialNumber,
    authority_id: AuthorityId,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl X509Svid {
    /// Joins a chain and its key: the leaf obeys the SPIFFE rules and holds that key, what follows are
    /// authorities. No signature is verified.
    pub fn new(chain: Vec<Vec<u8>>, key: LeafKey) -> Result<Self, VerifyError> {
        let (leaf, above) = chain.split_first().ok_or(VerifyError::EmptyChain)?;
        let LeafInfo {
            spiffe_id,
            serial,
            authority_id,
            not_before,
            not_after,
            ..
        } = inspect_leaf(leaf)?;
        if Certificate::parse(leaf)?.spki() != key.public_key_spki() {
            return Err(VerifyError::KeyMismatch);
        }
        for der in above {
            AuthorityCertificate::from_der(der).map_err(|error| VerifyError::Chain(error.to_string()))?;
        }
        Ok(Self {
            spiffe_id,
            serial,
            authority_id,
            not_before,
            not_after,
            chain,
            key,
        })
    }

    /// DER certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &LeafKey {
        &self.key
    }

    /// The leaf's ID.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The leaf's serial.
    #[must_use]
    pub fn serial(&self) -> SerialNumber {
        self.serial
    }

    /// Who signed the leaf.
    #[must_use]
    pub fn authority_id(&self) -> AuthorityId {
        self.authority_id
    }

    /// First second of the leaf's life.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last second of the leaf's life.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The chain as one run of DER, leaf first, as the Workload API carries it.
    #[must_use]
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain.concat()
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("serial", &self.serial)
            .field("authority_id", &self.authority_id)
            .finish_non_exhaustive()
    }
}
