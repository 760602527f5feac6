//! The authority machine, pure: its words. The steps between them are in `step.rs`: `(state, event, now) → (state,
//! effects)`. The worker carries the effects out.
//!
//! | state | in the bundle | signs | leaves by |
//! |---|---|---|---|
//! | Prepared | yes | its own CRL | activation, once it has spread |
//! | Active (exactly one) | yes | leaves, CRL | activation of another |
//! | Old | yes | CRL | its last leaf has expired and, where it has a CRL, one more is out |
//!
//! It knows no kind of authority: there is one machine for each. What kinds differ in is data of the authority.
//!
//! Every change goes `SaveJournal` first and `Publish` second, so that nothing becomes visible which a restart would
//! not find again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::links::{Link, Links};
use super::material::Material;
use super::policy::LifePolicy;
use super::spread::{SpreadReports, SpreadStatus};
use signet_certs::authority::AuthorityId;
use signet_certs::signer::SignatureAlgorithm;

/// How far `notBefore` may lie ahead before another authority is looked for: what a clock within its tolerance of five minutes can
/// leave, less the two that `notBefore` is set back.
const EARLY: Duration = Duration::from_secs(180);

/// The author of what happens by itself.
pub(crate) const TIMER: &str = "timer";

/// What makes a prepared authority take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Activation {
    /// Five sixths of the active one's life are over, and it has spread.
    OnSchedule,
    /// It has spread: an admin asked for a rotation.
    WhenSpread,
    /// It is published: an admin forced it, or nothing else can sign.
    AtOnce,
}

/// Where an authority stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthorityState {
    /// Spreading; waits for its activation.
    Prepared {
        /// What it waits for.
        activation: Activation,
    },
    /// The one that signs leaves.
    Active,
    /// Signs its CRL until its last leaf is gone.
    Old {
        /// No leaf of it is known to live at this moment or later.
        leaves_until: SystemTime,
        /// When the ledger confirmed that no leaf lives; a CRL with `thisUpdate` from here on is its last.
        drained_at: Option<SystemTime>,
    },
}

impl AuthorityState {
    /// The state's name in journals, tables and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Prepared { .. } => "prepared",
            Self::Active => "active",
            Self::Old { .. } => "old",
        }
    }
}

/// When an authority was first in a published bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Introduced {
    /// The sequence number of that bundle, or of the first one seen after a lost journal write.
    pub sequence: u64,
    /// When it was published.
    pub at: SystemTime,
}

/// An authority as the machine sees it: a key, and for how long it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewAuthority {
    /// Names the key.
    pub id: AuthorityId,
    /// What the key signs with.
    pub algorithm: SignatureAlgorithm,
    /// `notBefore`.
    pub not_before: SystemTime,
    /// `notAfter`.
    pub not_after: SystemTime,
    /// Whether it may go only once a list of it is out that is later than its last leaf: see [`Material::signs_list`].
    pub signs_list: bool,
    /// What readers get of it; the machine does not look into it.
    pub material: Material,
}

/// One authority of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityRecord {
    /// Key, dates, material.
    pub authority: NewAuthority,
    /// Where it stands.
    pub state: AuthorityState,
    /// First publication; absent until the publisher has reported it.
    pub introduced: Option<Introduced>,
    /// The longest leaf TTL that was ever in use while this one could sign: its CRLs and its retirement go by it.
    pub longest_leaf_ttl: Duration,
    /// Who wanted it last: [`TIMER`] or an admin. For the audit log.
    pub author: Arc<str>,
}

impl AuthorityRecord {
    /// Names the key.
    pub(crate) fn id(&self) -> AuthorityId {
        self.authority.id
    }

    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        now >= self.authority.not_after
    }

    /// Whether it was made while the clock was ahead. Waiting out a few minutes costs less than another authority.
    pub(super) fn is_early(&self, now: SystemTime) -> bool {
        self.authority.not_before > now + EARLY
    }

    /// Whether nothing can be signed under it, for its dates.
    pub(super) fn is_useless(&self, now: SystemTime) -> bool {
        self.is_over(now) || self.is_early(now)
    }
}

