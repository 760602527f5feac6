//! What is around the machine: a ledger, agents, a publisher, a journal that may fail, restarts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::link::WALK_AFTER_END;
use signet_certs::signer::SignatureAlgorithm;
use signet_certs::time::{from_unix_seconds, unix_seconds};

use super::super::super::departed::Left;
use super::super::super::journal;
use super::super::super::links::Link;
use super::super::super::material::Material;
use super::super::super::operation::{Order, Stage, Verb};
use super::super::super::policy::{EmergencySettings, LifePolicy, LifeSettings};
use super::super::super::spread::{Holds, InUse, SpreadReports};
use super::super::super::state::{NewAuthority, Shown};
use super::super::*;

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const SKEW: Duration = Duration::from_secs(120);
pub(super) const AGENTS: u64 = 3;

pub(super) fn settings() -> LifeSettings {
    LifeSettings {
        authority_ttl: 12 * HOUR,
        leaf_ttl: HOUR,
        clock_skew: SKEW,
        spread: 5 * MINUTE,
        spread_max: HOUR,
        algorithm: None,
        emergency: EmergencySettings {
            grace: 2 * MINUTE,
            bundle_first: true,
        },
    }
}

pub(super) fn policy() -> LifePolicy {
    LifePolicy::new(settings()).unwrap()
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) authority: AuthorityId,
    pub(super) not_after: SystemTime,
}

/// Everything around the machine.
pub(super) struct World {
    pub(super) policy: LifePolicy,
    pub(super) now: SystemTime,
    /// Whether its authorities sign lists.
    pub(super) lists: bool,
    pub(super) set: AuthoritySet,
    pub(super) journal: Vec<u8>,
    pub(super) journal_fails: bool,
    pub(super) keys: BTreeSet<AuthorityId>,
    pub(super) made: u8,
    /// The live agents.
    agents: BTreeMap<u64, Agent>,
    pub(super) reports: SpreadReports,
    pub(super) bundle: Vec<(AuthorityId, SystemTime)>,
    /// What the bundle says beside its authorities: which are tainted, and which have departed.
    pub(super) tainted: Vec<AuthorityId>,
    pub(super) departed: Vec<AuthorityId>,
    /// All that ever left for good.
    pub(super) gone: BTreeSet<AuthorityId>,
    pub(super) sequence: u64,
    pub(super) first_published: BTreeMap<AuthorityId, (u64, SystemTime)>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) forced: bool,
    pub(super) activations: Vec<AuthorityId>,
    pub(super) last_active: Option<(AuthorityId, SystemTime)>,
}

/// An agent whose workloads have one certificate.
#[derive(Clone, Debug, Default)]
struct Agent {
    /// The sequence that it has reported, and the authority that it said it used then.
    reported: u64,
    said: Option<Option<AuthorityId>>,
    /// What it uses now.
    uses: Option<AuthorityId>,
    /// What its own certificate is of; of some other kind where nothing is said.
    own: Option<AuthorityId>,
}

fn reports(agents: &BTreeMap<u64, Agent>) -> SpreadReports {
    let id = |agent: &u64| SpiffeId::parse(&format!("spiffe://example.org/agent-{agent}")).unwrap();
    let holds = |agent: &Agent| Holds {
        reported: agent.reported,
        own: agent.own.or(Some(AuthorityId::from_bytes([255; 20]))),
        in_use: agent.said.map(|uses| InUse {
            sequence: agent.reported,
            authorities: uses.into_iter().map(|authority| (authority, 1)).collect(),
        }),
        connected: true,
    };
    agents
        .iter()
        .map(|(agent, known)| (id(agent), holds(known)))
        .collect()
}

impl World {
    pub(super) fn new() -> Self {
        let agents = (0..AGENTS).map(|agent| (agent, Agent::default())).collect();
        Self {
            policy: policy(),
            now: SystemTime::UNIX_EPOCH + 500_000 * HOUR,
            lists: true,
            set: AuthoritySet::default(),
            journal: journal::encode(&AuthoritySet::default()).unwrap(),
            journal_fails: false,
            keys: BTreeSet::new(),
            made: 0,
            reports: reports(&agents),
            agents,
            bundle: Vec::new(),
            tainted: Vec::new(),
            departed: Vec::new(),
            gone: BTreeSet::new(),
            sequence: 0,
            first_published: BTreeMap::new(),
            leaves: Vec::new(),
            forced: false,
            activations: Vec::new(),
            last_active: None,
        }
    }

