use std::fs;
use std::time::Duration;

use signet_certs::authority::X509Authority;
use signet_testkit::{DOMAIN, at, authority, control_authority, serial, trust_domain};

use super::*;
use crate::server_client::fake::offered;
use crate::server_client::trust::accept;
use crate::server_client::{OfferedAuthority, TrustUpdate};

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(anchors: &[&X509Authority]) -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        files.configure(anchors);
        files
    }

    fn configure(&self, anchors: &[&X509Authority]) {
        let text: String = anchors
            .iter()
            .map(|authority| authority.certificate().pem())
            .collect();
        fs::write(self.configured(), text).unwrap();
    }

    fn configured(&self) -> PathBuf {
        self.directory.path().join("anchors.pem")
    }

    fn load(&self, seconds: u64) -> Result<Arc<ControlAnchors>, AnchorsError> {
        ControlAnchors::load(
            &trust_domain(),
            &self.configured(),
            self.directory.path(),
            at(seconds),
        )
    }
}

fn update(control: Vec<OfferedAuthority>) -> TrustUpdate {
    TrustUpdate {
        sequence_number: 1,
        refresh_hint: Duration::from_secs(60),
        x509: vec![offered(&authority(DOMAIN), &[], at(0))],
        control,
        policy_revision: 0,
        affected: None,
        epoch: 1,
        clock: None,
        departed: Vec::new(),
        unreachable_since: None,
        not_issuing: Vec::new(),
        wanted: Vec::new(),
    }
}

fn held(control: Vec<OfferedAuthority>) -> Vec<HeldAuthority> {
    let update = update(control);
    accept(None, &update, &trust_domain(), at(0))
        .unwrap()
        .state
        .control
}

fn ids(anchors: &ControlAnchors) -> Vec<String> {
    let roots = anchors.roots().load();
    roots
        .authorities(&trust_domain())
        .iter()
        .map(|known| known.certificate.id().to_string())
        .collect()
}

#[test]
fn pushed_anchors_survive_a_restart() {
    let (old, new) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&old]);
    files
        .load(0)
        .unwrap()
        .update(&held(vec![offered(&new, &[serial(9)], at(0))]));
    let restarted = files.load(1).unwrap();
    assert_eq!(ids(&restarted), [new.certificate().id().to_string()]);
    let roots = restarted.roots().load();
    let crl = roots.authorities(&trust_domain())[0].crl.clone().unwrap();
    assert!(crl.is_revoked(&serial(9)), "what was revoked stays so");
}

#[test]
fn a_removed_anchor_does_not_come_back_while_the_configured_file_is_unchanged() {
    let (old, new) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&old]);
    let anchors = files.load(0).unwrap();
    anchors.update(&held(vec![offered(&new, &[], at(0))]));
    assert!(!anchors.server_not_verified(at(1)).unwrap());
    assert_eq!(ids(&anchors), [new.certificate().id().to_string()]);
}

#[test]
fn a_changed_configured_file_is_the_way_back_from_a_lost_authority() {
    let (old, recovered) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&old]);
    let anchors = files.load(0).unwrap();
    files.configure(&[&recovered]);
    assert!(anchors.server_not_verified(at(1)).unwrap());
    assert!(ids(&anchors).contains(&recovered.certificate().id().to_string()));
    anchors.update(&held(vec![offered(&recovered, &[], at(1))]));
    assert_eq!(ids(&anchors), [recovered.certificate().id().to_string()]);
    assert!(
        !anchors.server_not_verified(at(2)).unwrap(),
        "the same file twice is no news"
    );
}

