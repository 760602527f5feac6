//! A certificate as the server sent it, made an SVID once it is what it has to be.

use std::time::SystemTime;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use signet_certs::id::SpiffeId;
use signet_certs::signer::LeafKey;
use signet_certs::svid::X509Svid;
use signet_certs::verify::{Role, TrustRoots, VerifyError, verify_chain};
use thiserror::Error;

/// Why it is not used.
#[derive(Debug, Error)]
pub(crate) enum Unusable {
    /// A peer would not believe it, or it is for another key.
    #[error(transparent)]
    NotBelieved(#[from] VerifyError),
    /// The server's answer says one name, the leaf another.
    #[error("it names {leaf}, the server's answer {answer}")]
    Mislabelled {
        /// In the leaf.
        leaf: SpiffeId,
        /// Beside it.
        answer: SpiffeId,
    },
}

/// Chain, validity, revocation and role as every peer of the holder will verify them, the key that was made for it, and
/// the name that the answer says. Whether the name is the wanted one is the caller's question.
///
/// # Errors
/// [`Unusable`]; it will not get better by waiting, unless the roots change.
pub(crate) fn verified(
    chain: &[Bytes],
    named: &SpiffeId,
    key: LeafKey,
    roots: &TrustRoots,
    now: SystemTime,
) -> Result<X509Svid, Unusable> {
    let certificates: Vec<_> = chain
        .iter()
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect();
    verify_chain(&certificates, Role::Client, roots, now)?;
    let svid = X509Svid::new(chain.iter().map(|der| der.to_vec()).collect(), key)?;
    if svid.spiffe_id() != named {
        return Err(Unusable::Mislabelled {
            leaf: svid.spiffe_id().clone(),
            answer: named.clone(),
        });
    }
    Ok(svid)
}
