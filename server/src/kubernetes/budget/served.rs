//! When each node had its last turn, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The last turns of the nodes that had one most recently. All others count as if they had theirs when the last of them that is
/// forgotten had its own: whoever comes back after long is before everybody who was served meanwhile.
#[derive(Debug)]
pub(super) struct Served {
    most: usize,
    last: HashMap<Arc<str>, u64>,
    by_turn: BTreeMap<u64, Arc<str>>,
    forgotten: u64,
}

impl Served {
    /// Nobody yet; of `most` nodes it is remembered.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            last: HashMap::new(),
            by_turn: BTreeMap::new(),
            forgotten: 0,
        }
    }

    /// The number of its last turn.
    pub(super) fn last(&self, node: &str) -> u64 {
        self.last.get(node).copied().unwrap_or(self.forgotten)
    }

    /// It has the turn with this number, which is higher than all before.
    pub(super) fn note(&mut self, node: Arc<str>, turn: u64) {
        if let Some(before) = self.last.insert(Arc::clone(&node), turn) {
            self.by_turn.remove(&before);
        }
        self.by_turn.insert(turn, node);
        if self.by_turn.len() > self.most
            && let Some((turn, node)) = self.by_turn.pop_first()
        {
            self.last.remove(&node);
            self.forgotten = turn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_served_longest_ago_are_forgotten_and_come_before_all_others() {
        let mut served = Served::new(2);
        for (turn, node) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "d")] {
            served.note(node.into(), turn);
        }
        assert_eq!(["c", "d"].map(|node| served.last(node)), [4, 5]);
        assert_eq!(["a", "b", "new"].map(|node| served.last(node)), [3, 3, 3]);
        assert_eq!((served.last.len(), served.by_turn.len()), (2, 2));
    }
}