/// Whoever sits on the network path can make a handshake fail at will.
#[test]
fn a_failed_handshake_brings_no_removed_authority_back_and_loses_neither_anchors_nor_crls() {
    let (old, new, other) = (
        control_authority(DOMAIN),
        control_authority(DOMAIN),
        control_authority(DOMAIN),
    );
    let files = Files::new(&[&old]);
    let anchors = files.load(0).unwrap();
    anchors.update(&held(vec![offered(&new, &[serial(9)], at(0))]));
    // Written after a rotation and not yet, or never, after the next.
    files.configure(&[&old, &other]);
    let restarted = files.load(1).unwrap();
    for anchors in [anchors, restarted] {
        assert!(anchors.server_not_verified(at(1)).unwrap());
        let now = ids(&anchors);
        assert!(
            now.contains(&new.certificate().id().to_string()),
            "the real server is still known"
        );
        assert!(now.contains(&other.certificate().id().to_string()));
        assert!(
            !now.contains(&old.certificate().id().to_string()),
            "a removed authority came back"
        );
        let roots = anchors.roots().load();
        let mut known = roots.authorities(&trust_domain()).iter();
        let known = known
            .find(|known| known.certificate.id() == new.certificate().id())
            .unwrap();
        let crl = known.crl.as_ref().expect("its CRL is kept");
        assert!(crl.is_revoked(&serial(9)), "what was revoked stays so");
    }
}

#[test]
fn kept_anchors_that_all_expired_give_way_to_the_configured_ones() {
    let (old, new) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&old]);
    files
        .load(0)
        .unwrap()
        .update(&held(vec![offered(&new, &[], at(0))]));
    let much_later = files.load(40 * 86_400).unwrap();
    assert_eq!(ids(&much_later), [old.certificate().id().to_string()]);
}

#[test]
fn kept_anchors_of_another_version_are_used() {
    let (old, new) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&old]);
    files
        .load(0)
        .unwrap()
        .update(&held(vec![offered(&new, &[], at(0))]));
    let path = files.directory.path().join("anchors.json");
    let written = fs::read_to_string(&path).unwrap();
    for key in ["\"anchors\"", "\"certificate\""] {
        let of_tomorrow = format!("\"of_tomorrow\":[],{key}");
        let other = written.replace(key, &of_tomorrow);
        assert_ne!(other, written);
        fs::write(&path, other).unwrap();
        assert_eq!(ids(&files.load(1).unwrap()), [new.certificate().id().to_string()]);
    }
}

#[test]
fn damaged_kept_anchors_are_passed_over() {
    let old = control_authority(DOMAIN);
    let files = Files::new(&[&old]);
    fs::write(files.directory.path().join("anchors.json"), "{").unwrap();
    assert_eq!(ids(&files.load(0).unwrap()), [old.certificate().id().to_string()]);
}

#[test]
fn without_usable_anchors_there_is_no_start() {
    let files = Files::new(&[]);
    assert!(matches!(files.load(0), Err(AnchorsError::Unusable { .. })));
    fs::remove_file(files.configured()).unwrap();
    let error = files.load(0).unwrap_err();
    assert!(error.to_string().contains("anchors.pem"), "{error}");
}

/// Not by what a server names when the node attests, not by a configured file that lags behind, not after a restart.
#[test]
fn an_anchor_that_had_to_leave_does_not_come_back() {
    let (good, bad) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&good, &bad]);
    let anchors = files.load(0).unwrap();
    let ids = |anchors: &ControlAnchors| {
        let state = anchors.state.lock();
        let ids = state.anchors.iter().map(|anchor| anchor.certificate.id());
        ids.collect::<Vec<_>>()
    };
    let left = accept(
        None,
        &TrustUpdate {
            departed: vec![bad.certificate().id()],
            ..update(vec![offered(&good, &[], at(0))])
        },
        &trust_domain(),
        at(0),
    );
    let left = left.unwrap().state;
    anchors.refuse(left.departed.clone());
    assert_eq!(ids(&anchors), [good.certificate().id()]);
    anchors.add(&[bad.certificate().clone()]);
    assert_eq!(ids(&anchors), [good.certificate().id()]);
    anchors.update(&left.control);
    files.configure(&[&bad]);
    let _ = anchors.server_not_verified(at(10));
    assert_eq!(ids(&anchors), [good.certificate().id()]);
}
