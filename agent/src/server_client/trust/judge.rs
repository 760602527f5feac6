//! Whether an update is believed.

mod lists;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::{AuthorityCertificate, AuthorityError, AuthorityId};
use signet_certs::bundle::TrustBundle;
use signet_certs::crl::{Crl, CrlError};
use signet_certs::id::TrustDomain;
use thiserror::Error;

use super::{Departed, HeldAuthority, TrustState, roots};
use crate::server_client::{OfferedAuthority, TrustUpdate};

/// Why a bundle is not believed. The one that was held before stays in force.
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
    /// The store's epoch fell.
    #[error(
        "the server's epoch fell from {held} to {offered}; was an old store put in place without a restore?"
    )]
    Epoch {
        /// In force.
        held: u64,
        /// In the update.
        offered: u64,
    },
    /// An authority that had to leave is back.
    #[error("authority {0} left because it was not to be trusted any more; rotate it out of the bundle")]
    Departed(AuthorityId),
    /// Not an authority, or one of another trust domain.
    #[error("an authority is not usable: {0}")]
    Authority(String),
    /// One authority in two roles, or named twice.
    #[error("authority {0} appears twice")]
    Twice(AuthorityId),
    /// An authority of which no CRL is held comes with one that is on its way still, or was kept with one that is damaged.
    #[error("authority {authority} comes without a usable CRL: {problem}")]
    Crl {
        /// Whose.
        authority: AuthorityId,
        /// Why not.
        problem: CrlError,
    },
}

/// What came of an update.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// To be held from now on. Its `problem` says why the bundle was kept out, if it was, and `refused` which CRLs were: the older one stays
    /// in force, and an authority without one is held without.
    pub state: TrustState,
}

/// Judges an update against what is held, each object by its own proof. CRLs are signed: newer ones of authorities that are
/// held are taken whatever else the update says, and one that is not believed keeps nothing else out. The bundle is not: its sequence may not fall, equal sequences mean equal
/// bundles, no authority serves workloads and the control plane both, and none that had to leave comes back (invariants 3
/// and 14); else the one that is held stays. A later epoch of the server's store allows lower numbers, and nothing else.
///
/// # Errors
/// [`TrustError`] when nothing is held and the update is not believed.
pub(crate) fn accept(
    held: Option<&TrustState>,
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Accepted, TrustError> {
    let judged = judge(held, update, trust_domain, Some(now)).and_then(|state| {
        check_departed(&state)?;
        if let Some(held) = held {
            check_numbers(held, &state)?;
        }
        Ok(Accepted { state })
    });
    match (judged, held) {
        (Err(error), Some(held)) => Ok(only_lists(held, update, &error, now)),
        (judged, _) => judged,
    }
}

/// What is held, with the newer CRLs of an update whose bundle is not believed.
fn only_lists(held: &TrustState, update: &TrustUpdate, error: &TrustError, now: SystemTime) -> Accepted {
    let (mut kept, left) = (Vec::new(), &held.left);
    let mut newer = |held: &HeldAuthority| {
        let certificate = held.certificate.der();
        let all = update.x509.iter().chain(&update.control);
        let mut newest = held.clone();
        for offered in all.filter(|offered| offered.certificate == certificate) {
            let judged = Crl::verify(&offered.crl, &held.certificate).and_then(|crl| {
                match &newest.crl {
                    Some(newest) => crl.may_replace(newest, now)?,
                    None => left.check(&crl).and_then(|()| crl.check_not_ahead(now))?,
                }
                Ok(crl)
            });
            match judged {
                Ok(crl) => newest.crl = Some(crl),
                Err(error) => kept.push((held.certificate.id(), error)),
            }
        }
        newest
    };
    let x509: Vec<_> = held.x509.iter().map(&mut newer).collect();
    let control = held.control.iter().map(&mut newer).collect();
    let state = TrustState {
        roots: Arc::new(roots(&held.bundle.trust_domain, &x509)),
        x509,
        control,
        policy_revision: update.policy_revision,
        departed: held.departed.with(&update.departed, now),
        problem: error.to_string(),
        refused: kept,
        ..held.clone()
    };
    Accepted { state }
}

/// What was accepted once and kept since. The dates of its CRLs are not judged again.
///
/// # Errors
/// [`TrustError`] when it is damaged.
pub(super) fn believed_before(
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
) -> Result<TrustState, TrustError> {
    judge(None, update, trust_domain, None)
}

/// The state that an update would make.
fn judge(
    held: Option<&TrustState>,
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
    now: Option<SystemTime>,
) -> Result<TrustState, TrustError> {
    let mut judge = Judge {
        held,
        trust_domain,
        now,
        epoch: epoch(held, update),
        seen: BTreeSet::new(),
        refused: Vec::new(),
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
    let left = judge.left(&x509, &control);
    Ok(TrustState {
        left,
        bundle_der: bundle.to_der_concat(),
        bundle,
        roots: Arc::new(roots(trust_domain, &x509)),
        x509,
        control,
        policy_revision: update.policy_revision,
        epoch: judge.epoch,
        departed: departed(held, update, now),
        problem: String::new(),
        refused: judge.refused,
    })
}

fn check_departed(offered: &TrustState) -> Result<(), TrustError> {
    let mut all = offered.x509.iter().chain(&offered.control);
    let back = all.find(|authority| offered.departed.contains(&authority.certificate.id()));
    back.map_or(Ok(()), |back| Err(TrustError::Departed(back.certificate.id())))
}

fn check_numbers(held: &TrustState, offered: &TrustState) -> Result<(), TrustError> {
    if offered.epoch < held.epoch {
        return Err(TrustError::Epoch {
            held: held.epoch,
            offered: offered.epoch,
        });
    }
    // The first epoch that is heard of is no later one.
    if held.epoch > 0 && offered.epoch > held.epoch {
        return Ok(());
    }
    check_sequence(&held.bundle, &offered.bundle)
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

/// A server that does not say changes nothing.
fn epoch(held: Option<&TrustState>, update: &TrustUpdate) -> u64 {
    match update.epoch {
        0 => held.map_or(0, |held| held.epoch),
        said => said,
    }
}

fn departed(held: Option<&TrustState>, update: &TrustUpdate, now: Option<SystemTime>) -> Departed {
    let known = held.map(|held| held.departed.clone()).unwrap_or_default();
    match now {
        Some(now) => known.with(&update.departed, now),
        None => known,
    }
}

struct Judge<'a> {
    held: Option<&'a TrustState>,
    trust_domain: &'a TrustDomain,
    /// `None` when dates have been judged before.
    now: Option<SystemTime>,
    epoch: u64,
    seen: BTreeSet<AuthorityId>,
    refused: Vec<(AuthorityId, CrlError)>,
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
        let crl = self.crl(&certificate, offered)?;
        Ok(HeldAuthority {
            certificate,
            crl,
            tainted: offered.tainted,
        })
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
