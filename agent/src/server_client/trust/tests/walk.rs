//! What holds whatever a server sends: random walks over authorities that come and go, lists, sequences, epochs and restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use signet_certs::crl::CrlNumber;

use super::*;

/// One push, or a restart before it.
#[derive(Clone, Debug)]
struct Step {
    sequence: u64,
    epoch: u64,
    /// For each authority whether it is there, and number and second of its list.
    x509: Vec<Option<(u64, u64)>>,
    control: Vec<Option<(u64, u64)>>,
    /// Which workload authority is called departed.
    departed: Option<usize>,
    restart: bool,
    /// Of which control authority the server is that pushes, and which one the anchors file distrusts by then.
    by: usize,
    distrusted: Option<usize>,
}

const AUTHORITIES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let lists = || prop::collection::vec(prop::option::weighted(0.7, (1..9_u64, 0..60_u64)), AUTHORITIES);
    let departed = prop::option::weighted(0.1, 0..AUTHORITIES);
    (
        1..12_u64,
        0..4_u64,
        lists(),
        lists(),
        departed,
        (
            prop::bool::weighted(0.2),
            0..AUTHORITIES,
            prop::option::weighted(0.3, 0..AUTHORITIES),
        ),
    )
        .prop_map(
            |(sequence, epoch, x509, control, departed, (restart, by, distrusted))| Step {
                sequence,
                epoch,
                x509,
                control,
                departed,
                restart,
                by,
                distrusted,
            },
        )
}

struct World {
    x509: Vec<X509Authority>,
    control: Vec<X509Authority>,
}

impl World {
    fn new() -> Self {
        Self {
            x509: (0..AUTHORITIES).map(|_| authority(DOMAIN)).collect(),
            control: (0..AUTHORITIES).map(|_| control_authority(DOMAIN)).collect(),
        }
    }

    fn update(&self, step: &Step) -> TrustUpdate {
        let all = |authorities: &[X509Authority], lists: &[Option<(u64, u64)>]| {
            let pairs = authorities.iter().zip(lists);
            let present = pairs.filter_map(|(authority, list)| {
                let (number, second) = (*list)?;
                // One list for each number and second: two of one number are a conflict.
                let list = crl_at(authority, number, &[], at(second), at(1_000_000));
                Some(OfferedAuthority {
                    crl: list.der().clone(),
                    ..offered(authority, &[], at(0))
                })
            });
            present.collect::<Vec<_>>()
        };
        TrustUpdate {
            sequence_number: step.sequence,
            refresh_hint: Duration::from_secs(300),
            x509: all(&self.x509, &step.x509),
            control: all(&self.control, &step.control),
            policy_revision: 1,
            affected: None,
            epoch: step.epoch,
            clock: None,
            departed: step
                .departed
                .iter()
                .map(|index| self.x509[*index].certificate().id())
                .collect(),
            wanted: Vec::new(),
            unreachable_since: None,
            not_issuing: Vec::new(),
            said: Said::by(self.control[step.by].certificate().id(), None),
        }
    }
}

fn file(world: &World, step: &Step) -> FileWord {
    let distrusted = step.distrusted.iter();
    FileWord {
        distrusted: distrusted
            .map(|index| world.control[*index].certificate().id())
            .collect(),
        ..FileWord::default()
    }
}

fn lists(state: &TrustState) -> BTreeMap<AuthorityId, Crl> {
    let all = state.x509.iter().chain(&state.control);
    all.filter_map(|held| Some((held.certificate.id(), held.crl.clone()?)))
        .collect()
}

/// What an update offers and verifies, by authority.
fn offers(update: &TrustUpdate) -> BTreeMap<AuthorityId, Crl> {
    let all = update.x509.iter().chain(&update.control);
    all.map(|one| {
        let certificate = AuthorityCertificate::from_der(&one.certificate).unwrap();
        (certificate.id(), Crl::verify(&one.crl, &certificate).unwrap())
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Within an epoch no number falls, whatever comes and goes; who departed does not come back; and a newer list of an
    /// authority that is held is always taken. What a server said binds until the anchors file distrusts its authority, and from
    /// then on it is not heard.
    ///
    /// Covers INV-3.
    #[test]
    fn numbers_never_fall_and_newer_lists_are_always_taken(steps in prop::collection::vec(step(), 1..24)) {
        let world = World::new();
        let directory = signet_testkit::folder();
        let mut held: Option<TrustState> = None;
        let mut highest: BTreeMap<AuthorityId, CrlNumber> = BTreeMap::new();
        for step in &steps {
            if let Some(state) = held.as_ref().filter(|_| step.restart) {
                TrustFile::new(directory.path()).write(state).unwrap();
                held = TrustFile::new(directory.path()).read(&trust_domain());
                prop_assert!(held.is_some());
            }
            let update = world.update(step);
            let file = file(&world, step);
            let is_void = file.voids(&update.said);
            let Ok(Accepted { state, .. }) = accept(held.as_ref(), &update, &trust_domain(), &file, at(100)) else {
                prop_assert!(held.is_none() || is_void, "what is held stays");
                continue;
            };
            prop_assert!(!is_void, "a distrusted server is heard");
            let (now, offered) = (lists(&state), offers(&update));
            if let Some(before) = &held {
                let is_bound = !file.voids(&before.said);
                prop_assert!(state.epoch >= before.epoch || !is_bound);
                if before.epoch > 0 && state.epoch > before.epoch {
                    highest.clear();
                } else if is_bound {
                    prop_assert!(state.bundle.sequence_number >= before.bundle.sequence_number);
                }
                for (id, list) in lists(before) {
                    let newer = offered.get(&id).filter(|offered| offered.may_replace(&list, at(100)).is_ok());
                    if let (Some(newer), Some(now)) = (newer, now.get(&id)) {
                        prop_assert_eq!(newer, now);
                    }
                }
                for id in before.departed.iter().map(|gone| &gone.id) {
                    if !before.departed.contains(id, &file) {
                        continue;
                    }
                    prop_assert!(state.departed.contains(id, &file));
                    prop_assert!(before.find(id).is_some() || state.find(id).is_none(), "{id} is back");
                }
            }
            for (id, list) in &now {
                let known = highest.entry(*id).or_insert_with(|| list.number());
                prop_assert!(list.number() >= *known, "{id}: {} after {known}", list.number());
                *known = list.number();
            }
            held = Some(state);
        }
    }
}
