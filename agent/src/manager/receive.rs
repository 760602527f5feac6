//! What the server sent for a workload becomes an answer for the cache, or is not used.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::id::TrustDomain;
use signet_certs::signer::LeafKey;
use signet_certs::svid::X509Svid;
use signet_certs::verify::inspect_leaf;
use thiserror::Error;

use crate::cache::{Issued, Leaf, Wanted};
use crate::context::GrantedSvid;
use crate::server_client::IssuedChain;
use crate::server_client::received::verified;
use crate::server_client::trust::TrustState;

/// Why an answer is not used.
#[derive(Debug, Error)]
pub(super) enum Unacceptable {
    /// Signed by an authority that the bundle does not hold, or not yet.
    #[error("the certificate's authority {0} is not in the trust bundle")]
    UnknownAuthority(AuthorityId),
    /// Anything else; it will not get better by waiting.
    #[error("the server's certificate is not usable: {0}")]
    Faulty(String),
}

/// The authority that signed the chain's leaf, as the leaf says.
pub(super) fn authority_of(chain: &IssuedChain) -> Result<AuthorityId, Unacceptable> {
    let leaf = chain.chain.first().ok_or_else(empty)?;
    Ok(inspect_leaf(leaf).map_err(faulty)?.authority_id)
}

/// Chain, CRL, key, and identities are what they have to be. The date is not judged here: what the server has just made is
/// kept, and the cache publishes it while its date is.
pub(super) fn accept(
    wanted: &Wanted,
    chain: IssuedChain,
    key: LeafKey,
    trust: &TrustState,
    now: SystemTime,
) -> Result<Issued, Unacceptable> {
    let first = chain.chain.first().ok_or_else(empty)?;
    let leaf = inspect_leaf(first).map_err(faulty)?;
    let authority = leaf.authority_id;
    if !trust.x509.iter().any(|held| held.certificate.id() == authority) {
        return Err(Unacceptable::UnknownAuthority(authority));
    }
    let within = now.clamp(leaf.not_before, leaf.not_after);
    let svid = verified(&chain.chain, &chain.spiffe_id, key, &trust.roots, within).map_err(faulty)?;
    check_identities(wanted, &chain, &trust.bundle.trust_domain)?;
    Ok(Issued {
        leaf: leaf_of(svid, chain.policy_revision),
        identities: chain.identities,
    })
}

fn check_identities(
    wanted: &Wanted,
    chain: &IssuedChain,
    trust_domain: &TrustDomain,
) -> Result<(), Unacceptable> {
    let named = &chain.spiffe_id;
    if wanted.spiffe_id.as_ref().is_some_and(|asked| asked != named) {
        return Err(Unacceptable::Faulty(format!(
            "it names {named}, which is not the identity asked for"
        )));
    }
    for (id, _) in &chain.identities {
        if id.is_reserved() || id.is_trust_domain() || id.trust_domain() != *trust_domain {
            return Err(Unacceptable::Faulty(format!(
                "{id} cannot be a workload's identity here"
            )));
        }
    }
    Ok(())
}

/// As the cache holds it.
pub(super) fn leaf_of(svid: X509Svid, policy_revision: u64) -> Leaf {
    let (serial, authority) = (svid.serial(), svid.authority_id());
    Leaf {
        svid: GrantedSvid::new(Arc::new(svid), String::new()),
        serial,
        authority,
        policy_revision,
    }
}

fn empty() -> Unacceptable {
    Unacceptable::Faulty("the chain is empty".to_owned())
}

fn faulty(error: impl std::fmt::Display) -> Unacceptable {
    Unacceptable::Faulty(error.to_string())
}