    /// A started world whose first authority signs.
    pub(super) fn started() -> Self {
        let mut world = Self::new();
        world.step(Event::Start).unwrap();
        world.publish();
        world.settle();
        assert!(world.set.active().is_some());
        world
    }

    pub(super) fn context(&self) -> Context<'_> {
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
    pub(super) fn step(&mut self, event: Event) -> Result<(), Refused> {
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
                        self.check_departures(&before);
                    }
                    Effect::Publish => {}
                    Effect::DeleteKey(id) => assert!(self.keys.remove(id)),
                    Effect::CheckLastLeaf(id) => events.push_back(self.last_leaf(*id)),
                    Effect::GenerateKey {
                        algorithm,
                        activation,
                        author,
                        verb,
                    } => {
                        let (activation, author, verb) = (*activation, author.clone(), *verb);
                        let authority = self.make(*algorithm);
                        let link = self
                            .link_to(&authority)
                            .filter(|_| activation != Activation::InEmergency);
                        events.push_back(Event::Prepared {
                            authority,
                            activation,
                            author,
                            link,
                            verb,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Ticks until there is nothing left to do at this moment.
    pub(super) fn settle(&mut self) {
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

    pub(super) fn make(&mut self, algorithm: SignatureAlgorithm) -> NewAuthority {
        self.made += 1;
        let whole = from_unix_seconds(unix_seconds(self.now));
        NewAuthority {
            id: AuthorityId::from_bytes([self.made; 20]),
            algorithm,
            not_before: whole - SKEW,
            not_after: whole + self.policy.authority_ttl(),
            signs_list: self.lists,
            material: Material::X509(Arc::from([Arc::from([self.made; 8])])),
        }
    }

    /// By the active one, valid until 90 days after its end; none after that.
    pub(super) fn link_to(&self, successor: &NewAuthority) -> Option<Link> {
        let acting = &self.set.active()?.authority;
        Some(Link {
            by: acting.id,
            to: successor.id,
            not_after: acting.not_after + WALK_AFTER_END,
            certificate: successor.id.as_bytes().as_slice().into(),
        })
        .filter(|link| link.not_after > self.now)
    }

    pub(super) fn last_leaf(&self, authority: AuthorityId) -> Event {
        let own = self.leaves.iter().filter(|leaf| leaf.authority == authority);
        match own.map(|leaf| leaf.not_after).max() {
            Some(not_after) if not_after >= self.now => Event::LeafOutlives { authority, not_after },
            _ => Event::LastLeafExpired { authority },
        }
    }

    /// The publisher: a list for every authority, then the bundle, then word to the machine.
    pub(super) fn publish(&mut self) {
        let this_update = from_unix_seconds(unix_seconds(self.now - SKEW));
        let ids: Vec<_> = self.set.authorities().iter().map(AuthorityRecord::id).collect();
        let marked = self.set.authorities().iter();
        let marked = marked.filter(|record| record.state.name() == "tainted");
        let tainted: Vec<_> = marked.map(AuthorityRecord::id).collect();
        let departed: Vec<_> = self.set.departed().iter().map(|departed| departed.id).collect();
        let before = self.bundle.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        if (&before, &self.tainted, &self.departed) != (&ids, &tainted, &departed) {
            self.sequence += 1;
        }
        (self.tainted, self.departed) = (tainted, departed);
        self.bundle = ids.into_iter().map(|id| (id, this_update)).collect();
        for (id, _) in &self.bundle {
            self.first_published
                .entry(*id)
                .or_insert((self.sequence, self.now));
        }
        let listed = self.bundle.iter();
        let listed = listed.map(|(id, this_update)| (*id, self.lists.then_some(*this_update)));
        let published = Event::Published {
            sequence: self.sequence,
            shown: Shown {
                listed: listed.collect(),
                tainted: self.tainted.clone(),
                departed: self.departed.clone(),
            },
        };
        self.step(published).unwrap();
    }

    /// Says what it holds: of what has left it holds nothing, for nobody who has its bundle believes that.
    pub(super) fn report(&mut self, agent: u64) {
        let (sequence, bundle) = (self.sequence, &self.bundle);
        let known = self.agents.entry(agent).or_default();
        known.uses = known.uses.filter(|used| bundle.iter().any(|(id, _)| id == used));
        (known.reported, known.said) = (sequence, Some(known.uses));
        self.reports = reports(&self.agents);
    }

    /// Its workload gets another certificate.
    pub(super) fn renew(&mut self, agent: u64) {
        let active = self.set.active().map(AuthorityRecord::id);
        if let Some(known) = self.agents.get_mut(&agent) {
            known.uses = active;
        }
    }

    /// It has a certificate of the authority that signs.
    pub(super) fn attest(&mut self, agent: u64) {
        let active = self.set.active().map(AuthorityRecord::id);
        if let Some(known) = self.agents.get_mut(&agent) {
            known.own = active;
        }
        self.reports = reports(&self.agents);
    }

    /// What is told to go of which nobody was told that it may break something.
    fn check_departures(&mut self, before: &AuthoritySet) {
        let departed = self.set.departed().iter();
        for new in departed.filter(|new| before.departed().get(new.id).is_none()) {
            assert!(self.gone.insert(new.id), "it had left before");
            if new.left == Left::Revoked && !new.forced {
                let shown = before.shown_tainted(new.id).expect("it was marked, and shown so");
                for (agent, known) in &self.agents {
                    let said = known.said.filter(|_| known.reported >= shown);
                    assert_eq!(
                        said.map(|used| used == Some(new.id)),
                        Some(false),
                        "agent {agent}"
                    );
                }
            }
        }
    }

    /// What an issuer does, `late` after it has read which authority is active.
    pub(super) fn issue(&mut self, late: Duration) {
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

    pub(super) fn issuer(&self, late: Duration) -> Option<(AuthorityId, SystemTime)> {
        let stale = self.last_active.filter(|(_, until)| self.now <= *until + late);
        let id = stale
            .map(|(id, _)| id)
            .or_else(|| self.set.active().map(AuthorityRecord::id))?;
        self.set.get(id).map(|record| (id, record.authority.not_after))
    }

    pub(super) fn check_activation(&mut self, before: &AuthoritySet) {
        let (old, new) = (before.active(), self.set.active());
        let Some(new) = new.filter(|new| old.map(AuthorityRecord::id) != Some(new.id())) else {
            return;
        };
        let mut operations = self.set.operations().iter();
        if operations.any(|one| one.target == new.id() && one.verb == Verb::Emergency) {
            self.check_emergency(old, new.id());
            self.last_active = old.map(|old| (old.id(), self.now));
            self.activations.push(new.id());
            return;
        }
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

    /// The bundle first, where it is to come first; and everything before it is on its way out.
    fn check_emergency(&self, old: Option<&AuthorityRecord>, new: AuthorityId) {
        let emergency = self.policy.emergency();
        if emergency.bundle_first {
            let (sequence, at) = self.first_published[&new];
            let waited = self.now >= at + EMERGENCY_SPREAD;
            let useless = old.is_none_or(|old| old.is_useless(self.now));
            assert!(waited || useless || self.reports.connected_without(sequence).next().is_none());
        }
        for record in self.set.authorities().iter().filter(|record| record.id() != new) {
            let out_at = record.state.out_at().expect("all before it are distrusted");
            assert!(out_at <= self.now + emergency.grace);
        }
        assert!(
            self.set.links().iter().next().is_none(),
            "a way over a stolen key"
        );
    }

    fn check_gone(&self) {
        let mut distrusted = self.set.authorities().iter();
        let in_time = |record: &AuthorityRecord| {
            let out_at = record.state.out_at();
            out_at.is_none_or(|out_at| out_at <= self.now + self.policy.emergency().grace)
        };
        assert!(distrusted.all(in_time));
        for id in &self.gone {
            assert!(self.set.get(*id).is_none(), "it has left for good");
            let mut links = self.set.links().iter();
            assert!(
                links.all(|link| link.by != *id && link.to != *id),
                "a way over it"
            );
        }
        for id in &self.departed {
            assert!(
                self.bundle.iter().all(|(other, _)| other != id),
                "named as departed and there"
            );
        }
    }

    pub(super) fn check(&self) {
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
        let waiting = self.set.departed().iter().filter(|departed| departed.has_key);
        assert_eq!(
            self.keys.len(),
            self.set.authorities().len() + waiting.count(),
            "a key was left behind"
        );
        self.check_gone();
        let lives = |leaf: &&Leaf| leaf.not_after >= self.now && !self.gone.contains(&leaf.authority);
        for leaf in self.leaves.iter().filter(lives) {
            let end = self
                .set
                .get(leaf.authority)
                .expect("CA-16: a leaf outlives its root")
                .authority
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
pub(super) fn assert_order(before: &AuthoritySet, transition: &Transition) {
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
pub(super) enum Action {
    Wait(u64),
    WaitForDeadline,
    Tick,
    Rotate(bool),
    Prepare,
    Activate(bool),
    Retire,
    Emergency,
    /// Of the authority in this place.
    Taint(usize),
    Revoke(usize, bool),
    Renew(u64),
    Publish,
    Report(u64),
    Join(u64),
    Leave(u64),
    Issue,
    IssueLate,
    JournalFails,
    Restart,
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0_u64..4 * 3600).prop_map(Action::Wait),
        1 => (0_u64..20 * 3600).prop_map(Action::Wait),
        4 => Just(Action::WaitForDeadline),
        3 => Just(Action::Tick),
        1 => any::<bool>().prop_map(Action::Rotate),
        1 => Just(Action::Prepare),
        1 => any::<bool>().prop_map(Action::Activate),
        1 => Just(Action::Retire),
        1 => Just(Action::Emergency),
        1 => (0_usize..4).prop_map(Action::Taint),
        1 => ((0_usize..4), any::<bool>()).prop_map(|(place, force)| Action::Revoke(place, force)),
        4 => (0..AGENTS).prop_map(Action::Renew),
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

pub(super) fn rotation(force: bool) -> Order {
    Order::Rotate {
        force,
        algorithm: None,
        retire: false,
    }
}

pub(super) fn retirement() -> Order {
    Order::Rotate {
        force: false,
        algorithm: None,
        retire: true,
    }
}

impl World {
    /// An admin says so.
    pub(super) fn orders(&mut self, order: Order) -> Result<(), Refused> {
        self.step(Event::Ordered {
            order,
            author: "admin".into(),
        })
    }

    fn in_place(&self, place: usize) -> Option<AuthorityId> {
        self.set.authorities().get(place).map(AuthorityRecord::id)
    }

    /// What has come of the operation that began last.
    pub(super) fn last_operation(&self) -> Option<(Verb, Stage)> {
        let last = self.set.operations().iter().last()?;
        Some((last.verb, last.stage))
    }

    pub(super) fn perform(&mut self, action: &Action) {
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
                self.orders(rotation(*force)).unwrap();
            }
            Action::Prepare => self.orders(Order::Prepare { algorithm: None }).unwrap(),
            Action::Activate(force) => {
                let taken = self.orders(Order::Activate { force: *force });
                self.forced |= *force && taken.is_ok();
            }
            Action::Retire => {
                let refused = self.orders(retirement());
                assert_eq!(refused.is_err(), self.activations.is_empty(), "{refused:?}");
            }
            Action::Emergency => {
                let refused = self.orders(Order::Emergency { algorithm: None });
                assert_eq!(refused.is_err(), self.activations.is_empty(), "{refused:?}");
            }
            Action::Taint(place) => {
                if let Some(authority) = self.in_place(*place) {
                    let _ = self.orders(Order::Taint { authority });
                }
            }
            Action::Revoke(place, force) => {
                if let Some(authority) = self.in_place(*place) {
                    let force = *force;
                    let _ = self.orders(Order::Revoke { authority, force });
                }
            }
            Action::Renew(agent) => self.renew(*agent),
            Action::Publish => self.publish(),
            Action::Report(agent) => {
                if self.agents.contains_key(agent) {
                    self.report(*agent);
                }
            }
            Action::Join(agent) => {
                self.agents.entry(*agent).or_default();
                self.reports = reports(&self.agents);
            }
            Action::Leave(agent) => {
                self.agents.remove(agent);
                self.reports = reports(&self.agents);
            }
            Action::Issue => self.issue(Duration::ZERO),
            Action::IssueLate => self.issue(Duration::from_secs(5)),
            Action::JournalFails => self.journal_fails = true,
            Action::Restart => {
                self.set = journal::decode(&self.journal).unwrap();
                for record in &mut self.set.authorities {
                    record.authority.signs_list = self.lists;
                }
                self.step(Event::Start).unwrap();
            }
        }
    }
}
