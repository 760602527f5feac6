//! The anchors file is above every server's word.

use std::os::unix::fs::symlink;

use proptest::prelude::*;
use signet_certs::anchors_file::AnchorsFile;
use signet_runtime::clock::FakeClock;
use signet_runtime::drain::Drain;
use signet_runtime::signal::Reread;

use super::*;

fn certificate(authority: &X509Authority) -> AuthorityCertificate {
    authority.certificate().clone()
}

fn id(authority: &X509Authority) -> AuthorityId {
    authority.certificate().id()
}

fn text(listed: &[&X509Authority], distrusted: &[&X509Authority]) -> String {
    let listed = listed.iter().map(|authority| certificate(authority));
    AnchorsFile::new(listed, distrusted.iter().map(|authority| id(authority))).render()
}

impl Files {
    fn write(&self, listed: &[&X509Authority], distrusted: &[&X509Authority]) {
        fs::write(self.configured(), text(listed, distrusted)).unwrap();
    }
}

/// By a server of this authority, of which the file knows.
fn by(authority: &X509Authority) -> Said {
    Said::by(id(authority), None)
}

fn push(anchors: &ControlAnchors, control: &[&X509Authority], said: &Said) {
    let control = control.iter().map(|authority| offered(authority, &[], at(0)));
    anchors.update(&held(control.collect()), said);
}

fn departed(named: &[&X509Authority], said: Said) -> Departed {
    let named = TrustUpdate {
        departed: named.iter().map(|authority| id(authority)).collect(),
        said,
        ..update(vec![offered(&control_authority(DOMAIN), &[], at(0))])
    };
    let accepted = accept(None, &named, &trust_domain(), &FileWord::default(), at(0));
    accepted.unwrap().state.departed
}

fn der(authority: &X509Authority) -> Bytes {
    Bytes::copy_from_slice(authority.certificate().der())
}

#[test]
fn what_the_file_distrusts_goes_at_once_and_nobody_brings_it_back() {
    let (good, bad) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&good, &bad]);
    let anchors = files.load(0).unwrap();
    let mut changes = anchors.changes();
    files.write(&[&good, &bad], &[&bad]);
    anchors.look(at(1)).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(ids(&anchors), [id(&good).to_string()]);
    push(&anchors, &[&good, &bad], &by(&good));
    assert_eq!(ids(&anchors), [id(&good).to_string()], "by a push");
    anchors.add(&[der(&bad)], &by(&good)).unwrap();
    assert_eq!(
        ids(&anchors),
        [id(&good).to_string()],
        "by an answer to an attestation"
    );
    let link = create_link(&good, bad.certificate(), serial(1), at(0)).unwrap();
    assert_eq!(linked(&anchors, &[link], 0), 0, "by a link");
    push(&anchors, &[&bad], &by(&bad));
    assert_eq!(ids(&anchors), [id(&good).to_string()], "by its own server");
    let restarted = files.load(2).unwrap();
    assert_eq!(ids(&restarted), [id(&good).to_string()], "by what was kept");
}

#[test]
fn a_file_that_is_away_or_broken_takes_nothing_back_over_a_restart_too() {
    let (good, bad) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&good, &bad]);
    let anchors = files.load(0).unwrap();
    push(&anchors, &[&good, &bad], &by(&good));
    files.write(&[&good], &[&bad]);
    anchors.look(at(1)).unwrap();
    fs::remove_file(files.configured()).unwrap();
    anchors.look(at(2)).unwrap_err();
    assert!(anchors.file_problem().contains("anchors.pem"));
    push(&anchors, &[&good, &bad], &by(&good));
    assert_eq!(ids(&anchors), [id(&good).to_string()]);
    let restarted = files.load(3).unwrap();
    assert_eq!(restarted.word(), anchors.word());
    // A mistake beside a name does not make its bearer trusted, and the names of before stand.
    fs::write(files.configured(), format!("distrusted: x {}\n", id(&good))).unwrap();
    restarted.look(at(4)).unwrap_err();
    assert_eq!(ids(&restarted), [""; 0]);
    assert_eq!(
        restarted.word().distrusted,
        [id(&good), id(&bad)].into_iter().collect()
    );
    files.write(&[&good], &[]);
    restarted.look(at(5)).unwrap();
    assert_eq!(
        ids(&restarted),
        [id(&good).to_string()],
        "a sound file says what counts"
    );
    assert_eq!(restarted.file_problem(), "");
}

