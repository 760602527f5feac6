//! Verifies what the server sent as a peer of the workload will, before anything of it is published.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use signet_certs::authority::AuthorityId;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::signer::LeafKey;
use signet_certs::svid::X509Svid;
use signet_certs::verify::{Role, inspect_leaf, verify_chain};
use thiserror::Error;

use crate::cache::{Issued, Leaf, Wanted};
use crate::context::GrantedSvid;
use crate::server_client::IssuedChain;
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
    let leaf = chain
        .chain
        .first()
        .ok_or_else(|| Unacceptable::Faulty("the chain is empty".to_owned()))?;
    Ok(inspect_leaf(leaf).map_err(faulty)?.authority_id)
}

/// Chain, CRL, key, and identity are what they have to be.
pub(super) fn accept(
    wanted: &Wanted,
    chain: IssuedChain,
    key: LeafKey,
    trust: &TrustState,
    now: SystemTime,
) -> Result<Issued, Unacceptable> {
    let authority = authority_of(&chain)?;
    if !trust.x509.iter().any(|held| held.certificate.id() == authority) {
        return Err(Unacceptable::UnknownAuthority(authority));
    }
    let certificates: Vec<_> = chain
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect();
    verify_chain(&certificates, Role::Client, &trust.roots, now).map_err(faulty)?;
    let svid = X509Svid::new(chain.chain.iter().map(|der| der.to_vec()).collect(), key).map_err(faulty)?;
    check_identities(wanted, &chain, &svid.spiffe_id, &trust.bundle.trust_domain)?;
    Ok(Issued {
        leaf: leaf_of(svid),
        identities: chain.identities,
    })
}

fn check_identities(
    wanted: &Wanted,
    chain: &IssuedChain,
    leaf: &SpiffeId,
    trust_domain: &TrustDomain,
) -> Result<(), Unacceptable> {
    if *leaf != chain.spiffe_id || wanted.spiffe_id.as_ref().is_some_and(|asked| asked != leaf) {
        return Err(Unacceptable::Faulty(format!(
            "it names {leaf}, which is not the identity asked for"
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

fn leaf_of(svid: X509Svid) -> Leaf {
    let (serial, authority) = (svid.serial, svid.authority_id);
    Leaf {
        svid: GrantedSvid::new(Arc::new(svid), String::new()),
        serial,
        authority,
    }
}

fn faulty(error: impl std::fmt::Display) -> Unacceptable {
    Unacceptable::Faulty(error.to_string())
}
