//! X.509-SVIDs in three steps: [`template`] decides what the leaf will say, [`sign`] makes it, [`check`]
//! reads it back.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::authority::{AuthorityCertificate, AuthorityError, AuthorityId, OutsideLife};
use crate::certificate::Certificate;
use crate::csr::CsrError;
use crate::id::SpiffeId;
use crate::serial::SerialNumber;
use crate::signer::LeafKey;
use crate::verify::{LeafInfo, VerifyError, inspect_leaf};

mod leaf;
mod template;
#[cfg(test)]
mod tests;

pub use leaf::{check, sign};
pub use template::{check_dns_names, crl_url, template};

/// Most DNS names in one leaf.
pub const MAX_DNS_NAMES: usize = 64;

/// Why no certificate was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// An ID that no leaf may carry.
    #[error("{id} cannot be issued: {why}")]
    Identity {
        /// The ID asked for.
        id: SpiffeId,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A DNS name that is not one.
    #[error("`{name}` cannot be a DNS name in a certificate: {why}")]
    DnsName {
        /// The name, shortened.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Too many DNS names.
    #[error("{0} DNS names; the limit is {MAX_DNS_NAMES}")]
    TooManyDnsNames(usize),
    /// The base of the CRL's address cannot stand in a certificate.
    #[error("the CRL base URL `{0}` is not a plain http:// or https:// address")]
    CrlUrl(String),
    /// The authority is not valid now.
    #[error(transparent)]
    AuthorityNotValid(#[from] OutsideLife),
    /// A profile under which nothing would live.
    #[error("the certificate's lifetime is zero")]
    Lifetime,
    /// The authority cannot sign this.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key that must not be certified.
    #[error(transparent)]
    Key(#[from] CsrError),
    /// The key did not sign.
    #[error("signing failed: {0}")]
    Sign(String),
    /// The leaf does not say what it should. Never hand it out.
    #[error("the signed certificate is wrong: {0}")]
    Wrong(String),
}

/// Limits that hold for every leaf.
#[derive(Clone, Debug)]
pub struct SvidProfile {
    /// How long a leaf lives from now.
    pub ttl: Duration,
    /// How far notBefore lies in the past, for peers whose clocks are behind.
    pub clock_skew: Duration,
    /// Where CRLs are served; the leaf names `<base>/crl/<authority id>.crl`. Without it no address is
    /// written.
    pub crl_base_url: Option<String>,
}

/// Whom a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A workload: never an ID below `/signet`.
    Workload,
    /// A server or agent of ours: only IDs below `/signet`.
    Control,
}

/// What a leaf will say, besides its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidTemplate {
    /// The one URI name.
    pub spiffe_id: SpiffeId,
    /// DNS names beside it.
    pub dns_names: Vec<String>,
    /// Begin, whole seconds.
    pub not_before: SystemTime,
    /// End, whole seconds, never after the authority's.
    pub not_after: SystemTime,
    /// The reserved serial.
    pub serial: SerialNumber,
    /// The CRL's address.
    pub crl_url: Option<String>,
}

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