/// The node was off in the emergency; its file is gone before the second start.
#[test]
fn what_the_file_distrusts_when_an_agent_starts_holds_after_the_next_start_too() {
    let (stolen, good) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&stolen]);
    let both = [offered(&stolen, &[], at(0)), offered(&good, &[], at(0))];
    files
        .load(0)
        .unwrap()
        .update(&held(both.to_vec()), &Said::default());
    files.write(&[&good], &[&stolen]);
    let good = [good.certificate().id().to_string()];
    assert_eq!(ids(&files.load(1).unwrap()), good);
    fs::remove_file(files.configured()).unwrap();
    assert_eq!(ids(&files.load(2).unwrap()), good);
}

/// What is held beside a bundle that is not believed may be a thief's: lists come of it, and no anchors.
#[test]
fn lists_beside_a_bundle_that_is_not_believed_make_nobody_an_anchor_and_nobody_none() {
    let [first, added, thief] = [(); 3].map(|()| control_authority(DOMAIN));
    let files = Files::new(&[&first, &added]);
    let anchors = files.load(0).unwrap();
    let before = ids(&anchors);
    let lists = [offered(&thief, &[], at(0)), offered(&first, &[serial(9)], at(0))];
    anchors.update_lists(&held(lists.to_vec()));
    assert_eq!(ids(&anchors), before);
    let roots = anchors.roots().load();
    let known = &roots.authorities(&trust_domain())[0];
    assert!(known.crl.as_ref().unwrap().is_revoked(&serial(9)));
}

/// The thief was a verified server: he named authorities of his own, and those that he called departed or removed are the good ones.
#[test]
fn what_a_thief_said_counts_for_nothing_once_the_file_distrusts_him() {
    let [stolen, good, thiefs] = [(); 3].map(|()| control_authority(DOMAIN));
    let files = Files::new(&[&stolen]);
    let anchors = files.load(0).unwrap();
    push(&anchors, &[&stolen, &good], &by(&stolen));
    push(&anchors, &[&stolen, &thiefs], &by(&stolen));
    // He comes back as a server of the authority that he made, which vouches for itself.
    let svid = |authority: &X509Authority| {
        let roots = anchors.roots().load();
        let leaf = signet_testkit::svid(authority, "/signet/server");
        let chain: Vec<_> = leaf.chain().iter().map(|der| der.clone().into()).collect();
        let role = signet_certs::verify::Role::Server;
        signet_certs::verify::verify_chain(&chain, role, &roots, at(0)).unwrap()
    };
    let his = VerifiedServer::new(anchors.clone(), &svid(&thiefs));
    assert_eq!(his.objection(), None);
    push(&anchors, &[&thiefs], &his.said());
    anchors.refuse(departed(&[&good], his.said()));
    assert_eq!(ids(&anchors), [id(&thiefs).to_string()], "so far he has won");
    let anchors_of_before = files.load(1).unwrap();
    anchors_of_before.refuse(departed(&[&good], his.said()));
    files.write(&[&good], &[&stolen]);
    for anchors in [anchors.clone(), anchors_of_before] {
        anchors.look(at(1)).unwrap();
        assert_eq!(ids(&anchors), [id(&good).to_string()]);
    }
    assert_eq!(his.objection(), Some(Objection::Gone(id(&thiefs))));
    push(&anchors, &[&thiefs], &his.said());
    anchors.add(&[der(&thiefs)], &his.said()).unwrap();
    assert_eq!(ids(&anchors), [id(&good).to_string()]);
    // Whom the file stands by is not removed by anybody's word that it left in distrust.
    anchors.refuse(departed(&[&good], Said::default()));
    assert_eq!(ids(&anchors), [id(&good).to_string()]);
}

