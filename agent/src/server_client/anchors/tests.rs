use std::fs;
use std::time::Duration;

use signet_certs::authority::{AuthorityKind, AuthorityProfile, X509Authority};
use signet_certs::link::create_link;
use signet_testkit::{
    DAY, DOMAIN, HOUR, at, authority, authority_profile, control_authority, new_authority, serial,
    trust_domain,
};

use super::*;

mod distrust;

use crate::server_client::fake::offered;
use crate::server_client::trust::accept;
use crate::server_client::{OfferedAuthority, TrustUpdate};

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(anchors: &[&X509Authority]) -> Self {
        let files = Self {
            directory: signet_testkit::folder(),
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

    /// As kubelet writes a ConfigMap.
    fn publish(&self, name: &str, text: &str) {
        let folder = self.directory.path();
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("anchors.pem"), text).unwrap();
        std::os::unix::fs::symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
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
        said: Said::default(),
    }
}

fn held(control: Vec<OfferedAuthority>) -> Vec<HeldAuthority> {
    let update = update(control);
    accept(None, &update, &trust_domain(), &FileWord::default(), at(0))
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
        .update(&held(vec![offered(&new, &[serial(9)], at(0))]), &Said::default());
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
    anchors.update(&held(vec![offered(&new, &[], at(0))]), &Said::default());
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
    anchors.update(&held(vec![offered(&recovered, &[], at(1))]), &Said::default());
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
    anchors.update(&held(vec![offered(&new, &[serial(9)], at(0))]), &Said::default());
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
        .update(&held(vec![offered(&new, &[], at(0))]), &Said::default());
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
        .update(&held(vec![offered(&new, &[], at(0))]), &Said::default());
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
        &FileWord::default(),
        at(0),
    );
    let left = left.unwrap().state;
    anchors.refuse(left.departed.clone());
    assert_eq!(ids(&anchors), [good.certificate().id()]);
    let named = Bytes::copy_from_slice(bad.certificate().der());
    anchors.add(&[named], &Said::default()).unwrap();
    assert_eq!(ids(&anchors), [good.certificate().id()]);
    anchors.update(&left.control, &Said::default());
    files.configure(&[&bad]);
    let _ = anchors.server_not_verified(at(10));
    assert_eq!(ids(&anchors), [good.certificate().id()]);
}

/// Who has its key is not heard, though nobody else could be: not after a restart without kept anchors, and not when those have ended.
#[test]
fn an_anchor_that_had_to_leave_does_not_come_back_as_the_last_one() {
    let (good, bad) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let departed = TrustUpdate {
        departed: vec![bad.certificate().id()],
        ..update(vec![offered(&good, &[], at(0))])
    };
    let believed = accept(None, &departed, &trust_domain(), &FileWord::default(), at(0))
        .unwrap()
        .state;
    let files = Files::new(&[&bad]);
    let fresh = files.load(0).unwrap();
    fresh.refuse(believed.departed.clone());
    assert_eq!(ids(&fresh), [""; 0]);
    let _ = fresh.server_not_verified(at(10));
    assert_eq!(ids(&fresh), [""; 0], "the anchors file names it alone");
    let words = fresh.cannot_recognise(Some(bad.certificate().id()), at(10));
    assert!(words.contains("none that may be used"), "{words}");
    files.configure(&[&good]);
    assert!(fresh.server_not_verified(at(10)).unwrap());
    assert_eq!(ids(&fresh), [good.certificate().id().to_string()], "a way back");
    fresh.update(&believed.control, &Said::default());
    files.configure(&[&bad]);
    let long_after: u64 = 3650 * 86_400;
    let ended = files.load(long_after).unwrap();
    ended.refuse(believed.departed.clone());
    let _ = ended.server_not_verified(at(long_after));
    assert_eq!(ids(&ended), [""; 0]);
}

/// Control authorities of 30 days, each prepared when the one before was half over, the first an hour before the tests begin; and the
/// links between them.
fn followed(count: u32) -> (Vec<X509Authority>, Vec<AuthorityCertificate>) {
    let begin = |number: u32| at(0) - HOUR + 15 * DAY * number;
    let profile = |number| AuthorityProfile {
        kind: AuthorityKind::Control,
        not_before: begin(number),
        not_after: begin(number) + 30 * DAY,
        ..authority_profile(DOMAIN)
    };
    let all: Vec<_> = (0..count).map(|number| new_authority(profile(number))).collect();
    let link = |[acting, next]: &[X509Authority; 2]| {
        create_link(
            acting,
            next.certificate(),
            serial(1),
            next.certificate().not_before(),
        )
        .unwrap()
    };
    let links = all.array_windows().map(link).collect();
    (all, links)
}

fn linked(anchors: &ControlAnchors, links: &[AuthorityCertificate], days: u64) -> usize {
    let now = at(days * 86_400);
    let before = ids(anchors).len();
    let roots = anchors.roots_with(links, now);
    roots.authorities(&trust_domain()).len() - before
}

