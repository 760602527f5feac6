//! Updates that are believed and such that are not.

use std::time::{Duration, SystemTime};

use signet_certs::authority::X509Authority;
use signet_testkit::{DOMAIN, at, authority, control_authority, crl_at, serial, trust_domain};

use super::*;
use crate::server_client::fake::offered;
use crate::server_client::{OfferedAuthority, TrustUpdate};

mod walk;

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
            epoch: 1,
            clock: None,
            departed: Vec::new(),
            unreachable_since: None,
            not_issuing: Vec::new(),
            wanted: Vec::new(),
            said: Said::default(),
        }
    }
}

fn judge(held: Option<&TrustState>, update: &TrustUpdate) -> Result<Accepted, TrustError> {
    accept(held, update, &trust_domain(), &FileWord::default(), at(100))
}

/// Covers INV-3.
#[test]
fn the_sequence_never_falls_and_names_one_content() {
    let sender = Sender::new();
    let first = judge(None, &sender.update(5, at(0))).unwrap().state;
    let kept_out = |update: &TrustUpdate| {
        let state = judge(Some(&first), update).unwrap().state;
        assert_eq!(state.bundle_der, first.bundle_der);
        assert_eq!(state.bundle.sequence_number, 5);
        state.problem
    };
    let problem = kept_out(&sender.update(4, at(1)));
    assert!(problem.contains("fell from 5 to 4"), "{problem}");
    let mut other = sender.update(5, at(1));
    other.x509.push(offered(&authority(DOMAIN), &[], at(1)));
    let problem = kept_out(&other);
    assert!(problem.contains("two different bundles"), "{problem}");
    let problem = kept_out(&sender.update(5, at(1)));
    assert!(problem.is_empty(), "a new CRL alone keeps the number: {problem}");
}

/// Each object is judged by its own proof: a list is signed, whatever comes with it.
#[test]
fn newer_lists_of_held_authorities_are_taken_whatever_else_is_not_believed() {
    let sender = Sender::new();
    let held = judge(None, &sender.update(5, at(0))).unwrap().state;
    let (mine, agents) = (serial(1), serial(2));
    let id = sender.x509.certificate().id();
    let revoking = |sequence| TrustUpdate {
        x509: vec![offered(&sender.x509, &[mine], at(50))],
        control: vec![offered(&sender.control, &[agents], at(50))],
        policy_revision: 7,
        ..sender.update(sequence, at(50))
    };
    let junk = OfferedAuthority {
        certificate: Bytes::from_static(b"no certificate"),
        crl: Bytes::new(),
        named: None,
        tainted: false,
    };
    let mut faulty = revoking(6);
    faulty.x509.push(junk);
    let mut twice = revoking(6);
    twice.control.push(twice.x509[0].clone());
    for update in [revoking(4), faulty, twice] {
        let Accepted { state } = judge(Some(&held), &update).unwrap();
        let refused = &state.refused;
        assert!(!state.problem.is_empty() && refused.is_empty(), "{refused:?}");
        assert_eq!(state.bundle.sequence_number, 5);
        assert!(state.is_revoked(&id, &mine));
        assert!(state.revoked(&sender.control.certificate().id(), &agents));
        assert_eq!(state.policy_revision, 7);
        let again = judge(Some(&state), &sender.update(5, at(10))).unwrap();
        assert!(
            again.state.is_revoked(&id, &mine),
            "an older list takes nothing back"
        );
        assert_eq!(again.state.refused.len(), 2);
    }
    // Of an authority that is not held, and from the future, they prove nothing.
    let mut update = revoking(4);
    update.x509 = vec![offered(&authority(DOMAIN), &[mine], at(50))];
    update.control = vec![offered(&sender.control, &[agents], at(100_000))];
    let state = judge(Some(&held), &update).unwrap().state;
    assert_eq!(state.report().crls, held.report().crls);
}