#[test]
fn a_connection_is_objected_to_when_its_authority_or_its_certificate_goes() {
    let (first, second) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&first, &second]);
    let anchors = files.load(0).unwrap();
    let server = |authority: &X509Authority| {
        let leaf = signet_testkit::svid(authority, "/signet/server");
        let chain: Vec<_> = leaf.chain().iter().map(|der| der.clone().into()).collect();
        let roots = anchors.roots().load();
        let role = signet_certs::verify::Role::Server;
        let svid = signet_certs::verify::verify_chain(&chain, role, &roots, at(0)).unwrap();
        (VerifiedServer::new(anchors.clone(), &svid), svid.serial())
    };
    let (of_first, _) = server(&first);
    let (of_second, listed) = server(&second);
    anchors.refuse(departed(&[&first], by(&second)));
    assert_eq!(of_first.objection(), Some(Objection::Gone(id(&first))));
    assert_eq!(of_second.objection(), None);
    anchors.update(&held(vec![offered(&second, &[listed], at(0))]), &by(&second));
    assert_eq!(of_second.objection(), Some(Objection::Revoked(listed)));
    files.write(&[&first], &[&second]);
    anchors.look(at(1)).unwrap();
    assert_eq!(of_second.objection(), Some(Objection::Distrusted(id(&second))));
}

#[test]
fn a_file_that_only_distrusts_is_no_start_and_no_end() {
    let (good, bad) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&bad]);
    files.write(&[&bad], &[&bad]);
    assert!(matches!(files.load(0), Err(AnchorsError::Unusable { .. })));
    files.write(&[&bad], &[]);
    push(&files.load(0).unwrap(), &[&bad], &by(&bad));
    files.write(&[], &[&bad]);
    let waits = files.load(1).unwrap();
    assert_eq!(ids(&waits), [""; 0]);
    files.write(&[&good], &[&bad]);
    waits.look(at(2)).unwrap();
    assert_eq!(ids(&waits), [id(&good).to_string()]);
}

/// As kubelet writes a ConfigMap: the file is a link into a folder that is itself reached over a link, and that one changes.
#[tokio::test(start_paused = true)]
async fn a_config_map_that_is_swapped_is_seen_within_a_second() {
    let (good, bad) = (control_authority(DOMAIN), control_authority(DOMAIN));
    let files = Files::new(&[&good, &bad]);
    files.publish("..1", &text(&[&good, &bad], &[]));
    fs::remove_file(files.configured()).unwrap();
    symlink("..data/anchors.pem", files.configured()).unwrap();
    let anchors = files.load(0).unwrap();
    let drain = Drain::new();
    let clock = Arc::new(FakeClock::new(at(0)));
    let watching = anchors.clone().watch(LOOK, clock, Reread::never(), drain.clone());
    let watching = tokio::spawn(watching);
    tokio::time::sleep(2 * LOOK).await;
    files.publish("..2", &text(&[&good], &[&bad]));
    tokio::time::timeout(Duration::from_secs(1), anchors.refused(&id(&bad)))
        .await
        .unwrap();
    assert_eq!(ids(&anchors), [id(&good).to_string()]);
    drain.start();
    watching.await.unwrap();
}

/// What happens to anchors, by numbers of authorities.
#[derive(Clone, Debug)]
enum Happening {
    File {
        listed: Vec<usize>,
        distrusted: Vec<usize>,
        broken: bool,
    },
    Away,
    Push {
        by: usize,
        control: Vec<usize>,
        departed: Vec<usize>,
    },
    Named {
        by: usize,
        named: Vec<usize>,
    },
    Restart,
}

