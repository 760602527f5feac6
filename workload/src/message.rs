//! Reads one message of the Workload API and verifies all of it before anything is used. Pure: the time is an argument.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use signet_certs::crl::CrlError;
use signet_certs::id::{IdError, SpiffeId, TrustDomain};
use signet_certs::signer::{KeyError, LeafKey};
use signet_certs::split_certificates;
use signet_certs::svid::X509Svid;
use signet_certs::verify::{Role, TrustRoots, VerifyError, verify_chain};
use signet_proto::workload::{X509svid, X509svidResponse};
use signet_runtime::error::excerpt;
use thiserror::Error;
use zeroize::Zeroizing;

mod bundles;
mod pick;
mod reader;
#[cfg(test)]
mod tests;

pub use pick::{Pick, Picker};
pub(crate) use reader::Reader;

/// Most elements of any list in a message: SVIDs, CRLs, federated domains, authorities of one domain.
pub const MAX_ELEMENTS: usize = 256;

/// Why a message, or its half about us, is not used.
#[derive(Debug, Error)]
pub enum MessageError {
    /// A bundle that cannot be used.
    #[error("the bundle of {trust_domain} is unusable: {problem}")]
    Bundle {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        problem: String,
    },
    /// A CRL that cannot be used; only [`X509Context::fetch`](crate::X509Context::fetch) minds.
    #[error("a revocation list is unusable: {0}")]
    Crl(#[source] CrlError),
    /// A name that is no SPIFFE ID.
    #[error("`{text}` in the message is no SPIFFE ID: {source}")]
    Id {
        /// The name.
        text: String,
        /// The rule it breaks.
        source: IdError,
    },
    /// A key that is no P-256 key.
    #[error("the private key of {id} is unusable: {source}")]
    Key {
        /// Whose key.
        id: SpiffeId,
        /// What is wrong with it.
        source: KeyError,
    },
    /// Bytes that are no message of this call.
    #[error("it is no message of the Workload API: {0}")]
    Malformed(String),
    /// A bundle message without bundles.
    #[error("the message holds no bundle")]
    NoBundles,
    /// No SVID has the hint that the program asked for.
    #[error("no SVID carries the hint `{0}`")]
    NoHint(String),
    /// The program's own choice chose none.
    #[error("the program picked none of the {0} SVIDs in the message")]
    NotPicked(usize),
    /// The message is empty, which the standard forbids.
    #[error("the message holds no SVID")]
    NoSvids,
    /// An SVID that does not verify.
    #[error("the SVID of {id} is unusable: {source}")]
    Svid {
        /// Whose SVID.
        id: SpiffeId,
        /// The rule it breaks.
        source: VerifyError,
    },
    /// More than [`MAX_ELEMENTS`].
    #[error("the message holds {found} {what}, at most {MAX_ELEMENTS} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
    },
}

impl MessageError {
    pub(crate) fn malformed(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// An identity that the agent granted.
#[derive(Clone, Debug)]
pub struct GrantedSvid {
    /// Chain and key.
    pub svid: Arc<X509Svid>,
    /// What the operator says it is for; empty where there is nothing to say. No two non-empty hints are equal.
    pub hint: String,
}

/// All of a message, for whoever reads this one only: no older CRL is in force, so one that cannot be used refuses it.
///
/// # Errors
/// See [`MessageError`].
pub(crate) fn whole(
    message: &X509svidResponse,
    rng: &SystemRandom,
    now: SystemTime,
) -> Result<(Vec<GrantedSvid>, TrustRoots), MessageError> {
    let mut unused = None;
    let roots = Reader::default().read(message, now, |error| unused = unused.take().or(Some(error)))?;
    match unused {
        Some(error) => Err(MessageError::Crl(error)),
        None => Ok((svids(message, &roots, rng, now)?, roots)),
    }
}

/// The identities that a message grants, each verified as a peer would under `roots`. That one is revoked or that CRLs
/// are missing is no reason to refuse: the others' CRLs are needed all the same, and peers will say so.
///
/// # Errors
/// See [`MessageError`]; one bad SVID refuses all.
pub(crate) fn svids(
    message: &X509svidResponse,
    roots: &TrustRoots,
    rng: &SystemRandom,
    now: SystemTime,
) -> Result<Vec<GrantedSvid>, MessageError> {
    let mut hints = HashSet::new();
    let mut granted = Vec::with_capacity(message.svids.len());
    for entry in &message.svids {
        let svid = Arc::new(svid(entry, roots, rng, now)?);
        // The standard forbids a hint given twice; the first entry has it.
        if entry.hint.is_empty() || hints.insert(entry.hint.as_str()) {
            granted.push(GrantedSvid {
                svid,
                hint: entry.hint.clone(),
            });
        }
    }
    Ok(granted)
}

fn svid(
    entry: &X509svid,
    roots: &TrustRoots,
    rng: &SystemRandom,
    now: SystemTime,
) -> Result<X509Svid, MessageError> {
    let id = parse_id(&entry.spiffe_id)?;
    let bad = |source: VerifyError| MessageError::Svid {
        id: id.clone(),
        source,
    };
    let key = LeafKey::from_pkcs8(Zeroizing::new(entry.x509_svid_key.to_vec()), rng).map_err(|source| {
        MessageError::Key {
            id: id.clone(),
            source,
        }
    })?;
    let chain =
        split_certificates(&entry.x509_svid).map_err(|error| bad(VerifyError::Chain(error.to_string())))?;
    let svid = X509Svid::new(chain.iter().map(|der| der.to_vec()).collect(), key).map_err(bad)?;
    if *svid.spiffe_id() != id {
        return Err(bad(VerifyError::NotAnSvid(
            "its URI name differs from the ID in the message",
        )));
    }
    let chain: Vec<CertificateDer<'_>> = chain.into_iter().map(CertificateDer::from).collect();
    match verify_chain(&chain, Role::Server, roots, now) {
        Ok(_) => {}
        Err(
            status @ (VerifyError::Revoked { .. } | VerifyError::CrlMissing(_) | VerifyError::CrlStale(_)),
        ) => tracing::warn!(spiffe_id = %id, serial = %svid.serial(), %status, "peers will refuse this SVID"),
        Err(error) => return Err(bad(error)),
    }
    Ok(svid)
}

fn parse_id(text: &str) -> Result<SpiffeId, MessageError> {
    SpiffeId::parse(text).map_err(|source| MessageError::Id {
        text: excerpt(text, 160),
        source,
    })
}
