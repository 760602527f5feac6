//! What agents report about the bundle they hold, and how far a new authority has spread by it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;

/// What an agent says its workloads hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InUse {
    /// Sequence of the bundle that it held when it said so.
    pub sequence: u64,
    /// Current certificates by authority.
    pub authorities: Vec<(AuthorityId, u32)>,
}

/// What is known of one live agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Sequence of the bundle that it has reported.
    pub reported: u64,
    /// Authority of the certificate that it uses; nothing while that is not the newest that it was given.
    pub own: Option<AuthorityId>,
    /// Nothing as long as it has not spoken since this server's start, or does not know itself: "not known" is not "none".
    pub in_use: Option<InUse>,
    /// Its trust stream is open.
    pub connected: bool,
}

/// Why an agent keeps an authority from being taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// So many certificates of it are current there, its own counted.
    Certificates(u32),
    /// It has not said since.
    Unknown,
}

/// What live agents use of an authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Agents that report certificates of it.
    pub agents: usize,
    /// How many these are.
    pub certificates: u64,
    /// Agents of which that is not known.
    pub unknown: usize,
}

impl Uses {
    /// Whether it is known that nobody uses it.
    pub(crate) const fn is_none(&self) -> bool {
        self.agents == 0 && self.unknown == 0
    }
}

/// The live agents, connected or not, and what each has reported. Expired and denied agents are left out by whoever fills this in; an
/// agent that has not reported yet stands at 0. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpreadReports {
    agents: Arc<HashMap<SpiffeId, Holds>>,
    /// Those whose own pod is gone: nobody waits for them to hear of anything, and what their workloads use is in use.
    leaving: Arc<HashMap<SpiffeId, Holds>>,
    /// How many agents have reported which sequence.
    counts: Arc<BTreeMap<u64, usize>>,
}

impl SpreadReports {
    /// With those whose own pod is gone, and whose certificate has not ended.
    pub(crate) fn leaving(self, agents: HashMap<SpiffeId, Holds>) -> Self {
        Self {
            leaving: Arc::new(agents),
            ..self
        }
    }

    /// How many agents may have workloads that hold something, those included that are being replaced.
    pub(crate) fn holders(&self) -> usize {
        self.agents.len() + self.leaving.len()
    }

    /// How many agents are live.
    pub(crate) fn live(&self) -> usize {
        self.agents.len()
    }

    /// What a live agent has reported.
    pub(crate) fn reported(&self, agent: &SpiffeId) -> Option<u64> {
        self.agents.get(agent).map(|holds| holds.reported)
    }

    /// The live agents that have not reported the bundle of `sequence` or a later one.
    pub(crate) fn waited_for(&self, sequence: u64) -> impl Iterator<Item = &SpiffeId> {
        let all = self.agents.iter();
        all.filter(move |(_, holds)| holds.reported < sequence)
            .map(|(agent, _)| agent)
    }

    /// Those of them that would hear of a later one at once.
    pub(crate) fn connected_without(&self, sequence: u64) -> impl Iterator<Item = &SpiffeId> {
        let behind = self
            .agents
            .iter()
            .filter(move |(_, holds)| holds.reported < sequence);
        behind
            .filter(|(_, holds)| holds.connected)
            .map(|(agent, _)| agent)
    }

    /// The live agents whose own certificate is of none of these authorities, or is not known to be.
    pub(crate) fn not_of(&self, authorities: &[AuthorityId]) -> impl Iterator<Item = &SpiffeId> {
        let others = self.agents.iter().filter(|(_, holds)| {
            let own = holds.own.as_ref();
            own.is_none_or(|own| !authorities.contains(own))
        });
        others.map(|(agent, _)| agent)
    }

    /// How many live agents hold the bundle of `sequence` or a later one.
    pub(crate) fn confirmed(&self, sequence: u64) -> usize {
        self.counts.range(sequence..).map(|(_, agents)| agents).sum()
    }

    /// The agents that use an authority, or of which that is not known, since the bundle of `sequence` is out; all where none is. One that
    /// is just being replaced is among them.
    pub(crate) fn users(
        &self,
        authority: AuthorityId,
        sequence: Option<u64>,
    ) -> impl Iterator<Item = (&SpiffeId, Use)> {
        let all = self.agents.iter().chain(self.leaving.iter());
        all.filter_map(move |(agent, holds)| Some((agent, holds.usage(authority, sequence)?)))
    }

    /// The same, counted.
    pub(crate) fn uses(&self, authority: AuthorityId, sequence: Option<u64>) -> Uses {
        let mut uses = Uses::default();
        for (_, usage) in self.users(authority, sequence) {
            match usage {
                Use::Unknown => uses.unknown += 1,
                Use::Certificates(count) => {
                    uses.agents += 1;
                    uses.certificates += u64::from(count);
                }
            }
        }
        uses
    }
}

impl Holds {
    fn usage(&self, authority: AuthorityId, sequence: Option<u64>) -> Option<Use> {
        let of_workloads = self.in_use.iter().flat_map(|in_use| &in_use.authorities);
        let of_it = of_workloads.filter(|(id, _)| *id == authority);
        let own = u32::from(self.own == Some(authority));
        let count = of_it.fold(own, |sum, (_, count)| sum.saturating_add(*count));
        let is_known = self.own.is_some()
            && self
                .in_use
                .as_ref()
                .is_some_and(|in_use| sequence.is_some_and(|sequence| in_use.sequence >= sequence));
        match count {
            0 if is_known => None,
            0 => Some(Use::Unknown),
            count => Some(Use::Certificates(count)),
        }
    }
}

