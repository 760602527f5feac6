//! What agents report about the bundle they hold, and how far a new authority has spread by it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::id::SpiffeId;

/// The live agents, connected or not, and the bundle sequence each has reported. Expired and denied agents are left out by
/// whoever fills this in; an agent that has not reported yet stands at 0. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpreadReports {
    agents: Arc<HashMap<SpiffeId, u64>>,
    /// How many agents have reported which sequence.
    counts: Arc<BTreeMap<u64, usize>>,
}

impl SpreadReports {
    /// How many agents are live.
    pub(crate) fn live(&self) -> usize {
        self.agents.len()
    }

    /// What a live agent has reported.
    pub(crate) fn reported(&self, agent: &SpiffeId) -> Option<u64> {
        self.agents.get(agent).copied()
    }

    /// The live agents that have not reported the bundle of `sequence` or a later one.
    pub(crate) fn waited_for(&self, sequence: u64) -> impl Iterator<Item = &SpiffeId> {
        let all = self.agents.iter();
        all.filter(move |(_, reported)| **reported < sequence)
            .map(|(agent, _)| agent)
    }

    /// How many live agents hold the bundle of `sequence` or a later one.
    pub(crate) fn confirmed(&self, sequence: u64) -> usize {
        self.counts.range(sequence..).map(|(_, agents)| agents).sum()
    }
}

impl FromIterator<(SpiffeId, u64)> for SpreadReports {
    fn from_iter<I: IntoIterator<Item = (SpiffeId, u64)>>(agents: I) -> Self {
        let agents: HashMap<_, _> = agents.into_iter().collect();
        let mut counts = BTreeMap::new();
        for reported in agents.values() {
            *counts.entry(*reported).or_default() += 1;
        }
        Self {
            agents: Arc::new(agents),
            counts: Arc::new(counts),
        }
    }
}

impl PartialEq for SpreadReports {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.agents, &other.agents) || self.agents == other.agents
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
        now >= self.at_latest || (now >= self.not_before && self.confirmed == self.live)
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
}
