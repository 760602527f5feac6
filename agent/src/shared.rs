//! Values that several hold at the same time, found by key for as long as one of them does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use signet_runtime::sync::Mutex;

/// How many keys are remembered before forgotten ones are looked for.
const FIRST_SWEEP: usize = 256;

/// One value for each key that is in use.
#[derive(Debug)]
pub(crate) struct Shared<K, V> {
    known: Mutex<Known<K, V>>,
}

#[derive(Debug)]
struct Known<K, V> {
    values: HashMap<K, Weak<V>>,
    /// The number of keys at which forgotten ones are looked for: twice those in use, so that looking costs little for each.
    sweep_at: usize,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self {
            known: Mutex::new(Known {
                values: HashMap::new(),
                sweep_at: FIRST_SWEEP,
            }),
        }
    }
}

impl<K: Eq + Hash, V> Shared<K, V> {
    /// The value in use for this key, or a new one.
    pub(crate) fn of(&self, key: K, new: impl FnOnce() -> V) -> Arc<V> {
        let mut known = self.known.lock();
        if let Some(value) = known.values.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        if known.values.len() >= known.sweep_at {
            known.values.retain(|_, value| value.strong_count() > 0);
            known.sweep_at = (2 * known.values.len()).max(FIRST_SWEEP);
        }
        let value = Arc::new(new());
        known.values.insert(key, Arc::downgrade(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_use_has_one_value_and_a_forgotten_one_a_new() {
        let shared = Shared::default();
        let first = shared.of(1, || "first");
        assert!(Arc::ptr_eq(&first, &shared.of(1, || "second")));
        assert_eq!(*shared.of(2, || "other"), "other");
        drop(first);
        assert_eq!(*shared.of(1, || "second"), "second");
    }

    #[test]
    fn forgotten_keys_take_bounded_room_and_those_in_use_stay() {
        let shared = Shared::default();
        let held: Vec<_> = (0..1000).map(|key| shared.of(key, || key)).collect();
        for key in 1000..100_000 {
            shared.of(key, || key);
        }
        assert!(shared.known.lock().values.len() <= 2 * held.len());
        for (key, value) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(value, &shared.of(key, || 0)));
        }
    }
}
