//! The server's certificates for itself: recorded and signed like any other, with no agent and no rule behind them. A
//! function of its own, because it runs before there is an [`Issuer`](super::Issuer).

use std::time::SystemTime;

use ring::rand::SystemRandom;
use signet_certs::{
    authority::X509Authority,
    csr::{CsrError, create_csr, verify_csr},
    id::SpiffeId,
    signer::{KeyError, LeafKey},
    svid::{Purpose, SvidError, SvidProfile, X509Svid},
    verify::VerifyError,
};

use super::{
    draft::{Draft, DraftError, Order, record_one},
    recorded::SignError,
};
use crate::store::{EvidenceKind, IssueRefusal, Store, StoreError, WorkloadRef};

/// Name of the rule in the ledger.
const RULE: &str = "own";

/// Why the server got no certificate for itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnIssueError {
    /// The ledger did not take the row.
    #[error("the ledger could not be written")]
    Store(#[from] StoreError),
    /// Somebody has denied the server its own identity.
    #[error("the server may not have its own identity: lift the denial with `allow`")]
    Refused(#[from] IssueRefusal),
    /// No key could be made.
    #[error("no key could be made")]
    Key(#[from] KeyError),
    /// The key was refused.
    #[error("the key is not usable")]
    Csr(#[from] CsrError),
    /// No certificate may say this.
    #[error("the certificate could not be made")]
    Svid(#[from] SvidError),
    /// The certificate could not be made, or was not as asked for.
    #[error("the certificate could not be signed")]
    Sign(#[from] SignError),
    /// The certificate is no X509-SVID.
    #[error("the certificate did not pass its check")]
    Verify(#[from] VerifyError),
}

impl From<DraftError> for OwnIssueError {
    fn from(error: DraftError) -> Self {
        match error {
            DraftError::Random => Self::Key(KeyError::Random),
            DraftError::Svid(error) => Self::Svid(error),
        }
    }
}

/// Issues a certificate over a fresh key to the server itself: ledger first, signature second (INV-4).
///
/// # Errors
/// [`OwnIssueError`]; what was recorded by then stays, without a certificate.
pub(crate) async fn issue_own(
    spiffe_id: SpiffeId,
    profile: &SvidProfile,
    authority: &X509Authority,
    store: &dyn Store,
    random: &SystemRandom,
    now: SystemTime,
) -> Result<X509Svid, OwnIssueError> {
    let key = LeafKey::generate(random)?;
    let order = Order {
        purpose: Purpose::Control,
        workload: WorkloadRef::of(spiffe_id),
        dns_names: Vec::new(),
        key: verify_csr(&create_csr(&key)?)?,
        evidence: EvidenceKind::Own,
        token_jti: None,
        rule: RULE.to_owned(),
        policy_revision: 0,
        // By it ends no denial but one of the server itself.
        earliest: now,
        caller: None,
        attestation: None,
        outage: false,
        budget: None,
    };
    let draft = Draft::new(order, profile, authority, random, now)?;
    let leaf = record_one(store, draft, now).await??;
    let leaf = leaf.sign_alone(authority.clone()).await?;
    Ok(X509Svid::new(leaf.chain, key)?)
}
