//! Signet's server: the certificate authority of a trust domain.

pub mod admission;
pub mod agents;
pub mod api;
pub mod app;
pub mod attest;
pub mod audit;
pub mod audit_event;
pub mod authority;
pub mod cli;
pub mod config;
pub mod issuer;
pub mod key_manager;
pub mod metrics;
pub mod own_svid;
pub mod publish_http;
pub mod publish_https;
pub mod publisher;
pub mod rules;
pub mod store;
pub mod trust;
