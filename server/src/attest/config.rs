//! The attestation part of the server's configuration.

pub(crate) mod raw;
#[cfg(test)]
mod tests;
mod valid;

pub(super) use self::raw::CALLS_PER_SECOND;
pub use self::valid::{AttestationConfig, ClusterConfig};
