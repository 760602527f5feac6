//! Bounded work, shared fairly: a flood of one caller is refused and leaves room for the others.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use signet_runtime::sync::Mutex;

/// When a refused caller should come back.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Counts items under way, in all and per caller: an agent, or an address.
#[derive(Debug)]
pub(crate) struct Admission<K: Eq + Hash> {
    total: usize,
    per_caller: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    total: usize,
    by_caller: HashMap<K, usize>,
}

/// Items that may be worked on until this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted<K: Eq + Hash> {
    admission: Arc<Admission<K>>,
    caller: K,
    items: usize,
}

impl<K: Eq + Hash + Clone> Admission<K> {
    /// At most `total` items under way, `per_caller` of them for one caller.
    #[must_use]
    pub(crate) fn new(total: usize, per_caller: usize) -> Arc<Self> {
        let state = State {
            total: 0,
            by_caller: HashMap::new(),
        };
        Arc::new(Self {
            total,
            per_caller,
            state: Mutex::new(state),
        })
    }

    /// Takes `items` places, or none: an RPC then answers `RESOURCE_EXHAUSTED` with [`RETRY_AFTER`].
    #[must_use]
    pub(crate) fn admit(self: &Arc<Self>, caller: &K, items: usize) -> Option<Admitted<K>> {
        let mut state = self.state.lock();
        let mine = state.by_caller.get(caller).copied().unwrap_or(0);
        if state.total + items > self.total || mine + items > self.per_caller {
            return None;
        }
        state.total += items;
        state.by_caller.insert(caller.clone(), mine + items);
        Some(Admitted {
            admission: self.clone(),
            caller: caller.clone(),
            items,
        })
    }
}

impl<K: Eq + Hash> Drop for Admitted<K> {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.total -= self.items;
        if let Some(mine) = state.by_caller.get_mut(&self.caller) {
            *mine -= self.items;
            if *mine == 0 {
                state.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> String {
        name.to_owned()
    }

    #[test]
    fn one_caller_cannot_take_every_place() {
        let admission = Admission::new(10, 6);
        let greedy = admission.admit(&agent("a"), 6).unwrap();
        assert!(admission.admit(&agent("a"), 1).is_none());
        let other = admission.admit(&agent("b"), 4).unwrap();
        assert!(admission.admit(&agent("c"), 1).is_none(), "the total is bounded");
        drop(greedy);
        assert!(admission.admit(&agent("c"), 6).is_some());
        drop(other);
        assert!(
            admission.state.lock().by_caller.is_empty(),
            "nothing is remembered of idle callers"
        );
    }
}
