//! Attestation of nodes and pods.

pub mod cluster;
pub mod jwks;
pub mod pods;
pub mod policy;
pub mod token_review;
