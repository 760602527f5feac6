//! What agents report about the bundle they hold, and how far a new authority has spread by it.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// The live agents, connected or not, and the bundle sequence each has reported. Expired and denied agents are left out by
/// whoever fills this in; an agent that has not reported yet stands at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpreadReports {
    /// Sequence by agent (its SPIFFE ID, as text).
    pub agents: BTreeMap<String, u64>,
}

impl SpreadReports {
    /// How many agents are live.
    pub(crate) fn live(&self) -> usize {
        self.agents.len()
    }

    /// The live agents that have not reported the bundle of `sequence` or a later one.
    pub(crate) fn waited_for(&self, sequence: u64) -> impl Iterator<Item = &str> {
        let behind = self
            .agents
            .iter()
            .filter(move |(_, reported)| **reported < sequence);
        behind.map(|(agent, _)| agent.as_str())
    }

    /// How many live agents hold the bundle of `sequence` or a later one.
    pub(crate) fn confirmed(&self, sequence: u64) -> usize {
        self.agents
            .values()
            .filter(|reported| **reported >= sequence)
            .count()
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
        let agents = [("a", 7), ("b", 5), ("c", 0)].map(|(agent, sequence)| (agent.to_owned(), sequence));
        let reports = SpreadReports {
            agents: agents.into(),
        };
        assert_eq!(
            (reports.live(), reports.confirmed(6), reports.confirmed(0)),
            (3, 1, 3)
        );
    }
}