/// The server names lists that are held; what it names and is not held is asked for, and keeps out nothing else.
#[test]
fn lists_that_are_named_are_put_in_where_they_are_held() {
    let sender = Sender::new();
    let full = sender.update(5, at(0));
    let held = judge(None, &full).unwrap().state;
    let named = |update: TrustUpdate| {
        let name = |offered: OfferedAuthority| OfferedAuthority {
            named: Some(ring_digest(&offered.crl)),
            crl: Bytes::new(),
            ..offered
        };
        TrustUpdate {
            x509: update.x509.into_iter().map(name).collect(),
            ..update
        }
    };
    let mut same = named(full.clone());
    assert_eq!(complete(Some(&held), &mut same), []);
    assert_eq!(same.x509[0].crl, full.x509[0].crl);
    let state = judge(Some(&held), &same).unwrap().state;
    assert_eq!((state.problem.as_str(), state.report()), ("", held.report()));

    let id = sender.x509.certificate().id();
    let agents = serial(2);
    let mut newer = named(sender.update(6, at(50)));
    newer.control = vec![offered(&sender.control, &[agents], at(50))];
    assert_eq!(complete(Some(&held), &mut newer), [id]);
    let Accepted { state } = judge(Some(&held), &newer).unwrap();
    assert_eq!(state.problems(), "");
    assert!(state.revoked(&sender.control.certificate().id(), &agents));
    assert_eq!(state.x509[0].crl, held.x509[0].crl);

    let mut first = named(full);
    assert_eq!(complete(None, &mut first), [id], "nothing is held yet");
    assert!(judge(None, &first).is_err());
}

fn ring_digest(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap()
}

/// After a restore the server's numbers are lower; the epoch says so, and says nothing else.
#[test]
fn a_later_epoch_allows_lower_numbers_and_nothing_else() {
    let sender = Sender::new();
    let mut update = sender.update(9, at(0));
    update.x509.push(offered(&authority(DOMAIN), &[], at(0)));
    let held = judge(None, &update).unwrap().state;
    let lower = |number: u64, this_update| OfferedAuthority {
        crl: crl_at(&sender.x509, number, &[serial(1)], this_update, at(1_000_000))
            .der()
            .clone(),
        ..offered(&sender.x509, &[], at(0))
    };
    let restored = TrustUpdate {
        epoch: 2,
        x509: vec![lower(7, at(20))],
        ..sender.update(3, at(20))
    };
    let state = judge(Some(&held), &restored).unwrap().state;
    assert!(state.problem.is_empty(), "{}", state.problem);
    assert_eq!((state.epoch, state.bundle.sequence_number), (2, 3));
    assert!(state.is_revoked(&sender.x509.certificate().id(), &serial(1)));
    // An earlier list does not follow, and the store of a former epoch is no restored one.
    let older = TrustUpdate {
        x509: vec![lower(7, at(0) - Duration::from_secs(1))],
        ..restored.clone()
    };
    assert_eq!(judge(Some(&held), &older).unwrap().state.refused.len(), 1);
    let back = judge(Some(&state), &sender.update(10, at(30))).unwrap().state;
    assert!(
        back.problem.contains("epoch fell from 2 to 1"),
        "{}",
        back.problem
    );
    let mut both = restored.clone();
    both.control.push(both.x509[0].clone());
    assert!(judge(Some(&held), &both).unwrap().state.problem.contains("twice"));
    // A server that does not speak of epochs allows nothing.
    let silent = TrustUpdate {
        epoch: 0,
        ..sender.update(2, at(30))
    };
    let state = judge(Some(&state), &silent).unwrap().state;
    assert!(state.problem.contains("fell from 3 to 2"), "{}", state.problem);
    assert_eq!(state.epoch, 2);
}

/// Not by a later epoch, not by a restart, for a year.
#[test]
fn an_authority_that_had_to_leave_does_not_come_back() {
    let sender = Sender::new();
    let bad = authority(DOMAIN);
    let gone = bad.certificate().id();
    let held = judge(None, &sender.update(1, at(0))).unwrap().state;
    let update = TrustUpdate {
        departed: vec![gone],
        ..sender.update(2, at(10))
    };
    let held = judge(Some(&held), &update).unwrap().state;
    let directory = signet_testkit::folder();
    TrustFile::new(directory.path()).write(&held).unwrap();
    let held = TrustFile::new(directory.path()).read(&trust_domain()).unwrap();
    let back = |days: u32, epoch: u64| {
        let now = at(100) + Duration::from_secs(86_400) * days;
        let mut update = sender.update(3, now);
        update.epoch = epoch;
        update.x509.push(offered(&bad, &[], now));
        accept(Some(&held), &update, &trust_domain(), &FileWord::default(), now)
            .unwrap()
            .state
            .problem
    };
    for epoch in [0, 1, 2] {
        let problem = back(360, epoch);
        assert!(problem.contains(&gone.to_string()), "{problem}");
    }
    assert!(back(366, 1).is_empty());
}

