//! What issuing is asked and answers.

use std::time::{Duration, SystemTime};

use crate::authority::{AuthorityError, OutsideLife};
use crate::csr::CsrError;
use crate::id::SpiffeId;
use crate::serial::SerialNumber;

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
