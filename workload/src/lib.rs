//! SPIFFE identities for a program of yours, from the agent on its node: certificates that rotate by themselves, peers
//! known by their SPIFFE ID, revocation enforced.
//!
//! [`X509Source`] follows the SPIFFE Workload API and keeps the newest state it could verify. Its [`Acceptor`] and
//! [`Connector`] wrap any byte stream in mutual TLS and say who the [`Peer`] is; its rustls configurations serve
//! hyper, tonic and the like. Name whom you accept with a [`PeerRule`].
//!
//! # Revocation
//! **It fails closed, and there is no switch to turn it off.** A peer is accepted only if its authority's CRL is at
//! hand, is current, and does not list it. An endpoint that sends no CRLs (no other implementation fills that field)
//! therefore gives an identity, but no peer verifies. TLS sessions are never resumed, since resumption skips the verifier.
//!
//! A handshake looks at one moment only. [`Peer::while_trusted`] runs the work of a connection for as long as its peer
//! stays trusted, and cuts it when the certificate is revoked or expires, or its authority leaves the bundle;
//! [`Peer::recheck`] asks once, for instance per request.
//!
//! # Failures
//! A message of the agent that does not verify is not used, a lost agent is called again with back-off, and what was
//! verified last stays in use until it expires.
//!
//! # A server
//! ```no_run
#![doc = include_str!("../examples/server.rs")]
//! ```
//!
//! # A client
//! ```no_run
#![doc = include_str!("../examples/client.rs")]
//! ```

pub mod endpoint;
pub mod message;
pub mod peer;
pub mod source;
pub mod tls;

pub use endpoint::{Endpoint, EndpointError};
pub use peer::Peer;
pub use source::{Options, SourceError, SourceState, X509Context, X509Source};
pub use tls::{Acceptor, Connector, TlsError};

pub use signet_certs::id::{IdError, SpiffeId, TrustDomain};
pub use signet_certs::tls::PeerRule;
pub use signet_certs::verify::{VerifiedSvid, VerifyError};
