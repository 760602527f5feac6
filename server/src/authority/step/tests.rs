//! The machine beside a model of the world: a ledger, agents, a publisher, a journal that may fail, restarts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::journal;
use super::super::policy::{LifePolicy, LifeSettings};
use super::super::spread::SpreadReports;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const SKEW: Duration = Duration::from_secs(120);
const AGENTS: u64 = 3;

fn policy() -> LifePolicy {
    LifePolicy::new(LifeSettings {
        authority_ttl: 12 * HOUR,
        leaf_ttl: HOUR,
        clock_skew: SKEW,
        spread: 5 * MINUTE,
        spread_max: HOUR,
    })
    .unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    authority: AuthorityId,
    not_after: SystemTime,
}

/// Everything around the machine.
struct World {
    policy: LifePolicy,
    now: SystemTime,
    set: AuthoritySet,
    journal: Vec<u8>,
    journal_fails: bool,
    keys: BTreeSet<AuthorityId>,
    made: u8,
    reports: SpreadReports,
    bundle: Vec<(AuthorityId, SystemTime)>,
    sequence: u64,
    first_published: BTreeMap<AuthorityId, (u64, SystemTime)>,
    leaves: Vec<Leaf>,
    forced: bool,
    activations: Vec<AuthorityId>,
    last_active: Option<(AuthorityId, SystemTime)>,
}

impl World {
    fn new() -> Self {
        let agents = (0..AGENTS).map(|agent| (format!("agent-{agent}"), 0));
        Self {
            policy: policy(),
            now: SystemTime::UNIX_EPOCH + 500_000 * HOUR,
            set: AuthoritySet::default(),
            journal: journal::encode(&AuthoritySet::default()).unwrap(),
            journal_fails: false,
            keys: BTreeSet::new(),
            made: 0,
            reports: SpreadReports {
                agents: agents.collect(),
            },
            bundle: Vec::new(),
            sequence: 0,
            first_published: BTreeMap::new(),
            leaves: Vec::new(),
            forced: false,
            activations: Vec::new(),
            last_active: None,
        }
    }

    /// A started world whose first authority signs.
    fn started() -> Self {
        let mut world = Self::new();
        world.step(Event::Start).unwrap();
        world.publish();
        world.settle();
        assert!(world.set.active().is_some());
        world
    }

