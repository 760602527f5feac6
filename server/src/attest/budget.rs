//! How many calls attestation may make to an API server, in all and for the agents of one node.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Nodes told apart; those beyond share one bucket. A token names its node under the cluster's signature, so nobody
/// makes nodes up.
const NODES: usize = 16_384;
/// What is left of all calls for one node while others need them too: a quarter, but never less than this.
const LEAST_PER_SECOND: u32 = 10;
const LEAST_BURST: u32 = 20;

/// Token buckets: `burst` calls at once, `per_second` on average, in all. A node that has used up its share goes on
/// only while half of all calls are unused, so one bad agent leaves the others enough. Over it a caller is told when to
/// come back.
#[derive(Debug)]
pub(super) struct Budget {
    all: Rate,
    of_node: Rate,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: f64,
    burst: f64,
}

#[derive(Debug)]
struct State {
    all: Bucket,
    nodes: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    available: f64,
    filled_at: Instant,
}

impl Rate {
    fn full(self, now: Instant) -> Bucket {
        Bucket {
            available: self.burst,
            filled_at: now,
        }
    }

    fn fill(self, bucket: &mut Bucket, now: Instant) {
        let gained = now.duration_since(bucket.filled_at).as_secs_f64() * self.per_second;
        bucket.available = (bucket.available + gained).min(self.burst);
        bucket.filled_at = now;
    }

    /// How long until the bucket holds `wanted`.
    fn wait(self, bucket: &Bucket, wanted: f64) -> Duration {
        let missing = (wanted - bucket.available).max(0.0) / self.per_second;
        Duration::from_secs_f64(missing).max(Duration::from_millis(10))
    }
}

impl Budget {
    /// Full buckets. Rates below one call per second count as one.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let share = |all: u32, least: u32| f64::from((all / 4).max(least.min(all)).max(1));
        let all = Rate {
            per_second: f64::from(per_second.max(1)),
            burst: f64::from(burst.max(1)),
        };
        Self {
            all,
            of_node: Rate {
                per_second: share(per_second, LEAST_PER_SECOND),
                burst: share(burst, LEAST_BURST),
            },
            state: Mutex::new(State {
                all: all.full(Instant::now()),
                nodes: HashMap::new(),
            }),
        }
    }

    /// Takes one call for the agent of a node, or says how long until there is one.
    pub(super) fn take(&self, node_uid: &str) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { all, nodes } = &mut *state;
        let now = Instant::now();
        self.all.fill(all, now);
        let mine = self.bucket(nodes, node_uid, now);
        if all.available < 1.0 {
            return Err(self.all.wait(all, 1.0));
        }
        if mine.available >= 1.0 {
            mine.available -= 1.0;
        } else if all.available < self.all.burst / 2.0 + 1.0 {
            return Err(self.of_node.wait(mine, 1.0));
        }
        all.available -= 1.0;
        Ok(())
    }

    fn bucket<'a>(
        &self,
        nodes: &'a mut HashMap<String, Bucket>,
        node_uid: &str,
        now: Instant,
    ) -> &'a mut Bucket {
        if nodes.len() >= NODES && !nodes.contains_key(node_uid) {
            // A full bucket is as good as none.
            nodes.retain(|_, bucket| {
                self.of_node.fill(bucket, now);
                bucket.available < self.of_node.burst
            });
        }
        let name = if nodes.len() < NODES || nodes.contains_key(node_uid) {
            node_uid
        } else {
            ""
        };
        let bucket = nodes
            .entry(name.to_owned())
            .or_insert_with(|| self.of_node.full(now));
        self.of_node.fill(bucket, now);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate_holds() {
        let budget = Budget::new(10, 3);
        for _ in 0..3 {
            assert_eq!(budget.take("a"), Ok(()));
        }
        let wait = budget.take("a").unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        tokio::time::advance(wait).await;
        assert_eq!(budget.take("a"), Ok(()));
        assert!(budget.take("a").is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..10).filter(|_| budget.take("a").is_ok()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_uses_what_others_leave_and_never_all_of_it() {
        let budget = Budget::new(200, 400);
        let taken = |node: &str| (0..10_000).take_while(|_| budget.take(node).is_ok()).count();
        assert_eq!(taken("bad"), 200, "half of all calls, its own share among them");
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            taken("bad");
            assert!(budget.take("good").is_ok(), "a flood leaves room for the others");
        }
        assert!(taken("late") >= 100, "with their whole burst");
    }
}
