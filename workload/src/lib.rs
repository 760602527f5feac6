//! An X.509 source over the SPIFFE Workload API and rustls configurations that rotate, check SPIFFE IDs and enforce the CRL.

pub mod endpoint;
pub mod source;
pub mod tls;
