//! X.509 for SPIFFE, pure: no clock, RNG, file or socket of its own; `now` and randomness are arguments.
//!
//! A certificate's way: [`id`] names whom it is for, [`csr`] brings the key, [`svid`] decides, signs and
//! checks the leaf under an [`authority`], [`crl`] lists it once revoked, [`bundle`] tells others whom to
//! trust, [`link`] leads from an authority to its successor, and [`verify`] with [`tls`] judges what peers
//! present. rcgen builds, x509-parser reads, webpki judges paths; each is named in few files.

pub mod authority;
pub mod bundle;
mod certificate;
pub mod crl;
pub mod csr;
mod der;
pub mod id;
mod json;
pub mod jws;
pub mod link;
pub mod pem;
pub mod serial;
pub mod signer;
pub mod svid;
#[cfg(test)]
mod testing;
// As a dev-dependency the testkit would bring its types from a second build of this crate.
#[cfg(test)]
extern crate self as signet_certs;
#[cfg(test)]
#[path = "../../testkit/src/lib.rs"]
#[expect(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "other crates use the rest"
)]
mod testkit;
pub mod time;
pub mod tls;
pub mod verify;

pub use certificate::CertificateError;
pub use der::{DerError, split_certificates};
