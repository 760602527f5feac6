//! One value for each key, for as long as somebody uses it: what several do about the same thing at the same time, they do once.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;

use crate::sync::Mutex;

/// The values that are in use. Bounded by its users.
#[derive(Debug)]
pub struct Keyed<K, V>(Mutex<HashMap<K, Arc<V>>>);

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, V: Default> Keyed<K, V> {
    /// The value of this key: that of whoever uses it already, else a new one.
    pub fn take(&self, key: K) -> Held<'_, K, V> {
        let value = Arc::clone(self.0.lock().entry(key.clone()).or_default());
        Held {
            all: self,
            key,
            value,
        }
    }

    /// Whether somebody uses this key.
    pub fn is_used(&self, key: &K) -> bool {
        self.0.lock().contains_key(key)
    }

    /// How many keys are in use.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value in use. The last one who lets go takes it along.
#[derive(Debug)]
pub struct Held<'a, K: Eq + Hash + Clone, V: Default> {
    all: &'a Keyed<K, V>,
    key: K,
    value: Arc<V>,
}

impl<K: Eq + Hash + Clone, V: Default> Held<'_, K, V> {
    /// Whoever takes this key from now on gets a new value; who has this one keeps it.
    pub fn end(&self) {
        let mut all = self.all.0.lock();
        if all
            .get(&self.key)
            .is_some_and(|value| Arc::ptr_eq(value, &self.value))
        {
            all.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash + Clone, V: Default> Deref for Held<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<K: Eq + Hash + Clone, V: Default> Drop for Held<'_, K, V> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        // Before it is counted: two that leave at once would count each other.
        drop(std::mem::take(&mut self.value));
        if all
            .get(&self.key)
            .is_some_and(|value| Arc::strong_count(value) == 1)
        {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn those_who_come_meanwhile_share_a_value_and_those_after_do_not() {
        let all = Keyed::<_, AtomicU32>::default();
        let (first, second) = (all.take("a"), all.take("a"));
        first.store(1, Ordering::Relaxed);
        drop(first);
        assert_eq!(second.load(Ordering::Relaxed), 1);
        second.end();
        let after = all.take("a");
        assert_eq!(after.load(Ordering::Relaxed), 0);
        drop(second);
        assert_eq!(all.len(), 1, "it is another's");
        drop(after);
        assert!(all.is_empty());
    }

    #[test]
    fn nothing_stays_behind_of_those_who_leave_at_once() {
        let all = Keyed::<_, AtomicU32>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|key| drop(all.take(key / 4))));
            }
        });
        assert!(all.is_empty(), "{} keys", all.len());
    }
}
