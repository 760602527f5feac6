//! What the agent believes: authorities with their CRLs, judged before they are held. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::{AuthorityCertificate, AuthorityError, AuthorityId};
use signet_certs::bundle::TrustBundle;
use signet_certs::crl::{Crl, CrlError};
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;
use signet_certs::verify::{TrustRoots, TrustedAuthority};
use thiserror::Error;

use super::{CrlReport, OfferedAuthority, TrustReport, TrustUpdate};
use crate::cache::TrustView;

/// Everything that was pushed and believed, at one moment.
#[derive(Clone, Debug)]
pub struct TrustState {
    /// The workloads' authorities, as a bundle.
    pub bundle: TrustBundle,
    /// The bundle as the Workload API carries it; shared by all workloads.
    pub bundle_der: Bytes,
    /// The workloads' authorities with their CRLs, in the bundle's order.
    pub x509: Vec<HeldAuthority>,
    /// The control authorities with theirs.
    pub control: Vec<HeldAuthority>,
    /// The same as `x509`, for verifying chains.
    pub roots: Arc<TrustRoots>,
    /// The server's rules and denials at that moment.
    pub policy_revision: u64,
}

/// An authority with the newest CRL that was believed.
#[derive(Clone, Debug)]
pub struct HeldAuthority {
    /// Its certificate.
    pub certificate: AuthorityCertificate,
    /// Its CRL.
    pub crl: Crl,
    /// The CRL's bytes; shared by all workloads.
    pub crl_der: Bytes,
    /// Its leaves are to be replaced.
    pub tainted: bool,
}

