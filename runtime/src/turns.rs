//! Turns at something that each caller may do at a rate: who comes too soon waits instead of being refused, in the order in which those
//! of his caller came, so whoever asks once beside one that asks without end has his turn like everybody.

use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::sleep;

use crate::bucket::{Buckets, Rate};
use crate::keyed::Keyed;

/// See the [module](self).
#[derive(Debug)]
pub struct Turns<K> {
    buckets: Buckets<K>,
    queues: Keyed<K, Queue>,
    most: usize,
}

/// Those of one caller who wait.
#[derive(Debug, Default)]
struct Queue {
    turn: tokio::sync::Mutex<()>,
    number: AtomicUsize,
}

/// As many of this caller wait as may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

/// One that waits, until this is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Nobody waits. `callers` are told apart at once; at most so many of one caller wait.
    #[must_use]
    pub fn new(rate: Rate, callers: usize, most: usize) -> Self {
        Self {
            buckets: Buckets::new(rate, callers),
            queues: Keyed::default(),
            most,
        }
    }

    /// Takes a token if there is one and nobody of this caller waits.
    #[must_use]
    pub fn at_once(&self, caller: &K) -> bool {
        !self.queues.is_used(caller) && self.buckets.take(caller.clone()).is_ok()
    }

    /// Waits for a token, and does `then` before the next of this caller has his turn. Whoever goes away waits no longer.
    ///
    /// # Errors
    /// [`Full`], at once.
    pub async fn wait<T>(&self, caller: K, then: impl Future<Output = T>) -> Result<T, Full> {
        let queue = self.queues.take(caller.clone());
        if queue.number.fetch_add(1, Ordering::Relaxed) >= self.most {
            queue.number.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        let _waits = Waits(&queue.number);
        let _turn = queue.turn.lock().await;
        while let Err(wait) = self.buckets.take(caller.clone()) {
            sleep(wait).await;
        }
        Ok(then.await)
    }

    /// Takes more than the one token, also those that are not there yet.
    pub fn spend(&self, caller: K, tokens: f64) {
        self.buckets.spend(caller, tokens);
    }

    /// What was taken is not used.
    pub fn give_back(&self, caller: K) {
        self.buckets.spend(caller, -1.0);
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::{JoinSet, yield_now};
    use tokio::time::Instant;

    use super::*;

    const RATE: Rate = Rate {
        per_second: 100.0,
        burst: 10.0,
    };

    /// All of one caller begin again as soon as they are done.
    #[tokio::test(start_paused = true)]
    async fn whoever_comes_beside_those_who_come_without_end_waits_for_those_before_him_alone() {
        let turns = Arc::new(Turns::new(RATE, 8, 400));
        let mut others = JoinSet::new();
        for _ in 0..300 {
            let turns = Arc::clone(&turns);
            others.spawn(async move { while turns.wait(1, ready(())).await.is_ok() {} });
        }
        for _ in 0..10 {
            let asked = Instant::now();
            turns.wait(1, ready(())).await.unwrap();
            let waited = asked.elapsed();
            assert!(waited < Duration::from_millis(3_500), "{waited:?}");
        }
        let asked = Instant::now();
        turns.wait(2, ready(())).await.unwrap();
        assert_eq!(asked.elapsed(), Duration::ZERO, "another caller");
        others.shutdown().await;
        assert!(turns.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_a_number_the_newest_is_refused_and_all_before_it_have_their_turn() {
        let turns = Arc::new(Turns::new(RATE, 8, 20));
        while turns.at_once(&1) {}
        let mut waiting = JoinSet::new();
        for _ in 0..20 {
            let turns = Arc::clone(&turns);
            waiting.spawn(async move { turns.wait(1, ready(())).await });
        }
        while turns.queues.take(1).number.load(Ordering::Relaxed) < 20 {
            yield_now().await;
        }
        assert_eq!(turns.wait(1, ready(())).await, Err(Full));
        assert!(!turns.at_once(&1), "nobody goes before those who wait");
        while let Some(waited) = waiting.join_next().await {
            waited.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_there_for_the_next() {
        let turns = Turns::new(RATE, 8, 20);
        while turns.at_once(&1) {}
        turns.give_back(1);
        assert!(turns.at_once(&1));
        assert!(!turns.at_once(&1));
    }
}
