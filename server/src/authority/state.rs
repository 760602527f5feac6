//! The authority machine, pure: its words. The steps between them are in `step.rs`: `(state, event, now) → (state,
//! effects)`. The worker carries the effects out.
//!
//! | state | in the bundle | signs | leaves by |
//! |---|---|---|---|
//! | Prepared | yes | its own CRL | activation, once it has spread |
//! | Active (exactly one) | yes | leaves, CRL | activation of another |
//! | Old | yes | CRL | its last leaf has expired and, where it has a CRL, one more is out |
//! | Tainted | yes, marked | CRL | the same, or it is revoked: then at once, and its id is remembered as departed; in an emergency after its grace |
//!
//! It knows no kind of authority: there is one machine for each. What kinds differ in is data of the authority.
//!
//! Every change goes `SaveJournal` first and `Publish` second, so that nothing becomes visible which a restart would
//! not find again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::departed::Departed;
use super::links::{Link, Links};
use super::material::Material;
pub(crate) use super::moment::{Context, Moment};
use super::operation::{Operations, Order, Verb};
pub(crate) use super::refused::Refused;
use super::spread::SpreadStatus;
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
    /// Those that are connected have it, or were waited for long enough: a key of those before it is stolen.
    InEmergency,
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
    /// As Old, and what it has signed is replaced everywhere.
    Tainted {
        /// As of an Old one.
        leaves_until: SystemTime,
        /// As of an Old one.
        drained_at: Option<SystemTime>,
        /// Sequence of the first bundle that was published with this mark.
        shown: Option<u64>,
        /// It is distrusted: then it leaves every bundle, whoever has reported.
        out_at: Option<SystemTime>,
    },
}

impl AuthorityState {
    /// The state's name in journals, tables and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Prepared { .. } => "prepared",
            Self::Active => "active",
            Self::Old { .. } => "old",
            Self::Tainted { .. } => "tainted",
        }
    }

    /// Of one that signs only its list now: when no leaf of it is known to live, and when the ledger confirmed it.
    pub(super) fn end(&self) -> Option<(SystemTime, Option<SystemTime>)> {
        match self {
            Self::Old {
                leaves_until,
                drained_at,
            }
            | Self::Tainted {
                leaves_until,
                drained_at,
                ..
            } => Some((*leaves_until, *drained_at)),
            Self::Prepared { .. } | Self::Active => None,
        }
    }

    /// Its key is taken to be stolen: when it leaves every bundle.
    pub(crate) const fn out_at(&self) -> Option<SystemTime> {
        match self {
            Self::Tainted { out_at, .. } => *out_at,
            _ => None,
        }
    }

    /// Whether it may sign leaves, now or later.
    pub(super) fn is_in_service(&self) -> bool {
        self.end().is_none()
    }
}

/// When an authority came to where it stood or stands. For people: nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Name of the state.
    pub state: &'static str,
    /// Since when.
    pub at: SystemTime,
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
    /// How it came to stand where it does, oldest first, as far as is known.
    pub history: Vec<Turn>,
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
    /// What left for good.
    pub(super) departed: Departed,
    /// What admins have asked for.
    pub(super) operations: Operations,
}

/// What the publisher serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The authorities, each with `thisUpdate` of its CRL if it has one.
    pub listed: Vec<(AuthorityId, Option<SystemTime>)>,
    /// Those of them that are marked as tainted.
    pub tainted: Vec<AuthorityId>,
    /// Those that are named as departed.
    pub departed: Vec<AuthorityId>,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The process started with this journal.
    Start,
    /// Time has passed, or reports have come in.
    Tick,
    /// A key and its material were made, as [`Effect::GenerateKey`](super::transition::Effect::GenerateKey) asked.
    Prepared {
        /// The new one.
        authority: NewAuthority,
        /// What it waits for.
        activation: Activation,
        /// Who wanted it.
        author: Arc<str>,
        /// What the active one says of its key.
        link: Option<Link>,
        /// What an admin wants of it.
        verb: Option<Verb>,
    },
    /// The publisher serves a bundle.
    Published {
        /// Its sequence number.
        sequence: u64,
        /// What is in it.
        shown: Shown,
    },
    /// An admin wants something.
    Ordered {
        /// What.
        order: Order,
        /// Who.
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

impl AuthoritySet {
    /// The authorities, oldest first.
    pub(crate) fn authorities(&self) -> &[AuthorityRecord] {
        &self.authorities
    }

    /// What leads from earlier authorities to these.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// What left for good.
    pub(crate) fn departed(&self) -> &Departed {
        &self.departed
    }

    /// What admins have asked for.
    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Sequence of the first bundle that was published with the mark of a tainted authority.
    pub(super) fn shown_tainted(&self, id: AuthorityId) -> Option<u64> {
        match self.get(id)?.state {
            AuthorityState::Tainted { shown, .. } => shown,
            _ => None,
        }
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
