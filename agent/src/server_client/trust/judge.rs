//! Whether an update is believed.

mod lists;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::bundle::TrustBundle;
use signet_certs::crl::{Crl, CrlError};
use signet_certs::id::TrustDomain;

use super::error::TrustError;
use super::usable::usable;
use super::{Departed, FileWord, HeldAuthority, TrustState, roots};
use crate::server_client::{OfferedAuthority, TrustUpdate};

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
/// and 14); else the one that is held stays. A later epoch of the server's store allows lower numbers, and nothing else. What
/// servers said whose authority `file` distrusts binds nobody: their numbers are no bound, and those whom they removed may come.
///
/// # Errors
/// [`TrustError`] when nothing is held and the update is not believed, or when such a server sent it.
pub(crate) fn accept(
    held: Option<&TrustState>,
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
    file: &FileWord,
    now: SystemTime,
) -> Result<Accepted, TrustError> {
    if file.voids(&update.said) {
        return Err(TrustError::Distrusted);
    }
    let known = held.map(|held| held.departed.clone()).unwrap_or_default();
    let departed = known.with(&update.departed, &update.said, file, now);
    let judged = judge(held, update, trust_domain, Some(now)).and_then(|state| {
        let state = TrustState {
            departed: departed.clone(),
            ..state
        };
        check_departed(&state, file)?;
        if let Some(held) = held.filter(|held| !file.voids(&held.said)) {
            check_numbers(held, &state)?;
        }
        Ok(Accepted { state })
    });
    match (judged, held) {
        (Err(error), Some(held)) => Ok(only_lists(held, update, departed, &error, now)),
        (judged, _) => judged,
    }
}

/// What is held, with the newer CRLs of an update whose bundle is not believed.
fn only_lists(
    held: &TrustState,
    update: &TrustUpdate,
    departed: Departed,
    error: &TrustError,
    now: SystemTime,
) -> Accepted {
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
        departed,
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
        departed: Departed::default(),
        said: update.said.clone(),
        problem: String::new(),
        refused: judge.refused,
    })
}

fn check_departed(offered: &TrustState, file: &FileWord) -> Result<(), TrustError> {
    let mut all = offered.x509.iter().chain(&offered.control);
    let back = all.find(|authority| offered.departed.contains(&authority.certificate.id(), file));
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
