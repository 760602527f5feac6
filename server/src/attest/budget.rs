//! How many calls attestation may make to an API server, in all and for the agents of one node.

use std::collections::HashMap;
use std::time::Duration;

use signet_runtime::bucket::{Bucket, Rate};
use signet_runtime::sync::Mutex;
use tokio::time::Instant;

/// Nodes told apart; those beyond share one bucket. A token names its node under the cluster's signature, so nobody
/// makes nodes up.
const NODES: usize = 16_384;
/// What is left of all calls for one node while others need them too: a quarter, but never less than this.
const LEAST_PER_SECOND: u32 = 10;
const LEAST_BURST: u32 = 20;
/// Shortest wait that anyone is told.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// Token buckets: `burst` calls at once, `per_second` on average, in all. A node that has used up its share goes on
/// only while half of all calls are unused, so one bad agent leaves the others enough. Over it a caller is told when to
/// come back.
#[derive(Debug)]
pub(super) struct Budget {
    of_node: Rate,
    /// With so many calls left, a node may go over its share.
    plenty: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    all: Bucket,
    nodes: HashMap<String, Bucket>,
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
            of_node: Rate {
                per_second: share(per_second, LEAST_PER_SECOND),
                burst: share(burst, LEAST_BURST),
            },
            plenty: all.burst / 2.0 + 1.0,
            state: Mutex::new(State {
                all: Bucket::full(all, Instant::now()),
                nodes: HashMap::new(),
            }),
        }
    }

    /// Takes one call for the agent of a node, or says how long until there is one.
    pub(super) fn take(&self, node_uid: &str) -> Result<(), Duration> {
        let mut state = self.state.lock();
        let taken = self.take_from(&mut state, node_uid, Instant::now());
        taken.map_err(|wait| wait.max(SHORTEST_WAIT))
    }

    fn take_from(&self, state: &mut State, node_uid: &str, now: Instant) -> Result<(), Duration> {
        let State { all, nodes } = state;
        let mine = self.bucket(nodes, node_uid, now);
        // Before the node pays for a call that is not to be had.
        all.check(now)?;
        match mine.take(now) {
            Err(wait) if all.available(now) < self.plenty => Err(wait),
            _ => all.take(now),
        }
    }

    fn bucket<'a>(
        &self,
        nodes: &'a mut HashMap<String, Bucket>,
        node_uid: &str,
        now: Instant,
    ) -> &'a mut Bucket {
        if nodes.len() >= NODES && !nodes.contains_key(node_uid) {
            // A full bucket is as good as none.
            nodes.retain(|_, bucket| !bucket.is_full(now));
        }
        let name = if nodes.len() < NODES || nodes.contains_key(node_uid) {
            node_uid
        } else {
            ""
        };
        nodes
            .entry(name.to_owned())
            .or_insert_with(|| Bucket::full(self.of_node, now))
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
