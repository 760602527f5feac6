//! Whose call is next. Pure: the caller says what time it is.
//!
//! Calls are of two kinds, and within its kind each node has one place in the line, however many of its calls wait: next is the node
//! whose last turn is longest ago. So nodes that ask without end take turns (max-min fairness), one that asks now and then is
//! next at once, and nobody starves. While both kinds wait, one call in four is of a node's own attestation. No call waits
//! while another may be made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::bucket::{Bucket, Rate};
use tokio::time::Instant;

use super::served::Served;

/// Calls for pods that are made for each one for a node, while both wait.
pub(super) const PODS_PER_NODE: u8 = 3;
/// Nodes of one kind whose last turns are remembered. A token names its node under the cluster's signature, so nobody makes nodes up.
const REMEMBERED: usize = 16_384;

/// What timers count by: a part of a call may be missing that is gained in no time at all.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// What a call is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A pod that wants a certificate.
    Pods,
    /// An agent that wants one, for its node.
    Nodes,
}

impl Kind {
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Pods => 0,
            Self::Nodes => 1,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Pods => Self::Nodes,
            Self::Nodes => Self::Pods,
        }
    }

    /// Its part of all calls while the other kind waits too.
    fn part(self) -> f64 {
        let (pods, all) = (f64::from(PODS_PER_NODE), f64::from(PODS_PER_NODE) + 1.0);
        match self {
            Self::Pods => pods / all,
            Self::Nodes => 1.0 / all,
        }
    }
}

/// Calls that wait, each with a `W`, and what of the rate is left.
///
/// A call is made after at most so many others, with `pods` and `nodes` that wait of either kind when it comes, and none of its own
/// node before it: for a pod `pods + (pods + 1).div_ceil(3)`, for a node `nodes + 3 * (nodes + 1)`.
#[derive(Debug)]
pub(super) struct Queue<W> {
    per_second: f64,
    calls: Bucket,
    lines: [Line<W>; 2],
    /// Calls for pods since the last one for a node, as far as they count.
    pods_since: u8,
    /// Numbers calls and turns, in the order in which they come.
    last: u64,
}

/// Calls of one kind.
#[derive(Debug)]
struct Line<W> {
    nodes: HashMap<Arc<str>, Node<W>>,
    order: BTreeMap<Rank, Arc<str>>,
    waiting: usize,
    served: Served,
}

#[derive(Debug)]
struct Node<W> {
    rank: Rank,
    calls: BTreeMap<u64, W>,
}

/// The lowest is next.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    last_turn: u64,
    waits_since: u64,
}

impl<W> Queue<W> {
    /// Nobody waits, and nothing is used up.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self {
            per_second: rate.per_second,
            calls: Bucket::full(rate, now),
            lines: [Line::new(), Line::new()],
            pods_since: 0,
            last: 0,
        }
    }

    /// A call of this node waits from now on. Returns its number.
    pub(super) fn join(&mut self, kind: Kind, node: &str, call: W) -> u64 {
        let number = self.number();
        self.lines[kind.index()].join(node, number, call);
        number
    }

    /// The call with this number waits no longer, if it still did.
    pub(super) fn leave(&mut self, kind: Kind, node: &str, number: u64) {
        self.lines[kind.index()].leave(node, number);
    }

    /// Takes the next call out of the queue, if one waits and may be made at this moment.
    pub(super) fn next(&mut self, now: Instant) -> Option<W> {
        let kind = self.next_kind()?;
        self.calls.take(now).ok()?;
        self.pods_since = match kind {
            Kind::Pods => (self.pods_since + 1).min(PODS_PER_NODE),
            Kind::Nodes => 0,
        };
        let turn = self.number();
        self.lines[kind.index()].take(turn)
    }

    /// How long until the next call may be made; none while nobody waits.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        self.next_kind()?;
        let missing = self.calls.check(now).err();
        Some(missing.map_or(Duration::ZERO, |wait| wait.max(SHORTEST_PAUSE)))
    }

    /// How long it takes at most until another call of this node has its turn, if as many wait as now.
    pub(super) fn turn_after(&self, kind: Kind, node: &str) -> Duration {
        let turns = self.lines[kind.index()]
            .turns_before_another(node)
            .saturating_add(1);
        let turns = f64::from(u32::try_from(turns).unwrap_or(u32::MAX));
        let is_alone = self.lines[kind.other().index()].waiting == 0;
        let part = if is_alone { 1.0 } else { kind.part() };
        Duration::try_from_secs_f64(turns / (self.per_second * part)).unwrap_or(Duration::MAX)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn next_kind(&self) -> Option<Kind> {
        match self.lines.each_ref().map(|line| line.waiting > 0) {
            [false, false] => None,
            [true, true] if self.pods_since >= PODS_PER_NODE => Some(Kind::Nodes),
            [true, _] => Some(Kind::Pods),
            [false, true] => Some(Kind::Nodes),
        }
    }
}

impl<W> Line<W> {
    fn new() -> Self {
        Self {
            nodes: HashMap::new(),
            order: BTreeMap::new(),
            waiting: 0,
            served: Served::new(REMEMBERED),
        }
    }

    fn join(&mut self, node: &str, number: u64, call: W) {
        self.waiting += 1;
        if let Some(node) = self.nodes.get_mut(node) {
            node.calls.insert(number, call);
            return;
        }
        let rank = Rank {
            last_turn: self.served.last(node),
            waits_since: number,
        };
        self.wait(node.into(), rank, BTreeMap::from([(number, call)]));
    }

    fn wait(&mut self, node: Arc<str>, rank: Rank, calls: BTreeMap<u64, W>) {
        if !calls.is_empty() {
            self.order.insert(rank, Arc::clone(&node));
            self.nodes.insert(node, Node { rank, calls });
        }
    }

    fn leave(&mut self, name: &str, number: u64) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.calls.remove(&number).is_none() {
            return;
        }
        self.waiting -= 1;
        if node.calls.is_empty() {
            self.order.remove(&node.rank);
            self.nodes.remove(name);
        }
    }

    fn take(&mut self, turn: u64) -> Option<W> {
        let (_, name) = self.order.pop_first()?;
        let mut node = self.nodes.remove(&name)?;
        let (_, call) = node.calls.pop_first()?;
        self.waiting -= 1;
        self.served.note(Arc::clone(&name), turn);
        let rank = Rank {
            last_turn: turn,
            waits_since: turn,
        };
        self.wait(name, rank, node.calls);
        Some(call)
    }

    /// Each of the others has as many turns as this node, if it wants so many.
    fn turns_before_another(&self, node: &str) -> usize {
        let own = self.nodes.get(node).map_or(0, |node| node.calls.len());
        let others = self.nodes.len() - usize::from(own > 0);
        (others.saturating_mul(own + 1) + own).min(self.waiting)
    }
}

#[cfg(test)]
mod tests;
