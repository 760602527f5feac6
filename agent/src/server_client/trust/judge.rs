//! Whether an update is believed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::{AuthorityCertificate, AuthorityError, AuthorityId};
use signet_certs::bundle::TrustBundle;
use signet_certs::crl::{Crl, CrlError};
use signet_certs::id::TrustDomain;
use thiserror::Error;

use super::{HeldAuthority, TrustState, roots};
use crate::server_client::{OfferedAuthority, TrustUpdate};

/// Why an update is not believed. What was held before stays in force.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    /// No authority of one kind.
    #[error("the update holds no {0} authority")]
    Empty(&'static str),
    /// The sequence number fell.
    #[error(
        "the bundle's sequence number fell from {held} to {offered}; was the server restored from a backup?"
    )]
    Rollback {
        /// In force.
        held: u64,
        /// In the update.
        offered: u64,
    },
    /// One number, two contents.
    #[error("two different bundles carry sequence number {0}; was the server restored from a backup?")]
    Conflict(u64),
    /// Not an authority, or one of another trust domain.
    #[error("an authority is not usable: {0}")]
    Authority(String),
    /// One authority in two roles, or named twice.
    #[error("authority {0} appears twice")]
    Twice(AuthorityId),
    /// An authority comes without a believable CRL and none is held.
    #[error("authority {authority} comes without a usable CRL: {problem}")]
    Crl {
        /// Whose.
        authority: AuthorityId,
        /// Why not.
        problem: CrlError,
    },
}

/// An update that was believed.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// To be held from now on.
    pub state: TrustState,
    /// CRLs that were not taken over, for the log: the older one stays in force.
    pub kept: Vec<(AuthorityId, CrlError)>,
}

/// Judges an update against what is held. CRLs are verified and may only grow, the sequence may not fall, equal
/// sequences mean equal bundles, and no authority serves workloads and the control plane both (invariants 3 and 14).
///
/// # Errors
/// [`TrustError`] when the update as a whole is refused.
pub(crate) fn accept(
    held: Option<&TrustState>,
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Accepted, TrustError> {
    let (state, kept) = judge(held, update, trust_domain, Some(now))?;
    if let Some(held) = held {
        check_sequence(&held.bundle, &state.bundle)?;
    }
    Ok(Accepted { state, kept })
}

/// What was accepted once and kept since. The dates of its CRLs are not judged again.
///
/// # Errors
/// [`TrustError`] when it is damaged.
pub(super) fn believed_before(
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
) -> Result<TrustState, TrustError> {
    judge(None, update, trust_domain, None).map(|(state, _)| state)
}

/// The state that an update would make, and CRLs that stay though others were offered.
fn judge(
    held: Option<&TrustState>,
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
    now: Option<SystemTime>,
) -> Result<(TrustState, Vec<(AuthorityId, CrlError)>), TrustError> {
    let mut judge = Judge {
        held,
        trust_domain,
        now,
        seen: BTreeSet::new(),
        kept: Vec::new(),
    };
    let mut x509 = judge.authorities("X.509", &update.x509)?;
    let control = judge.authorities("control", &update.control)?;
    let certificates = x509
        .iter()
        .map(|authority| authority.certificate.clone())
        .collect();
    let bundle = TrustBundle::new(
        trust_domain.clone(),
        certificates,
        update.sequence_number,
        update.refresh_hint,
    );
    // CRLs in the order of the bundle: the same on every node, whatever the update's order was.
    x509.sort_by_key(|authority| authority.certificate.id());
    let state = TrustState {
        bundle_der: bundle.to_der_concat(),
        bundle,
        roots: Arc::new(roots(trust_domain, &x509)),
        x509,
        control,
        policy_revision: update.policy_revision,
    };
    Ok((state, judge.kept))
}

fn check_sequence(held: &TrustBundle, offered: &TrustBundle) -> Result<(), TrustError> {
    if offered.sequence_number < held.sequence_number {
        return Err(TrustError::Rollback {
            held: held.sequence_number,
            offered: offered.sequence_number,
        });
    }
    if offered.sequence_number == held.sequence_number && offered.authorities != held.authorities {
        return Err(TrustError::Conflict(held.sequence_number));
    }
    Ok(())
}

struct Judge<'a> {
    held: Option<&'a TrustState>,
    trust_domain: &'a TrustDomain,
    /// `None` when dates have been judged before.
    now: Option<SystemTime>,
    seen: BTreeSet<AuthorityId>,
    kept: Vec<(AuthorityId, CrlError)>,
}

impl Judge<'_> {
    fn authorities(
        &mut self,
        kind: &'static str,
        offered: &[OfferedAuthority],
    ) -> Result<Vec<HeldAuthority>, TrustError> {
        if offered.is_empty() {
            return Err(TrustError::Empty(kind));
        }
        offered
            .iter()
            .map(|authority| self.authority(authority))
            .collect()
    }

    fn authority(&mut self, offered: &OfferedAuthority) -> Result<HeldAuthority, TrustError> {
        let certificate = usable(&offered.certificate, self.trust_domain)?;
        let id = certificate.id();
        if !self.seen.insert(id) {
            return Err(TrustError::Twice(id));
        }
        let crl = self.crl(&certificate, &offered.crl)?;
        Ok(HeldAuthority {
            crl_der: crl.der().clone(),
            certificate,
            crl,
            tainted: offered.tainted,
        })
    }

    /// The offered CRL, or the held one when the offered one may not replace it.
    fn crl(&mut self, issuer: &AuthorityCertificate, offered: &[u8]) -> Result<Crl, TrustError> {
        let held = self.held.and_then(|held| held.find(&issuer.id()));
        let judged = Crl::verify(offered, issuer).and_then(|crl| match (held, self.now) {
            (Some(held), Some(now)) => crl.may_replace(&held.crl, now).map(|()| crl),
            (None, Some(now)) => crl.check_not_ahead(now).map(|()| crl),
            (_, None) => Ok(crl),
        });
        match (judged, held) {
            (Ok(crl), _) => Ok(crl),
            (Err(error), Some(held)) => {
                self.kept.push((issuer.id(), error));
                Ok(held.crl.clone())
            }
            (Err(problem), None) => Err(TrustError::Crl {
                authority: issuer.id(),
                problem,
            }),
        }
    }
}

/// An authority certificate of this trust domain.
pub(in crate::server_client) fn usable(
    der: &[u8],
    trust_domain: &TrustDomain,
) -> Result<AuthorityCertificate, TrustError> {
    let certificate = AuthorityCertificate::from_der(der)
        .map_err(|error: AuthorityError| TrustError::Authority(error.to_string()))?;
    match certificate.trust_domain() {
        Some(other) if other != trust_domain => Err(TrustError::Authority(format!(
            "it belongs to trust domain {other}, not {trust_domain}"
        ))),
        _ => Ok(certificate),
    }
}
