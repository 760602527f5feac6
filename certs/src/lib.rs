//! X.509 for SPIFFE, pure: no clock, RNG, file or socket of its own; `now` and randomness are arguments.

pub mod authority;
pub mod bundle;
pub mod crl;
pub mod csr;
pub mod id;
pub mod jws;
pub mod serial;
pub mod signer;
pub mod svid;
pub mod time;
pub mod tls;
pub mod verify;
