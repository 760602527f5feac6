//! An amount that several callers share, such as bytes of memory or items under way: each caller is sure of a share, and whoever needs
//! more takes it from a pool, up to a cap of its own. What one caller uses of the pool never touches another's share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::sync::Mutex;

/// How an amount is divided. All callers together use at most `pool` and one `share` for each of them, so their number has to be
/// bounded elsewhere where `share` is not zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Division {
    /// What each caller is sure of.
    pub share: usize,
    /// Most that one caller uses, its share included.
    pub cap: usize,
    /// What all callers use beyond their shares.
    pub pool: usize,
}

/// Who uses how much of it.
#[derive(Debug)]
pub struct Quota<K> {
    division: Division,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    pool: usize,
    used: HashMap<K, usize>,
}

/// An amount in use, until this is dropped.
#[derive(Debug)]
#[must_use = "the amount is free again when this is dropped"]
pub struct Held<K: Clone + Eq + Hash> {
    quota: Arc<Quota<K>>,
    caller: K,
    amount: usize,
}

impl<K: Clone + Eq + Hash> Quota<K> {
    /// All of it free.
    #[must_use]
    pub fn new(division: Division) -> Arc<Self> {
        let state = State {
            pool: 0,
            used: HashMap::new(),
        };
        Arc::new(Self {
            division,
            state: Mutex::new(state),
        })
    }

    /// This amount for the caller, or nothing.
    #[must_use]
    pub fn take(self: &Arc<Self>, caller: &K, amount: usize) -> Option<Held<K>> {
        let mut held = Held {
            quota: self.clone(),
            caller: caller.clone(),
            amount: 0,
        };
        held.grow(amount).then_some(held)
    }

    /// What all callers use together.
    #[must_use]
    pub fn used(&self) -> usize {
        self.state.lock().used.values().sum()
    }

    fn beyond_share(&self, used: usize) -> usize {
        used.saturating_sub(self.division.share)
    }

    fn change(&self, state: &mut State<K>, caller: &K, before: usize, after: usize) {
        state.pool = state.pool + self.beyond_share(after) - self.beyond_share(before);
        if after == 0 {
            state.used.remove(caller);
        } else {
            state.used.insert(caller.clone(), after);
        }
    }
}

impl<K: Clone + Eq + Hash> Held<K> {
    /// So much more; `false` where there is not, and nothing changes then.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let (quota, mut state) = (&self.quota, self.quota.state.lock());
        let before = state.used.get(&self.caller).copied().unwrap_or(0);
        let after = before.saturating_add(more);
        let pool = state.pool + quota.beyond_share(after) - quota.beyond_share(before);
        let takes_of_pool = quota.beyond_share(after) > quota.beyond_share(before);
        if after > quota.division.cap || (takes_of_pool && pool > quota.division.pool) {
            return false;
        }
        quota.change(&mut state, &self.caller, before, after);
        self.amount += more;
        true
    }

    /// Gives so much back, at most what is held.
    pub fn shrink(&mut self, less: usize) {
        let (quota, mut state) = (&self.quota, self.quota.state.lock());
        let less = less.min(self.amount);
        let before = state.used.get(&self.caller).copied().unwrap_or(0);
        quota.change(&mut state, &self.caller, before, before.saturating_sub(less));
        self.amount -= less;
    }

    /// How much is held.
    #[must_use]
    pub const fn amount(&self) -> usize {
        self.amount
    }
}

impl<K: Clone + Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        self.shrink(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_is_sure_and_a_cap_holds() {
        let quota = Quota::new(Division {
            share: 2,
            cap: 8,
            pool: 10,
        });
        let greedy = quota.take(&"a", 8).unwrap();
        assert!(quota.take(&"a", 1).is_none(), "the cap");
        let other = quota.take(&"b", 6).unwrap();
        assert!(quota.take(&"b", 1).is_none(), "the pool is used up");
        let mut sure = quota.take(&"c", 2).unwrap();
        assert!(!sure.grow(1));
        assert_eq!((quota.used(), sure.amount()), (16, 2));
        drop(greedy);
        assert!(sure.grow(6));
        sure.shrink(7);
        drop((other, sure));
        assert!(quota.state.lock().used.is_empty() && quota.state.lock().pool == 0);
    }

    proptest! {
        #[test]
        fn what_is_in_use_is_what_is_held(steps in proptest::collection::vec((0_u8..4, 0_usize..9, any::<bool>()), 1..200)) {
            let division = Division { share: 3, cap: 12, pool: 20 };
            let quota = Quota::new(division);
            let mut held: Vec<Held<u8>> = Vec::new();
            for (caller, amount, takes) in steps {
                let mine: usize = held.iter().filter(|held| held.caller == caller).map(Held::amount).sum();
                if takes {
                    match quota.take(&caller, amount) {
                        Some(taken) => held.push(taken),
                        None => prop_assert!(mine + amount > division.share, "the share is sure"),
                    }
                } else if let Some(one) = held.iter_mut().find(|held| held.caller == caller) {
                    one.shrink(amount);
                }
                let all: usize = held.iter().map(Held::amount).sum();
                prop_assert_eq!(quota.used(), all);
                let pool: usize = quota.state.lock().used.values().map(|used| used.saturating_sub(division.share)).sum();
                prop_assert_eq!(quota.state.lock().pool, pool);
                prop_assert!(pool <= division.pool);
            }
        }
    }
}
