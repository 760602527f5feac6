//! What the tests of every crate share: one moment, names, authorities with the leaves and lists they sign, what a
//! Kubernetes was recorded to answer, what the machine lets a test do, and how samples, golden files and the audit log are
//! held against what is found.
//!
//! Everything is real: keys, signatures, the same functions that the server calls. Only the time is fixed. What does not
//! work out is a fault of the test, so everything panics instead of answering with an error.
#![allow(clippy::unwrap_used, reason = "for tests only")]

mod audit;
mod authority;
mod crl;
// Beside it, for `certs` compiles that file by itself.
#[cfg(test)]
mod crl_tests;
mod golden;
pub mod kube;
mod leaf;
pub mod machine;
pub mod sample;
mod upstream;

use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;

pub use audit::provoked;
pub use authority::{
    authority, authority_between, authority_by, authority_over, authority_profile, control_authority, crl,
    crl_at, new_authority, roots,
};
pub use crl::check_der;
pub use golden::golden;
pub use leaf::{Leaf, chain, leaf, leaf_key, public_key, svid};
pub use machine::folder;
pub use upstream::Upstream;

/// The trust domain of tests that need only one.
pub const DOMAIN: &str = "example.org";
/// 60 seconds.
pub const MINUTE: Duration = Duration::from_secs(60);
/// 60 minutes.
pub const HOUR: Duration = Duration::from_secs(3600);
/// 24 hours.
pub const DAY: Duration = Duration::from_secs(86_400);
/// How far peers' clocks may differ.
pub const SKEW: Duration = Duration::from_secs(120);

/// The moment at which all tests begin: 2027-01-15T08:00:00Z.
pub fn now() -> SystemTime {
    at(0)
}

/// So many seconds after [`now`].
pub fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

/// The system's randomness.
pub fn rng() -> SystemRandom {
    SystemRandom::new()
}

/// [`DOMAIN`].
pub fn trust_domain() -> TrustDomain {
    td(DOMAIN)
}

/// A trust domain.
pub fn td(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

/// A whole SPIFFE ID, or the path of one in [`DOMAIN`].
pub fn id(text: &str) -> SpiffeId {
    id_in(DOMAIN, text)
}

fn id_in(domain: &str, text: &str) -> SpiffeId {
    if text.starts_with('/') {
        SpiffeId::parse(&format!("spiffe://{domain}{text}")).unwrap()
    } else {
        SpiffeId::parse(text).unwrap()
    }
}

/// A serial of [`now`] that `number` tells from others.
pub fn serial(number: u8) -> SerialNumber {
    SerialNumber::generate(now(), &[number; 13])
}