const ALL: usize = 4;

fn happening() -> impl Strategy<Value = Happening> {
    let some = || prop::collection::vec(0..ALL, 0..3);
    prop_oneof![
        3 => (some(), some(), prop::bool::weighted(0.2))
            .prop_map(|(listed, distrusted, broken)| Happening::File { listed, distrusted, broken }),
        1 => Just(Happening::Away),
        4 => (0..ALL, prop::collection::vec(0..ALL, 1..3), some())
            .prop_map(|(by, control, departed)| Happening::Push { by, control, departed }),
        2 => (0..ALL, some()).prop_map(|(by, named)| Happening::Named { by, named }),
        2 => Just(Happening::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens, none is an anchor whom the last word of the file distrusts; a file without a mistake is the last word; one with
    /// a mistake, or none, takes nothing back; and no other word removes whom a file that distrusts somebody lists.
    #[test]
    fn the_file_has_the_last_word(happenings in prop::collection::vec(happening(), 1..24)) {
        let world: Vec<_> = (0..ALL).map(|_| control_authority(DOMAIN)).collect();
        let pick = |indexes: &[usize]| indexes.iter().map(|index| &world[*index]).collect::<Vec<_>>();
        let files = Files::new(&[&world[0]]);
        let mut anchors = files.load(0).unwrap();
        let mut distrusted: std::collections::BTreeSet<AuthorityId> = std::collections::BTreeSet::new();
        let mut gone = Departed::default();
        for happening in &happenings {
            match happening {
                Happening::File { listed, distrusted: named, broken } => {
                    let mut written = text(&pick(listed), &pick(named));
                    if *broken {
                        written.push_str("-----BEGIN CERTIFICATE-----\n");
                    }
                    let is_sound = AnchorsFile::parse(written.as_bytes()).is_ok();
                    fs::write(files.configured(), written).unwrap();
                    prop_assert_eq!(anchors.look(at(1)).is_ok(), is_sound);
                    if is_sound {
                        distrusted.clear();
                    }
                    distrusted.extend(pick(named).into_iter().map(id));
                }
                Happening::Away => {
                    let _ = fs::remove_file(files.configured());
                    prop_assert!(anchors.look(at(1)).is_err());
                }
                Happening::Push { by: server, control, departed: left } => {
                    let mut control = control.clone();
                    control.dedup();
                    let said = by(&world[*server]);
                    let before = anchors.word();
                    let stood_by: Vec<_> = anchors.state.lock().anchors.iter().map(|anchor| anchor.certificate.id())
                        .filter(|id| before.stands_by(id)).collect();
                    if !before.voids(&said) {
                        let named: Vec<_> = pick(left).into_iter().map(id).collect();
                        gone = gone.with(&named, &said, &before, at(1));
                        anchors.refuse(gone.clone());
                    }
                    for id in stood_by {
                        prop_assert!(anchors.state.lock().holds(&id), "{id} was called departed");
                    }
                    push(&anchors, &pick(&control), &said);
                }
                Happening::Named { by: server, named } => {
                    let named: Vec<_> = pick(named).into_iter().map(der).collect();
                    anchors.add(&named, &by(&world[*server])).unwrap();
                }
                Happening::Restart => {
                    // It does not start where nothing can be used, and goes on as it is in this test.
                    if let Ok(restarted) = files.load(1) {
                        anchors = restarted;
                        anchors.refuse(gone.clone());
                    }
                }
            }
            let word = anchors.word();
            prop_assert!(distrusted.is_subset(&word.distrusted) && word.distrusted.is_subset(&distrusted),
                "{distrusted:?} {word:?} {happening:?}");
            for held in &anchors.state.lock().anchors {
                prop_assert!(!distrusted.contains(&held.certificate.id()), "{}", held.certificate.id());
            }
        }
    }
}