/// All authorities of one kind, oldest first. This is what the journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthoritySet {
    pub(super) authorities: Vec<AuthorityRecord>,
    /// By which readers that know only earlier ones find the present ones. Of control authorities; of others there are none.
    pub(super) links: Links,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The process started with this journal.
    Start,
    /// Time has passed, or reports have come in.
    Tick,
    /// A key and its material were made, as [`Effect::GenerateKey`] asked.
    Prepared {
        /// The new one.
        authority: NewAuthority,
        /// What it waits for.
        activation: Activation,
        /// Who wanted it.
        author: Arc<str>,
        /// What the active one says of its key.
        link: Option<Link>,
    },
    /// The publisher serves a bundle.
    Published {
        /// Its sequence number.
        sequence: u64,
        /// The authorities in it, each with `thisUpdate` of its CRL if it has one.
        listed: Vec<(AuthorityId, Option<SystemTime>)>,
    },
    /// A successor shall be prepared if there is none, and take over.
    Rotate {
        /// Without waiting for it to spread.
        force: bool,
        /// What its key shall sign with; nothing leaves that to the settings.
        algorithm: Option<SignatureAlgorithm>,
        /// Who wants it.
        author: Arc<str>,
    },
    /// The ledger holds no unexpired leaf of this authority.
    LastLeafExpired {
        /// Whose.
        authority: AuthorityId,
    },
    /// The ledger holds a leaf of this authority that outlives what was assumed.
    LeafOutlives {
        /// Whose.
        authority: AuthorityId,
        /// `notAfter` of its last leaf.
        not_after: SystemTime,
    },
}

/// What the worker has to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write the new state. If this fails, the transition has not happened.
    SaveJournal,
    /// Show the new state to issuers and to the publisher.
    Publish,
    /// Drop the key. Its sealed copy goes in the transaction of the journal, so that no crash can leave it behind.
    DeleteKey(AuthorityId),
    /// Ask the ledger for the last leaf of an Old authority; answer with an event.
    CheckLastLeaf(AuthorityId),
    /// Make a key and its material; answer with [`Event::Prepared`].
    GenerateKey {
        /// What the key signs with.
        algorithm: SignatureAlgorithm,
        /// To be handed back.
        activation: Activation,
        /// To be handed back.
        author: Arc<str>,
    },
}

/// What an event leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    /// The state after it.
    pub next: AuthoritySet,
    /// What has to be done, in order.
    pub effects: Vec<Effect>,
}

/// Why an event is refused. The state stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There is already one.
    #[error("an authority is already prepared: {0}")]
    AlreadyPrepared(AuthorityId),
    /// The successor that is under way signs with something else than what is asked for.
    #[error(
        "the successor that is under way, {prepared}, signs with {algorithm}: ask again once it has taken over (`ca show`)"
    )]
    OtherAlgorithm {
        /// Which.
        prepared: AuthorityId,
        /// What it signs with.
        algorithm: SignatureAlgorithm,
    },
    /// The event names an authority that is not Old, or none of this set.
    #[error("authority {0} is not an old one of this set")]
    NotOld(AuthorityId),
}

/// The time of a step, with how far it is believed (design §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The time to sign by.
    pub now: SystemTime,
    /// Whether an authority may be replaced because its dates do not fit `now`.
    pub trusted: bool,
    /// The time by which timers rotate and authorities end; nothing of that happens while there is none.
    pub settled: Option<SystemTime>,
}

impl Moment {
    /// When the settled time, by which timers go and which may lie behind [`now`](Self::now), reaches `moment`; never as long as
    /// there is none.
    pub(super) fn when_settled(&self, moment: SystemTime) -> Option<SystemTime> {
        let left = moment.duration_since(self.settled?).unwrap_or_default();
        Some(self.now + left)
    }
}

/// What every step may look at besides the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// When the step is taken.
    pub at: Moment,
    /// The settings.
    pub policy: &'a LifePolicy,
    /// What agents report.
    pub reports: &'a SpreadReports,
}

impl AuthoritySet {
    /// The authorities, oldest first.
    pub(crate) fn authorities(&self) -> &[AuthorityRecord] {
        &self.authorities
    }

    /// What leads from earlier authorities to these.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// The authority with this id.
    pub(crate) fn get(&self, id: AuthorityId) -> Option<&AuthorityRecord> {
        self.authorities.iter().find(|record| record.id() == id)
    }

    /// The authority that signs leaves. It may be past its end; then nothing signs.
    pub(crate) fn active(&self) -> Option<&AuthorityRecord> {
        self.authorities
            .iter()
            .find(|record| record.state == AuthorityState::Active)
    }

    /// The authority that waits to take over.
    pub(crate) fn prepared(&self) -> Option<&AuthorityRecord> {
        self.authorities
            .iter()
            .find(|record| matches!(record.state, AuthorityState::Prepared { .. }))
    }

    /// How far the prepared authority has spread; none while there is none or it is not published.
    pub(crate) fn spread_status(&self, context: &Context<'_>) -> Option<SpreadStatus> {
        let Introduced { sequence, at } = self.prepared()?.introduced?;
        Some(SpreadStatus {
            sequence,
            confirmed: context.reports.confirmed(sequence),
            live: context.reports.live(),
            not_before: at + context.policy.spread(),
            at_latest: at + context.policy.spread_max(),
        })
    }
}