/// Covers INV-3.
#[test]
fn an_older_crl_does_not_replace_a_newer_one() {
    let sender = Sender::new();
    let revoked = [serial(1)];
    let mut update = sender.update(1, at(50));
    update.x509 = vec![offered(&sender.x509, &revoked, at(50))];
    let held = judge(None, &update).unwrap().state;
    let Accepted { state } = judge(Some(&held), &sender.update(2, at(10))).unwrap();
    assert_eq!(state.refused.len(), 2, "{:?}", state.refused);
    assert!(state.report().problem.contains("the older one stays"));
    assert!(
        state.is_revoked(&sender.x509.certificate().id(), &revoked[0]),
        "the newer list stays in force"
    );
    assert_eq!(state.bundle.sequence_number, 2);
}

#[test]
fn a_crl_from_the_future_or_of_another_authority_is_not_believed() {
    let sender = Sender::new();
    let far = judge(None, &sender.update(1, at(100_000))).unwrap().state;
    assert!(
        matches!(far.refused[..], [(_, CrlError::Ahead), _]),
        "{:?}",
        far.refused
    );
    assert_eq!(far.report().crls, []);
    let mut swapped = sender.update(1, at(0));
    swapped.x509[0].crl = swapped.control[0].crl.clone();
    let state = judge(None, &swapped).unwrap().state;
    assert_eq!((state.refused.len(), state.report().crls.len()), (1, 1));
}

/// A first list that cannot be used: no rotation waits for a better one, and whoever looks is told.
#[test]
fn a_bad_first_list_of_a_new_authority_keeps_nothing_else_out() {
    let (sender, new) = (Sender::new(), authority(DOMAIN));
    let id = new.certificate().id();
    let base = sender.update(1, at(0));
    let held = judge(None, &base).unwrap().state;
    let with = |sequence_number, list: Bytes| {
        let mut update = TrustUpdate {
            sequence_number,
            ..base.clone()
        };
        update.x509.push(OfferedAuthority {
            crl: list,
            ..offered(&new, &[], at(0))
        });
        update
    };
    let bad = [
        base.x509[0].crl.clone(),
        offered(&new, &[], at(100_000)).crl,
        Bytes::from_static(b"no list"),
        Bytes::new(),
    ];
    for list in bad {
        let state = judge(Some(&held), &with(2, list.clone())).unwrap().state;
        assert_eq!((state.problem.as_str(), state.bundle.sequence_number), ("", 2));
        assert!(state.contains(&id) && !state.looks_like(&held));
        assert_eq!(state.refused[0].0, id);
        let report = state.report();
        assert_eq!((report.sequence_number, report.crls.len()), (2, 2));
        let said = format!("the list of authority {id} is not believed, it has none: ");
        assert!(report.problem.starts_with(&said), "{}", report.problem);
        // As it is after a restart, and until there is one that is good.
        let directory = signet_testkit::folder();
        TrustFile::new(directory.path()).write(&state).unwrap();
        let state = TrustFile::new(directory.path()).read(&trust_domain()).unwrap();
        assert!(state.contains(&id) && state.report().crls.len() == 2);
        // So is one beside a bundle that is not believed.
        let revoked = serial(9);
        let good = offered(&new, &[revoked], at(10)).crl;
        for sequence in [1, 3] {
            let state = judge(Some(&state), &with(sequence, good.clone())).unwrap().state;
            assert_eq!(state.problem.is_empty(), sequence == 3);
            assert!(state.refused.is_empty() && state.is_revoked(&id, &revoked));
        }
    }
}

/// Covers INV-2, INV-14.
#[test]
fn every_authority_has_one_role_and_one_without_a_crl_is_said() {
    let sender = Sender::new();
    let mut both = sender.update(1, at(0));
    both.control.push(both.x509[0].clone());
    assert!(matches!(judge(None, &both), Err(TrustError::Twice(_))));
    let mut without = sender.update(1, at(0));
    without.x509[0].crl = Bytes::new();
    let said = judge(None, &without).unwrap().state.refused;
    assert_eq!(said[0].0, sender.x509.certificate().id());
    let mut none = sender.update(1, at(0));
    none.x509.clear();
    assert!(matches!(judge(None, &none), Err(TrustError::Empty("X.509"))));
}

