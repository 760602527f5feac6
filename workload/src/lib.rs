//! SPIFFE identities for a program of yours, from the agent on its node: certificates that rotate by themselves, peers
//! known by their SPIFFE ID, revocation enforced.
//!
//! [`X509Source`] follows the SPIFFE Workload API and keeps the newest state it could verify. Its [`Acceptor`] and
//! [`Connector`] wrap any byte stream in mutual TLS and say who the [`Peer`] is; its rustls configurations serve
//! hyper, tonic and the like. Name whom you accept with a [`PeerRule`].
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
//!
//! # With your stack
//! Whole programs stand in the folder `examples` of this crate, and tests run each of them: `hyper`, `axum`, `tonic`,
//! `reqwest`. What they have in common:
//!
//! * A server takes connections of [`Acceptor::incoming`] and hands each to its stack inside [`Peer::while_trusted`]; the
//!   [`Peer`] goes to the handlers as an extension of the request.
//! * A client gives [`X509Source::client_config`] to its stack. Where the stack lets you connect yourself, use a [`Connector`].
//!
//! # Who is accepted
//! A handshake verifies the peer's certificate by the authorities of *its own* trust domain, then asks the rule:
//!
//! ```
//! use signet_workload::{PeerRule, SpiffeId, TrustDomain};
//!
//! let web = SpiffeId::parse("spiffe://example.org/ns/shop/sa/web")?;
//! let partner = SpiffeId::parse("spiffe://partner.example/api")?;
//! let ours = PeerRule::TrustDomain(TrustDomain::parse("example.org")?);
//! assert!(ours.accepts(&web) && !ours.accepts(&partner));
//! assert!(PeerRule::Exactly(partner.clone()).accepts(&partner));
//! # Ok::<(), signet_workload::IdError>(())
//! ```
//!
//! Members of other trust domains verify when the agent passes that domain's bundle on, and [`Options::federated`] says which
//! of these count at all: with [`Federated::None`] even [`PeerRule::Any`] means your own trust domain. Look authorities up by
//! [`X509Source::bundle`]. Several identities? [`Options::pick`] chooses which is presented.
//!
//! # One-way TLS
//! [`X509Source::one_way_server_config`] asks clients for no certificate. A client without an identity follows the bundles
//! alone, by a [`BundleSource`], and verifies servers as everybody does. Certificates of the web's PKI are another matter: use
//! rustls with its own roots for those.
//!
//! # Revocation
//! **It fails closed.** A peer is accepted only if its authority's CRL is at hand, is current, and does not list it. An agent
//! of another make sends no CRLs (Signet's fills that field, others leave it empty): with [`CrlPolicy::Prefer`] peers of a
//! trust domain are then accepted until the first list of it was seen, and [`X509Source::is_healthy`] says that they are. TLS
//! sessions are never resumed, since resumption skips the verifier.
//!
//! A handshake looks at one moment only. [`Peer::while_trusted`] runs the work of a connection for as long as its peer
//! stays trusted, and cuts it when the certificate is revoked or expires, or its authority leaves the bundle;
//! [`Peer::recheck`] asks once, for instance per request.
//!
//! # Key exchange
//! X25519 and ML-KEM-768 together (X25519MLKEM768) with every peer that knows that group, so that a recording of the connection is of no use to whoever
//! breaks X25519 later; X25519 with others, without another round trip. A server pays about 0.07 ms of CPU for it in each handshake, a client
//! 0.15 ms: keep connections open. The feature `hybrid`, which is on by default, brings it; without it nothing of ML-KEM is built.
//!
//! # Failures
//! A message of the agent that does not verify is not used, and what was verified last stays in use until it expires. An agent
//! that is lost is called again with back-off; so is one that hangs, which shows when it leaves a ping unanswered
//! ([`Options::keep_alive`]), and one on whose stream the identity of an [`X509Source`] grows old, from the last quarter of its
//! life on. Nothing is
//! presented after its end: handshakes fail then, with [`TlsError::NoIdentity`] on our side.
//!
//! At the start [`X509Source::ready`] waits for [`Options::wait`], a minute by default, and returns at once when the agent
//! denies an identity. Afterwards [`X509Source::is_healthy`] tells what is wrong, and [`Unhealthy::still_serves`] whether
//! new connections work all the same, which is what a readiness probe asks.

mod endpoint;
mod grpc;
mod message;
mod peer;
mod policy;
mod presented;
mod source;
mod tls;

pub use endpoint::{Endpoint, EndpointError, VARIABLE};
pub use grpc::Code;
pub use message::{GrantedSvid, MAX_ELEMENTS, MessageError, Pick, Picker};
pub use peer::Peer;
pub use policy::{CrlPolicy, Federated};
pub use source::{BundleSource, Options, SourceError, SourceState, Unhealthy, X509Context, X509Source};
pub use tls::{Acceptor, Connector, Incoming, TlsError, any_server_name};

pub use signet_certs::CertificateError;
pub use signet_certs::authority::{AuthorityCertificate, AuthorityError, AuthorityId, OutsideLife};
pub use signet_certs::crl::{Crl, CrlError, CrlNumber, RevocationReason, RevokedEntry};
pub use signet_certs::dates::{OutsideDates, WhoseClock};
pub use signet_certs::id::{IdError, SpiffeId, TrustDomain};
pub use signet_certs::serial::{SerialError, SerialNumber};
pub use signet_certs::signer::{KeyError, LeafKey};
pub use signet_certs::svid::X509Svid;
pub use signet_certs::tls::PeerRule;
pub use signet_certs::verify::CrlPolicy as DomainCrlPolicy;
pub use signet_certs::verify::{Role, TrustRoots, TrustedAuthority, VerifiedSvid, VerifyError};
pub use signet_runtime::clock::{Clock, SystemClock};

pub use {rustls, tokio_rustls};