impl FromIterator<(SpiffeId, Holds)> for SpreadReports {
    fn from_iter<I: IntoIterator<Item = (SpiffeId, Holds)>>(agents: I) -> Self {
        let agents: HashMap<_, _> = agents.into_iter().collect();
        let mut counts = BTreeMap::new();
        for holds in agents.values() {
            *counts.entry(holds.reported).or_default() += 1;
        }
        Self {
            agents: Arc::new(agents),
            leaving: Arc::default(),
            counts: Arc::new(counts),
        }
    }
}

/// Agents that use nothing of which anybody asks.
#[cfg(test)]
impl FromIterator<(SpiffeId, u64)> for SpreadReports {
    fn from_iter<I: IntoIterator<Item = (SpiffeId, u64)>>(agents: I) -> Self {
        let unused = |reported| Holds {
            reported,
            own: Some(AuthorityId::from_bytes([0; 20])),
            in_use: Some(InUse {
                sequence: reported,
                authorities: Vec::new(),
            }),
            connected: false,
        };
        let agents = agents.into_iter();
        agents
            .map(|(agent, reported)| (agent, unused(reported)))
            .collect()
    }
}

impl PartialEq for SpreadReports {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |one: &Arc<_>, other: &Arc<_>| Arc::ptr_eq(one, other) || one == other;
        is_same(&self.agents, &other.agents) && is_same(&self.leaving, &other.leaving)
    }
}

/// How far a prepared authority has spread. The figures are those "reported by agents", for that is what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpreadStatus {
    /// The bundle sequence that introduced the authority.
    pub sequence: u64,
    /// Live agents that reported this sequence or a later one.
    pub confirmed: usize,
    /// Live agents.
    pub live: usize,
    /// The authority signs no leaf before this moment (readers that never report).
    pub not_before: SystemTime,
    /// From this moment on silence no longer delays it.
    pub at_latest: SystemTime,
}

impl SpreadStatus {
    /// Whether the gate is open at `now`.
    pub(crate) fn is_open(&self, now: SystemTime) -> bool {
        now >= self.opens_at()
    }

    /// When it opens, if nobody reports before.
    pub(crate) fn opens_at(&self) -> SystemTime {
        if self.confirmed == self.live {
            self.not_before.min(self.at_latest)
        } else {
            self.at_latest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_over_live_agents() {
        let id = |agent: &str| SpiffeId::parse(&format!("spiffe://example.org/{agent}")).unwrap();
        let agents = [("a", 7), ("b", 5), ("c", 0)];
        let reports: SpreadReports = agents
            .map(|(agent, sequence)| (id(agent), sequence))
            .into_iter()
            .collect();
        assert_eq!(
            (reports.live(), reports.confirmed(6), reports.confirmed(0)),
            (3, 1, 3)
        );
        let mut behind: Vec<_> = reports.waited_for(6).collect();
        behind.sort();
        assert_eq!(behind, [&id("b"), &id("c")]);
        assert_eq!(
            (reports.reported(&id("b")), reports.reported(&id("d"))),
            (Some(5), None)
        );
    }

    /// Covers INV-8.
    #[test]
    fn an_authority_is_unused_only_when_every_agent_has_said_so_since() {
        let id = |agent: &str| SpiffeId::parse(&format!("spiffe://example.org/{agent}")).unwrap();
        let of = |byte| AuthorityId::from_bytes([byte; 20]);
        let holds = |sequence, own, authorities: &[(AuthorityId, u32)]| Holds {
            reported: sequence,
            own,
            in_use: Some(InUse {
                sequence,
                authorities: authorities.to_vec(),
            }),
            connected: true,
        };
        let silent = Holds {
            in_use: None,
            ..holds(7, Some(of(9)), &[])
        };
        let agents = [
            ("uses", holds(7, Some(of(9)), &[(of(1), 2), (of(2), 1)])),
            ("free", holds(7, Some(of(9)), &[(of(2), 1)])),
            ("before", holds(6, Some(of(9)), &[])),
            ("silent", silent),
            ("changing", holds(7, None, &[])),
            ("itself", holds(7, Some(of(1)), &[])),
        ];
        let reports: SpreadReports = agents
            .map(|(agent, holds)| (id(agent), holds))
            .into_iter()
            .collect();
        let expected = Uses {
            agents: 2,
            certificates: 3,
            unknown: 3,
        };
        assert_eq!(reports.uses(of(1), Some(7)), expected);
        assert_eq!(reports.uses(of(3), None).unknown, 6);
        let mut users: Vec<_> = reports.users(of(1), Some(7)).collect();
        users.sort_by_key(|(agent, _)| *agent);
        assert_eq!(users[0], (&id("before"), Use::Unknown));
        assert_eq!(users[4], (&id("uses"), Use::Certificates(2)));
        // One whose pod is gone hears nothing, and its workloads go on.
        let gone = HashMap::from([(
            id("gone"),
            holds(7, Some(of(9)), &[(of(1), u32::MAX), (of(1), 1)]),
        )]);
        let reports = reports.leaving(gone);
        assert_eq!((reports.live(), reports.holders()), (6, 7));
        assert_eq!(reports.uses(of(1), Some(7)).agents, 3);
        assert!(reports.waited_for(u64::MAX).all(|agent| *agent != id("gone")));
    }
}