#[test]
fn links_lead_from_an_anchor_for_90_days_after_its_end_and_no_longer() {
    let (authorities, links) = followed(6);
    let files = Files::new(&[&authorities[0]]);
    let anchors = files.load(0).unwrap();
    assert_eq!(linked(&anchors, &links[..2], 40), 2, "ended twice over");
    assert_eq!(linked(&anchors, &links, 80), 5);
    assert_eq!(linked(&anchors, &links, 119), 5);
    assert_eq!(linked(&anchors, &links, 120), 0);
    anchors.follow(&links, at(80 * 86_400));
    assert_eq!(ids(&anchors).len(), 6, "what was found is an anchor");
    anchors.update(
        &held(vec![offered(&authorities[5], &[], at(0))]),
        &Said::default(),
    );
    assert_eq!(
        ids(&anchors),
        [authorities[5].certificate().id().to_string()],
        "until a push says what counts"
    );
}

/// Whoever got hold of the key of an authority that has ended leads nobody who knows one that lives.
#[test]
fn while_an_anchor_lives_nothing_leads_from_one_that_has_ended() {
    let (authorities, links) = followed(4);
    let files = Files::new(&[&authorities[0], &authorities[2]]);
    let anchors = files.load(0).unwrap();
    let stolen = create_link(
        &authorities[0],
        control_authority(DOMAIN).certificate(),
        serial(2),
        at(35 * 86_400),
    );
    assert_eq!(linked(&anchors, &[stolen.clone().unwrap()], 40), 0);
    assert_eq!(
        linked(&anchors, &links[2..], 50),
        1,
        "from the living one links lead on"
    );
    assert_eq!(
        linked(&anchors, &[stolen.unwrap()], 70),
        1,
        "what a stolen key is good for"
    );
}

/// Kept anchors that ended give way to configured ones, and still lead on where those are older.
#[test]
fn links_lead_from_kept_anchors_that_ended_too() {
    let (authorities, links) = followed(8);
    let files = Files::new(&[&authorities[0]]);
    let kept = files.load(0).unwrap();
    kept.update(
        &held(vec![offered(&authorities[5], &[], at(0))]),
        &Said::default(),
    );
    let anchors = files.load(130 * 86_400).unwrap();
    assert_eq!(ids(&anchors), [authorities[0].certificate().id().to_string()]);
    assert_eq!(linked(&anchors, &links[5..], 130), 2);
    let told = anchors.cannot_recognise(None, at(130 * 86_400));
    for authority in [&authorities[0], &authorities[5]] {
        assert!(told.contains(&authority.certificate().id().to_string()), "{told}");
    }
}

/// Neither to what left in distrust, nor over it, nor to what is no longer named; also after a restart.
#[test]
fn nothing_leads_to_what_the_server_has_removed() {
    let (authorities, links) = followed(4);
    let [first, second, third, _] = authorities.as_slice() else {
        panic!()
    };
    let files = Files::new(&[first]);
    let anchors = files.load(0).unwrap();
    anchors.update(&held(vec![offered(second, &[], at(0))]), &Said::default());
    let departed = TrustUpdate {
        departed: vec![third.certificate().id()],
        ..update(vec![offered(second, &[], at(0))])
    };
    let believed = accept(None, &departed, &trust_domain(), &FileWord::default(), at(0))
        .unwrap()
        .state;
    let back = create_link(second, first.certificate(), serial(2), at(20 * 86_400)).unwrap();
    for anchors in [anchors, files.load(20 * 86_400).unwrap()] {
        assert_eq!(
            linked(&anchors, &links[1..], 44),
            1,
            "nothing is known against it"
        );
        anchors.refuse(believed.departed.clone());
        assert_eq!(linked(&anchors, &links, 44), 0);
        assert_eq!(linked(&anchors, std::slice::from_ref(&back), 44), 0);
    }
}

#[test]
fn what_a_server_names_is_of_its_trust_domain_and_bounded() {
    let first = control_authority(DOMAIN);
    let files = Files::new(&[&first]);
    let anchors = files.load(0).unwrap();
    let der = |authority: &X509Authority| Bytes::copy_from_slice(authority.certificate().der());
    let foreign = der(&control_authority("other.org"));
    let refused = anchors.add(&[der(&control_authority(DOMAIN)), foreign], &Said::default());
    assert!(matches!(refused, Err(NamedError::Authority(_))), "{refused:?}");
    let many = vec![der(&first); MAX_ANCHORS + 1];
    assert!(matches!(
        anchors.add(&many, &Said::default()),
        Err(NamedError::Many(_))
    ));
    assert_eq!(ids(&anchors), [first.certificate().id().to_string()]);
    let mut newest = String::new();
    for _ in 0..MAX_ANCHORS + 3 {
        let next = control_authority(DOMAIN);
        newest = next.certificate().id().to_string();
        anchors.add(&[der(&next)], &Said::default()).unwrap();
    }
    assert_eq!(ids(&anchors).len(), MAX_ANCHORS);
    assert_eq!(ids(&anchors).last(), Some(&newest));
}
