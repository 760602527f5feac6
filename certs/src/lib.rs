//! X.509 for SPIFFE, pure: no clock, RNG, file or socket of its own; `now` and randomness are arguments.
//!
//! A certificate's way: [`id`] names whom it is for, [`csr`] brings the key, [`svid`] decides, signs and
//! checks the leaf under an [`authority`], [`crl`] lists it once revoked, [`bundle`] tells others whom to
//! trust, [`anchors_file`] an agent by whom to recognise its server, [`link`] leads from an authority to its
//! successor, and [`verify`] with [`tls`] judges what peers present. [`dates`] says why a moment is too early or
//! too late. rcgen builds, x509-parser reads, webpki judges paths; each is named in few files.
//!
//! Without the feature `issue`, which is on by default, nothing is made here and no JSON read: what remains is what a
//! workload does with its own SVID and its peers'.
#![cfg_attr(
    not(feature = "issue"),
    expect(dead_code, reason = "what only the making of certificates looks at")
)]

#[cfg(feature = "issue")]
pub mod anchors_file;
pub mod authority;
#[cfg(feature = "issue")]
pub mod bundle;
mod certificate;
pub mod crl;
#[cfg(feature = "issue")]
pub mod csr;
pub mod dates;
mod der;
pub mod id;
#[cfg(feature = "issue")]
pub mod json;
#[cfg(feature = "issue")]
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
