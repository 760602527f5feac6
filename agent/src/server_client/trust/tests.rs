//! Updates that are believed and such that are not.

use std::time::{Duration, SystemTime};

use signet_certs::authority::X509Authority;
use signet_testkit::{DOMAIN, at, authority, control_authority, serial, trust_domain};

use super::*;
use crate::server_client::TrustUpdate;
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
        state.is_revoked(&sender.x509.certificate().id(), &revoked[0]),
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
    assert!(!state.speaks_against(&sender.control.certificate().id(), &mine));
    assert!(state.speaks_against(&sender.control.certificate().id(), &other));
    update.control[0].tainted = true;
    let state = judge(Some(&state), &update).unwrap().state;
    assert!(state.speaks_against(&sender.control.certificate().id(), &mine));
}

/// Covers INV-3.
#[test]
fn what_was_believed_is_found_again_after_a_restart() {
    let sender = Sender::new();
    let directory = tempfile::tempdir().unwrap();
    let mut update = sender.update(7, at(0));
    update.x509 = vec![offered(&sender.x509, &[serial(1)], at(0))];
    update.x509[0].tainted = true;
    let state = judge(None, &update).unwrap().state;
    TrustFile::new(directory.path()).write(&state).unwrap();
    let read = || TrustFile::new(directory.path()).read(&trust_domain());
    let again = read().unwrap();
    assert!(again.looks_like(&state));
    assert_eq!(again.report(), state.report());
    let id = sender.x509.certificate().id();
    assert!(again.is_revoked(&id, &serial(1)) && again.is_tainted(&id));
    assert_eq!(again.policy_revision, state.policy_revision);
    assert_eq!(again.bundle.refresh_hint, state.bundle.refresh_hint);
    let error = judge(Some(&again), &sender.update(6, at(1))).unwrap_err();
    assert!(
        matches!(error, TrustError::Rollback { held: 7, offered: 6 }),
        "{error}"
    );
    // A list that was believed stays so on a machine whose clock lies behind after its start.
    let far = accept(
        None,
        &sender.update(8, at(1_000_000)),
        &trust_domain(),
        at(1_000_000),
    )
    .unwrap();
    TrustFile::new(directory.path()).write(&far.state).unwrap();
    assert_eq!(read().unwrap().bundle.sequence_number, 8);
}

#[test]
fn a_kept_state_that_is_damaged_or_of_another_domain_is_not_used() {
    let sender = Sender::new();
    let directory = tempfile::tempdir().unwrap();
    let file = TrustFile::new(directory.path());
    assert!(file.read(&trust_domain()).is_none(), "there is none");
    file.write(&judge(None, &sender.update(7, at(0))).unwrap().state)
        .unwrap();
    assert!(
        file.read(&TrustDomain::parse("elsewhere.test").unwrap())
            .is_none()
    );
    let path = directory.path().join("trust.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for damaged in [
        good[..100].to_owned(),
        String::new(),
        good.replace("\"crl\":\"30", "\"crl\":\"31"),
    ] {
        std::fs::write(&path, damaged).unwrap();
        assert!(file.read(&trust_domain()).is_none());
    }
}
