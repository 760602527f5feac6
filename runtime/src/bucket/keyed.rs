//! A bucket for each caller, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::{Bucket, Rate};
use crate::sync::Mutex;

/// One bucket of the same rate for each caller, made full at its first use. Callers beyond `most` that draw at the same time share one
/// bucket; nobody who has his own loses it by that.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    most: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    own: HashMap<K, Bucket>,
    others: Option<Bucket>,
    /// The number of buckets at which full ones are looked for, so that looking costs little for each.
    sweep_at: usize,
}

impl<K: Eq + Hash> Buckets<K> {
    /// None drawn on yet.
    #[must_use]
    pub fn new(rate: Rate, most: usize) -> Self {
        let state = State {
            own: HashMap::new(),
            others: None,
            sweep_at: most.min(256),
        };
        Self {
            rate,
            most,
            state: Mutex::new(state),
        }
    }

    /// Takes one token of this caller.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&self, caller: K) -> Result<(), Duration> {
        self.draw(caller, |bucket, now| bucket.take(now))
    }

    /// Whether this caller has a token, without taking it: see [`spend`](Self::spend).
    ///
    /// # Errors
    /// How long until there is one.
    pub fn check(&self, caller: K) -> Result<(), Duration> {
        self.draw(caller, |bucket, now| bucket.check(now))
    }

    /// Takes so many tokens of this caller, also those that it does not have yet.
    pub fn spend(&self, caller: K, tokens: f64) {
        self.draw(caller, |bucket, now| bucket.spend(tokens, now));
    }

    fn draw<T>(&self, caller: K, draw: impl FnOnce(&mut Bucket, Instant) -> T) -> T {
        let (mut state, now) = (self.state.lock(), Instant::now());
        if state.own.len() >= state.sweep_at && !state.own.contains_key(&caller) {
            // A full bucket is as good as none.
            state.own.retain(|_, bucket| !bucket.is_full(now));
            state.sweep_at = (2 * state.own.len()).clamp(self.most.min(256), self.most);
        }
        let is_known = state.own.contains_key(&caller);
        let bucket = if is_known || state.own.len() < self.most {
            state
                .own
                .entry(caller)
                .or_insert_with(|| Bucket::full(self.rate, now))
        } else {
            state.others.get_or_insert_with(|| Bucket::full(self.rate, now))
        };
        draw(bucket, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 1.0,
        burst: 2.0,
    };

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_a_bucket_of_its_own_and_those_beyond_share_one() {
        let buckets = Buckets::new(RATE, 2);
        assert!(buckets.take("a").is_ok() && buckets.take("a").is_ok());
        assert_eq!(buckets.take("a"), Err(Duration::from_secs(1)));
        assert!(buckets.take("b").is_ok());
        assert!(buckets.take("c").is_ok() && buckets.take("d").is_ok());
        assert!(buckets.take("e").is_err(), "c and d have used it up");
        assert!(buckets.take("b").is_ok());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(buckets.take("e").is_ok() && buckets.take("e").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_draw_no_more_are_forgotten() {
        let buckets = Buckets::new(RATE, 1000);
        for caller in 0..100_000 {
            buckets.spend(caller, 1.0);
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!(buckets.state.lock().own.len() <= 512);
    }
}