/// Why an update is not believed. What was held before stays in force.
#[derive(Debug, Error)]
pub enum TrustError {
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
pub struct Accepted {
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
pub fn accept(
    held: Option<&TrustState>,
    update: &TrustUpdate,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Accepted, TrustError> {
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
    if let Some(held) = held {
        check_sequence(&held.bundle, &bundle)?;
    }
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
    Ok(Accepted {
        state,
        kept: judge.kept,
    })
}

/// Authorities with their CRLs as roots for verifying chains.
pub fn roots(trust_domain: &TrustDomain, authorities: &[HeldAuthority]) -> TrustRoots {
    let trusted = |held: &HeldAuthority| TrustedAuthority {
        certificate: held.certificate.clone(),
        crl: Some(held.crl.clone()),
    };
    TrustRoots::new(vec![(
        trust_domain.clone(),
        authorities.iter().map(trusted).collect(),
    )])
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
    now: SystemTime,
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
        let judged = Crl::verify(offered, issuer).and_then(|crl| match held {
            Some(held) => crl.may_replace(&held.crl, self.now).map(|()| crl),
            None => crl.check_not_ahead(self.now).map(|()| crl),
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
pub(super) fn usable(der: &[u8], trust_domain: &TrustDomain) -> Result<AuthorityCertificate, TrustError> {
    let certificate = AuthorityCertificate::from_der(der)
        .map_err(|error: AuthorityError| TrustError::Authority(error.to_string()))?;
    match certificate.trust_domain() {
        Some(other) if other != trust_domain => Err(TrustError::Authority(format!(
            "it belongs to trust domain {other}, not {trust_domain}"
        ))),
        _ => Ok(certificate),
    }
}

impl TrustState {
    /// What the server is told about it; the rest of the report is the manager's.
    pub fn report(&self) -> TrustReport {
        let crl = |authority: &HeldAuthority| CrlReport {
            authority: authority.certificate.id(),
            number: authority.crl.number().0,
            sha256: authority.crl.sha256(),
        };
        TrustReport {
            sequence_number: self.bundle.sequence_number,
            bundle_digest: Some(self.bundle.digest()),
            crls: self.x509.iter().chain(&self.control).map(crl).collect(),
            ..TrustReport::default()
        }
    }

    /// Workloads would see no difference between the two.
    pub fn looks_like(&self, other: &Self) -> bool {
        let crls = |state: &Self| state.x509.iter().map(|held| held.crl.clone()).collect::<Vec<_>>();
        self.bundle_der == other.bundle_der && crls(self) == crls(other)
    }

    fn find(&self, id: &AuthorityId) -> Option<&HeldAuthority> {
        self.x509
            .iter()
            .chain(&self.control)
            .find(|authority| authority.certificate.id() == *id)
    }

    fn find_x509(&self, id: &AuthorityId) -> Option<&HeldAuthority> {
        self.x509
            .iter()
            .find(|authority| authority.certificate.id() == *id)
    }

    /// The agent's own certificate has to be replaced: revoked, or its authority tainted. An authority that is not
    /// held says nothing: the certificate may be newer than this state.
    pub fn speaks_against(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool {
        let held = self.find_control(authority);
        held.is_some_and(|held| held.tainted || held.crl.is_revoked(serial))
    }

    /// The agent's own certificate is on its authority's CRL.
    pub fn revoked(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool {
        self.find_control(authority)
            .is_some_and(|held| held.crl.is_revoked(serial))
    }

    fn find_control(&self, id: &AuthorityId) -> Option<&HeldAuthority> {
        self.control
            .iter()
            .find(|authority| authority.certificate.id() == *id)
    }
}

impl TrustView for TrustState {
    fn contains(&self, authority: &AuthorityId) -> bool {
        self.find_x509(authority).is_some()
    }

    fn is_tainted(&self, authority: &AuthorityId) -> bool {
        self.find_x509(authority).is_some_and(|held| held.tainted)
    }

    fn is_revoked(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool {
        self.find_x509(authority)
            .is_some_and(|held| held.crl.is_revoked(serial))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signet_certs::authority::X509Authority;
    use signet_testkit::{DOMAIN, at, authority, control_authority, serial, trust_domain};

    use super::*;
    use crate::server_client::fake::offered;

    struct Sender {
        x509: X509Authority,
        control: X509Authority,
    }

    impl Sender {
        fn new() -> Self {
            Self {
                x509: authority(DOMAIN),
                control: control_authority(DOMAIN),
            }
        }

        fn update(&self, sequence_number: u64, crl_at: SystemTime) -> TrustUpdate {
            TrustUpdate {
                sequence_number,
                refresh_hint: Duration::from_secs(300),
                x509: vec![offered(&self.x509, &[], crl_at)],
                control: vec![offered(&self.control, &[], crl_at)],
                policy_revision: 1,
                affected: None,
            }
        }
    }

    fn judge(held: Option<&TrustState>, update: &TrustUpdate) -> Result<Accepted, TrustError> {
        accept(held, update, &trust_domain(), at(100))
    }

    /// Covers INV-3.
    #[test]
    fn the_sequence_never_falls_and_names_one_content() {
        let sender = Sender::new();
        let first = judge(None, &sender.update(5, at(0))).unwrap().state;
        let error = judge(Some(&first), &sender.update(4, at(1))).unwrap_err();
        assert!(
            matches!(error, TrustError::Rollback { held: 5, offered: 4 }),
            "{error}"
        );
        let mut other = sender.update(5, at(1));
        other.x509.push(offered(&authority(DOMAIN), &[], at(1)));
        let error = judge(Some(&first), &other).unwrap_err();
        assert!(matches!(error, TrustError::Conflict(5)), "{error}");
        assert!(
            judge(Some(&first), &sender.update(5, at(1))).is_ok(),
            "a new CRL alone keeps the number"
        );
    }

    /// Covers INV-3.
    #[test]
    fn an_older_crl_does_not_replace_a_newer_one() {
        let sender = Sender::new();
        let revoked = [serial(1)];
        let mut update = sender.update(1, at(50));
        update.x509 = vec![offered(&sender.x509, &revoked, at(50))];
        let held = judge(None, &update).unwrap().state;
        let Accepted { state, kept } = judge(Some(&held), &sender.update(2, at(10))).unwrap();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(
            state.is_revoked(&sender.x509.certificate.id(), &revoked[0]),
            "the newer list stays in force"
        );
        assert_eq!(state.bundle.sequence_number, 2);
    }

    #[test]
    fn a_crl_from_the_future_or_of_another_authority_is_not_believed() {
        let sender = Sender::new();
        let far = judge(None, &sender.update(1, at(100_000))).unwrap_err();
        assert!(matches!(far, TrustError::Crl { .. }), "{far}");
        let mut swapped = sender.update(1, at(0));
        swapped.x509[0].crl = swapped.control[0].crl.clone();
        let error = judge(None, &swapped).unwrap_err();
        assert!(matches!(error, TrustError::Crl { .. }), "{error}");
    }

    /// Covers INV-2, INV-14.
    #[test]
    fn every_authority_has_one_role_and_a_crl() {
        let sender = Sender::new();
        let mut both = sender.update(1, at(0));
        both.control.push(both.x509[0].clone());
        assert!(matches!(judge(None, &both), Err(TrustError::Twice(_))));
        let mut without = sender.update(1, at(0));
        without.x509[0].crl = Bytes::new();
        assert!(matches!(judge(None, &without), Err(TrustError::Crl { .. })));
        let mut none = sender.update(1, at(0));
        none.x509.clear();
        assert!(matches!(judge(None, &none), Err(TrustError::Empty("X.509"))));
    }

    #[test]
    fn an_authority_of_another_trust_domain_is_refused() {
        let sender = Sender::new();
        let elsewhere = TrustDomain::parse("elsewhere.test").unwrap();
        let error = accept(None, &sender.update(1, at(0)), &elsewhere, at(0)).unwrap_err();
        assert!(matches!(error, TrustError::Authority(_)), "{error}");
    }

    #[test]
    fn the_report_names_what_is_held() {
        let sender = Sender::new();
        let state = judge(None, &sender.update(7, at(0))).unwrap().state;
        let report = state.report();
        assert_eq!(report.sequence_number, 7);
        assert_eq!(report.bundle_digest, Some(state.bundle.digest()));
        assert_eq!(report.crls.len(), 2);
    }

    #[test]
    fn the_agents_own_certificate_is_good_until_revoked_or_tainted() {
        let sender = Sender::new();
        let (mine, other) = (serial(1), serial(2));
        let mut update = sender.update(1, at(0));
        update.control = vec![offered(&sender.control, &[other], at(0))];
        let state = judge(None, &update).unwrap().state;
        assert!(!state.speaks_against(&sender.control.certificate.id(), &mine));
        assert!(state.speaks_against(&sender.control.certificate.id(), &other));
        update.control[0].tainted = true;
        let state = judge(Some(&state), &update).unwrap().state;
        assert!(state.speaks_against(&sender.control.certificate.id(), &mine));
    }
}