    fn context(&self) -> Context<'_> {
        Context {
            at: Moment {
                now: self.now,
                trusted: true,
                settled: Some(self.now),
            },
            policy: &self.policy,
            reports: &self.reports,
        }
    }

    /// Does what the worker does with an event.
    fn step(&mut self, event: Event) -> Result<(), Refused> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let before = self.set.clone();
            let transition = before.apply(event, &self.context())?;
            assert_order(&before, &transition);
            for effect in &transition.effects {
                match effect {
                    Effect::SaveJournal if std::mem::take(&mut self.journal_fails) => return Ok(()),
                    Effect::SaveJournal => {
                        self.journal = journal::encode(&transition.next).unwrap();
                        self.set = transition.next.clone();
                        self.keys
                            .extend(self.set.authorities().iter().map(AuthorityRecord::id));
                        self.check_activation(&before);
                    }
                    Effect::Publish => {}
                    Effect::DeleteKey(id) => assert!(self.keys.remove(id)),
                    Effect::CheckLastLeaf(id) => events.push_back(self.last_leaf(*id)),
                    Effect::GenerateKey { activation, author } => {
                        let (activation, author) = (*activation, author.clone());
                        let certificate = self.make();
                        events.push_back(Event::Prepared {
                            certificate,
                            activation,
                            author,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Ticks until there is nothing left to do at this moment.
    fn settle(&mut self) {
        for _ in 0..10 {
            if self
                .set
                .next_deadline(&self.context())
                .is_some_and(|deadline| deadline > self.now)
            {
                return;
            }
            let _ = self.step(Event::Tick);
            if self
                .set
                .prepared()
                .is_some_and(|prepared| prepared.introduced.is_none())
            {
                return;
            }
        }
        panic!("the machine does not come to rest: {:?}", self.set);
    }

    fn make(&mut self) -> NewAuthority {
        self.made += 1;
        let whole = from_unix_seconds(unix_seconds(self.now));
        NewAuthority {
            id: AuthorityId::from_bytes([self.made; 20]),
            certificate: vec![self.made; 8].into(),
            not_before: whole - SKEW,
            not_after: whole + self.policy.authority_ttl(),
        }
    }

    fn last_leaf(&self, authority: AuthorityId) -> Event {
        let own = self.leaves.iter().filter(|leaf| leaf.authority == authority);
        match own.map(|leaf| leaf.not_after).max() {
            Some(not_after) if not_after >= self.now => Event::LeafOutlives { authority, not_after },
            _ => Event::LastLeafExpired { authority },
        }
    }

    /// The publisher: a list for every authority, then the bundle, then word to the machine.
    fn publish(&mut self) {
        let this_update = from_unix_seconds(unix_seconds(self.now - SKEW));
        let ids: Vec<_> = self.set.authorities().iter().map(AuthorityRecord::id).collect();
        if self.bundle.iter().map(|(id, _)| *id).collect::<Vec<_>>() != ids {
            self.sequence += 1;
        }
        self.bundle = ids.into_iter().map(|id| (id, this_update)).collect();
        for (id, _) in &self.bundle {
            self.first_published
                .entry(*id)
                .or_insert((self.sequence, self.now));
        }
        let (sequence, listed) = (self.sequence, self.bundle.clone());
        self.step(Event::Published { sequence, listed }).unwrap();
    }

    fn report(&mut self, agent: u64) {
        self.reports
            .agents
            .insert(format!("agent-{agent}"), self.sequence);
    }

    /// What an issuer does, `late` after it has read which authority is active.
    fn issue(&mut self, late: Duration) {
        let Some((authority, not_after)) = self.issuer(late) else {
            return;
        };
        let end = from_unix_seconds(unix_seconds(self.now + self.policy.leaf_ttl())).min(not_after);
        if self.now < not_after {
            self.leaves.push(Leaf {
                authority,
                not_after: end,
            });
        }
    }

    fn issuer(&self, late: Duration) -> Option<(AuthorityId, SystemTime)> {
        let stale = self.last_active.filter(|(_, until)| self.now <= *until + late);
        let id = stale
            .map(|(id, _)| id)
            .or_else(|| self.set.active().map(AuthorityRecord::id))?;
        self.set.get(id).map(|record| (id, record.certificate.not_after))
    }

    fn check_activation(&mut self, before: &AuthoritySet) {
        let (old, new) = (before.active(), self.set.active());
        let Some(new) = new.filter(|new| old.map(AuthorityRecord::id) != Some(new.id())) else {
            return;
        };
        let (sequence, at) = self.first_published[&new.id()];
        let spread =
            self.now >= at + self.policy.spread() && self.reports.confirmed(sequence) == self.reports.live();
        let waited = self.now >= at + self.policy.spread_max();
        let nothing_else = old.is_none_or(|old| old.is_useless(self.now));
        assert!(
            spread || waited || nothing_else || self.forced,
            "INV-8: signs before it has spread"
        );
        self.last_active = old.map(|old| (old.id(), self.now));
        self.forced = false;
        self.activations.push(new.id());
    }

    fn check(&self) {
        let active = self
            .set
            .authorities()
            .iter()
            .filter(|one| one.state == AuthorityState::Active)
            .count();
        assert_eq!(
            active,
            usize::from(!self.activations.is_empty()),
            "exactly one Active after the start"
        );
        for record in self.set.authorities() {
            assert!(
                self.keys.contains(&record.id()),
                "an authority in the bundle has no key"
            );
        }
        assert_eq!(
            self.keys.len(),
            self.set.authorities().len(),
            "a key was left behind"
        );
        for leaf in self.leaves.iter().filter(|leaf| leaf.not_after >= self.now) {
            let end = self
                .set
                .get(leaf.authority)
                .expect("CA-16: a leaf outlives its root")
                .certificate
                .not_after;
            assert!(leaf.not_after <= end, "INV-10: a leaf outlives its authority");
            assert!(
                self.bundle.iter().any(|(id, _)| *id == leaf.authority),
                "CA-14: its root is not published"
            );
        }
        let restored = journal::decode(&self.journal).unwrap();
        assert_eq!(
            journal::encode(&restored).unwrap(),
            self.journal,
            "the journal loses something"
        );
        let due = self
            .set
            .next_deadline(&self.context())
            .is_some_and(|deadline| deadline <= self.now);
        let works = !self
            .set
            .apply(Event::Tick, &self.context())
            .unwrap()
            .effects
            .is_empty();
        assert_eq!(due, works, "the deadline is wrong: {:?}", self.set);
    }
}

/// The journal comes before everything that shows, keys go last.
fn assert_order(before: &AuthoritySet, transition: &Transition) {
    let place = |wanted: &Effect| transition.effects.iter().position(|effect| effect == wanted);
    if transition.next != *before {
        assert_eq!(place(&Effect::SaveJournal), Some(0));
        assert_eq!(place(&Effect::Publish), Some(1));
    }
    let first_delete = transition
        .effects
        .iter()
        .position(|effect| matches!(effect, Effect::DeleteKey(_)));
    assert!(first_delete.is_none_or(|first| first > 1));
}

#[derive(Clone, Debug)]
enum Action {
    Wait(u64),
    WaitForDeadline,
    Tick,
    Rotate(bool),
    Publish,
    Report(u64),
    Join(u64),
    Leave(u64),
    Issue,
    IssueLate,
    JournalFails,
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0_u64..4 * 3600).prop_map(Action::Wait),
        1 => (0_u64..20 * 3600).prop_map(Action::Wait),
        4 => Just(Action::WaitForDeadline),
        3 => Just(Action::Tick),
        1 => any::<bool>().prop_map(Action::Rotate),
        5 => Just(Action::Publish),
        4 => (0..AGENTS).prop_map(Action::Report),
        1 => (0..AGENTS).prop_map(Action::Join),
        1 => (0..AGENTS).prop_map(Action::Leave),
        5 => Just(Action::Issue),
        2 => Just(Action::IssueLate),
        1 => Just(Action::JournalFails),
        1 => Just(Action::Restart),
    ]
}

impl World {
    fn perform(&mut self, action: &Action) {
        match action {
            Action::Wait(seconds) => self.now += Duration::from_secs(*seconds) + Duration::from_millis(7),
            Action::WaitForDeadline => {
                let deadline = self.set.next_deadline(&self.context());
                self.now = deadline.map_or(self.now, |deadline| deadline.max(self.now));
                let _ = self.step(Event::Tick);
            }
            Action::Tick => self.step(Event::Tick).unwrap(),
            Action::Rotate(force) => {
                self.forced |= force;
                self.step(Event::Rotate {
                    force: *force,
                    author: "admin".into(),
                })
                .unwrap();
            }
            Action::Publish => self.publish(),
            Action::Report(agent) => {
                if self.reports.agents.contains_key(&format!("agent-{agent}")) {
                    self.report(*agent);
                }
            }
            Action::Join(agent) => {
                self.reports.agents.entry(format!("agent-{agent}")).or_insert(0);
            }
            Action::Leave(agent) => {
                self.reports.agents.remove(&format!("agent-{agent}"));
            }
            Action::Issue => self.issue(Duration::ZERO),
            Action::IssueLate => self.issue(Duration::from_secs(5)),
            Action::JournalFails => self.journal_fails = true,
            Action::Restart => {
                self.set = journal::decode(&self.journal).unwrap();
                self.step(Event::Start).unwrap();
            }
        }
    }
}

fn seeded() -> ProptestConfig {
    ProptestConfig {
        cases: 150,
        rng_seed: RngSeed::Fixed(8),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    /// Covers INV-8, INV-10, CA-14, CA-16, FED-02, FED-03, CRL-32.
    #[test]
    fn no_course_of_events_breaks_an_invariant(actions in prop::collection::vec(action(), 1..120)) {
        let mut world = World::new();
        world.step(Event::Start).unwrap();
        let mut sequence = 0;
        for action in &actions {
            world.perform(action);
            world.check();
            prop_assert!(world.sequence >= sequence, "INV-3: the sequence went back");
            sequence = world.sequence;
        }
    }
}

/// Covers CA-16, INV-8.
#[test]
fn left_alone_authorities_follow_each_other_on_schedule() {
    let mut world = World::started();
    for _ in 0..60 {
        world.perform(&Action::WaitForDeadline);
        world.issue(Duration::ZERO);
        world.now += SKEW;
        world.publish();
        (0..AGENTS).for_each(|agent| world.report(agent));
        world.settle();
        world.check();
        assert!(world.set.authorities().len() <= 3, "{:?}", world.set);
    }
    assert!(world.activations.len() > 5, "{:?}", world.activations);
}

#[test]
fn an_empty_journal_prepares_one_that_signs_as_soon_as_it_is_published() {
    let mut world = World::new();
    world.step(Event::Start).unwrap();
    assert!(world.set.active().is_none());
    assert_eq!(world.set.prepared().unwrap().state.name(), "prepared");
    world.publish();
    world.settle();
    assert_eq!(world.activations.len(), 1);
}

/// Covers INV-8.
#[test]
fn a_successor_waits_for_every_agent_and_for_the_spread_time() {
    let mut world = World::started();
    world
        .step(Event::Rotate {
            force: false,
            author: "admin".into(),
        })
        .unwrap();
    world.publish();
    (0..AGENTS - 1).for_each(|agent| world.report(agent));
    world.now += 6 * MINUTE;
    world.settle();
    assert_eq!(world.activations.len(), 1);
    world.report(AGENTS - 1);
    world.settle();
    assert_eq!(world.activations.len(), 2);
    assert_eq!(world.set.active().unwrap().author.as_ref(), "admin");
}

#[test]
fn silence_delays_a_successor_no_longer_than_spread_max() {
    let mut world = World::started();
    world
        .step(Event::Rotate {
            force: false,
            author: "admin".into(),
        })
        .unwrap();
    world.publish();
    world.now += HOUR - Duration::from_secs(1);
    world.settle();
    assert_eq!(world.activations.len(), 1);
    world.perform(&Action::WaitForDeadline);
    assert_eq!(world.activations.len(), 2);
}

#[test]
fn force_skips_the_spread_but_not_the_publication() {
    let mut world = World::started();
    world.forced = true;
    world
        .step(Event::Rotate {
            force: true,
            author: "admin".into(),
        })
        .unwrap();
    world.settle();
    assert_eq!(world.activations.len(), 1);
    world.publish();
    world.settle();
    assert_eq!(world.activations.len(), 2);
}

/// Covers CRL-32, FED-03.
#[test]
fn an_old_authority_leaves_after_its_last_leaf_and_one_more_list() {
    let mut world = World::started();
    let first = world.set.active().unwrap().id();
    world.forced = true;
    world
        .step(Event::Rotate {
            force: true,
            author: "admin".into(),
        })
        .unwrap();
    world.publish();
    world.settle();
    // An issuer that had read the authorities a moment earlier.
    world.now += Duration::from_secs(3);
    world.issue(Duration::from_secs(5));
    assert_eq!(world.leaves.last().unwrap().authority, first);
    world.now += HOUR - Duration::from_secs(2);
    world.settle();
    assert!(world.set.get(first).is_some(), "its last leaf lives");
    world.now += Duration::from_secs(10);
    world.settle();
    world.publish();
    assert!(
        world.set.get(first).is_some(),
        "its last list does not show the expiry yet"
    );
    world.now += SKEW;
    world.publish();
    assert!(world.set.get(first).is_none());
    assert!(!world.keys.contains(&first));
}

#[test]
fn a_server_that_slept_too_long_starts_over_at_once() {
    let mut world = World::started();
    world.now += 100 * HOUR;
    world.perform(&Action::Restart);
    world.publish();
    world.settle();
    assert_eq!(world.activations.len(), 2);
    world.now += SKEW;
    world.publish();
    assert_eq!(world.set.authorities().len(), 1);
}

#[test]
fn a_longer_leaf_ttl_is_remembered_for_as_long_as_it_matters() {
    let mut world = World::started();
    let longer = LifeSettings {
        authority_ttl: 12 * HOUR,
        leaf_ttl: 2 * HOUR,
        clock_skew: SKEW,
        spread: 5 * MINUTE,
        spread_max: HOUR,
    };
    world.policy = LifePolicy::new(longer).unwrap();
    world.perform(&Action::Restart);
    assert_eq!(world.set.active().unwrap().longest_leaf_ttl, 2 * HOUR);
    world.policy = policy();
    world.perform(&Action::Restart);
    assert_eq!(world.set.active().unwrap().longest_leaf_ttl, 2 * HOUR);
}

#[test]
fn a_second_preparation_and_a_stray_answer_are_refused() {
    let mut world = World::started();
    world
        .step(Event::Rotate {
            force: false,
            author: "admin".into(),
        })
        .unwrap();
    let (active, certificate) = (world.set.active().unwrap().id(), world.make());
    let second = Event::Prepared {
        certificate,
        activation: Activation::AtOnce,
        author: "admin".into(),
    };
    assert!(matches!(world.step(second), Err(Refused::AlreadyPrepared(_))));
    let stray = Event::LastLeafExpired { authority: active };
    assert_eq!(world.step(stray), Err(Refused::NotOld(active)));
}

/// Covers INV-16. The clock was a year ahead while timers ran and two witnesses believed it; what was made then cannot sign
/// when it is right again, and the authority that was left for it can.
#[test]
fn an_authority_made_ahead_of_time_gives_its_place_back() {
    let mut world = World::started();
    let good = world.set.active().unwrap().id();
    let right = world.now;
    world.now += 400 * 24 * HOUR;
    world.step(Event::Tick).unwrap();
    world.publish();
    world.settle();
    let early = world.set.active().unwrap().id();
    assert_ne!(early, good);
    world.now = right + MINUTE;
    world.step(Event::Tick).unwrap();
    assert_eq!(world.set.active().unwrap().id(), good);
    assert_eq!(world.set.get(early).unwrap().state.name(), "old");
}

/// Covers INV-16. A server first started in the future has nothing that can sign when the clock is right: it makes another
/// authority at once, and does so only where the time is trusted.
#[test]
fn a_first_start_ahead_of_time_is_left_by_another_authority() {
    let mut world = World::started();
    let early = world.set.active().unwrap().id();
    world.now -= 24 * HOUR;
    let untrusted = Context {
        at: Moment {
            trusted: false,
            ..world.context().at
        },
        ..world.context()
    };
    assert_eq!(world.set.apply(Event::Tick, &untrusted).unwrap().next, world.set);
    world.step(Event::Tick).unwrap();
    world.publish();
    world.settle();
    let active = world.set.active().unwrap();
    assert_ne!(active.id(), early);
    assert!(!active.is_useless(world.now));
}

/// Timers rotate, and authorities end, by settled time alone.
#[test]
fn without_settled_time_no_timer_acts() {
    let mut world = World::started();
    world.now += 11 * HOUR;
    let unsettled = Context {
        at: Moment {
            settled: None,
            ..world.context().at
        },
        ..world.context()
    };
    let transition = world.set.apply(Event::Tick, &unsettled).unwrap();
    assert_eq!((&transition.next, transition.effects), (&world.set, Vec::new()));
    assert!(
        world
            .set
            .next_deadline(&unsettled)
            .is_none_or(|deadline| deadline > world.now)
    );
    world.step(Event::Tick).unwrap();
    assert!(world.set.prepared().is_some());
}