#[test]
fn an_authority_of_another_trust_domain_is_refused() {
    let sender = Sender::new();
    let elsewhere = TrustDomain::parse("elsewhere.test").unwrap();
    let error = accept(
        None,
        &sender.update(1, at(0)),
        &elsewhere,
        &FileWord::default(),
        at(0),
    )
    .unwrap_err();
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
    let directory = signet_testkit::folder();
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
    let state = judge(Some(&again), &sender.update(6, at(1))).unwrap().state;
    assert!(state.problem.contains("fell from 7 to 6"), "{}", state.problem);
    // A list that was believed stays so on a machine whose clock lies behind after its start.
    let far = accept(
        None,
        &sender.update(8, at(1_000_000)),
        &trust_domain(),
        &FileWord::default(),
        at(1_000_000),
    )
    .unwrap();
    TrustFile::new(directory.path()).write(&far.state).unwrap();
    assert_eq!(read().unwrap().bundle.sequence_number, 8);
}

#[test]
fn a_kept_state_of_another_version_is_used() {
    let sender = Sender::new();
    let directory = signet_testkit::folder();
    let file = TrustFile::new(directory.path());
    file.write(&judge(None, &sender.update(7, at(0))).unwrap().state)
        .unwrap();
    let path = directory.path().join("trust.json");
    let written = std::fs::read_to_string(&path).unwrap();
    for (of, by) in [
        ("\"epoch\":1,", ""),
        ("\"refresh_hint_seconds\":300,", ""),
        ("\"epoch\"", "\"of_tomorrow\":{},\"epoch\""),
        ("\"crl\"", "\"of_tomorrow\":0,\"crl\""),
    ] {
        let other = written.replace(of, by);
        assert_ne!(other, written, "{of}");
        std::fs::write(&path, other).unwrap();
        assert_eq!(file.read(&trust_domain()).unwrap().bundle.sequence_number, 7);
    }
}

#[test]
fn a_kept_state_that_is_damaged_or_of_another_domain_is_not_used() {
    let sender = Sender::new();
    let directory = signet_testkit::folder();
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

/// A server that names an authority anew, after it was gone, may not take its list back.
/// Covers INV-3.
#[test]
fn an_authority_that_comes_back_brings_no_older_list() {
    let (sender, guest) = (Sender::new(), authority(DOMAIN));
    let id = guest.certificate().id();
    let base = sender.update(1, at(0));
    let with = |sequence_number: u64, number: u64, epoch: u64| {
        let list = crl_at(&guest, number, &[], at(20), at(1_000_000));
        let mut update = TrustUpdate {
            sequence_number,
            epoch,
            ..base.clone()
        };
        update.x509.push(OfferedAuthority {
            crl: list.der().clone(),
            ..offered(&guest, &[], at(0))
        });
        update
    };
    let held = judge(None, &with(1, 7, 1)).unwrap().state;
    let held = judge(Some(&held), &sender.update(2, at(0))).unwrap().state;
    let directory = signet_testkit::folder();
    TrustFile::new(directory.path()).write(&held).unwrap();
    let held = TrustFile::new(directory.path()).read(&trust_domain()).unwrap();
    let mut held = held;
    for sequence in [3, 4] {
        let older = judge(Some(&held), &with(sequence, 6, 1)).unwrap().state;
        assert_eq!(older.refused[0].0, id, "also when it was held without one");
        assert!(
            older
                .x509
                .iter()
                .all(|held| held.certificate.id() != id || held.crl.is_none())
        );
        TrustFile::new(directory.path()).write(&older).unwrap();
        held = TrustFile::new(directory.path()).read(&trust_domain()).unwrap();
    }
    for update in [with(5, 7, 1), with(5, 8, 1), with(5, 6, 2)] {
        assert_eq!(judge(Some(&held), &update).unwrap().state.problems(), "");
    }
}

/// What is handed over is what was asked for, and fits into one message.
#[test]
fn the_lists_that_are_handed_over_are_those_that_were_asked_for() {
    let sender = Sender::new();
    let state = judge(None, &sender.update(1, at(0))).unwrap().state;
    let (mine, other) = (
        sender.x509.certificate().id(),
        authority(DOMAIN).certificate().id(),
    );
    assert_eq!(
        state.lists_of(&[mine, other, mine]),
        [state.x509[0].crl.as_ref().unwrap().der().clone()]
    );
    assert!(state.lists_of(&[other]).is_empty() && state.lists_of(&[]).is_empty());
}
