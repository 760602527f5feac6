//! How many calls attestation may make to an API server: so many in all, and every node has its turn.

mod queue;
mod rows;
mod served;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::bucket::Rate;
use signet_runtime::places::{Bounds, Loses, Places};
use signet_runtime::sync::Mutex;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::{Instant, sleep};

use self::queue::{Kind, Queue};
pub(super) use self::rows::limits;

/// How long a call waits for its turn. A proof takes three calls at most, and there is an end to all that it waits for.
const LONGEST_TURN: Duration = Duration::from_secs(4);
/// Calls of one kind that wait at once: more nodes than that do not restart together, and at the usual rate more are not made
/// within [`LONGEST_TURN`].
const WAITING: usize = 4096;
/// Those of one node: all pods that an agent asks for in one request.
const NODES_WAITING: usize = 256;
/// What is told to whoever had no turn.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whose turn a call takes. The token that it is about has been verified to be of this node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payer<'a> {
    /// The pods of the node with this UID.
    PodsOf(&'a str),
    /// The node itself, whose agent wants a certificate.
    Node(&'a str),
}

impl Payer<'_> {
    const fn parts(&self) -> (Kind, &str) {
        match self {
            Self::PodsOf(node) => (Kind::Pods, node),
            Self::Node(node) => (Kind::Nodes, node),
        }
    }
}

impl fmt::Display for Payer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodsOf(node) => write!(f, "pods of the node {node}"),
            Self::Node(node) => write!(f, "the node {node}"),
        }
    }
}

/// `burst` calls at once and `per_second` on average, in all. While there are fewer than are wanted they wait for their turn, by
/// the order of [`Queue`]; a node that has as many waiting as one may have, or has waited for long, is told when to come back.
#[derive(Debug)]
pub(super) struct Budget {
    queue: Mutex<Queue<oneshot::Sender<()>>>,
    /// Of pods and of nodes, as [`Kind`] counts them.
    seats: [Arc<Places<Arc<str>>>; 2],
    /// Held by one of those who wait: it lets all of them go, each in its turn.
    caller: AsyncMutex<()>,
}

impl Budget {
    /// Nothing used up yet. Rates below one call per second count as one.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let rate = Rate {
            per_second: f64::from(per_second.max(1)),
            burst: f64::from(burst.max(1)),
        };
        let bounds = Bounds {
            total: WAITING,
            cap: NODES_WAITING,
            loses: Loses::Newest,
        };
        Self {
            queue: Mutex::new(Queue::new(rate, Instant::now())),
            seats: [Places::new(bounds), Places::new(bounds)],
            caller: AsyncMutex::default(),
        }
    }

    /// Returns when this call may be made.
    ///
    /// # Errors
    /// When to come back: there was no turn in time, or too many wait.
    pub(super) async fn take(&self, payer: Payer<'_>) -> Result<(), Duration> {
        let (kind, node) = payer.parts();
        let Ok(mut seat) = self.seats[kind.index()].take(&node.into()) else {
            return Err(self.come_back(kind, node));
        };
        let mut call = self.join(kind, node);
        self.call();
        tokio::select! {
            biased;
            Ok(()) = &mut call.turn => Ok(()),
            () = seat.lost() => Err(self.come_back(kind, node)),
            () = sleep(LONGEST_TURN) => Err(self.come_back(kind, node)),
            () = self.call_all() => Err(self.come_back(kind, node)),
        }
    }

    fn join<'a>(&'a self, kind: Kind, node: &'a str) -> Waiting<'a> {
        let (go, turn) = oneshot::channel();
        let number = self.queue.lock().join(kind, node, go);
        Waiting {
            queue: &self.queue,
            kind,
            node,
            number,
            turn,
        }
    }

    /// Lets everybody go whose turn it is. How long until the next one's, if anybody waits.
    fn call(&self) -> Option<Duration> {
        let (mut queue, now) = (self.queue.lock(), Instant::now());
        while let Some(go) = queue.next(now) {
            // Whoever waits no longer has left the queue.
            let _ = go.send(());
        }
        queue.pause(now)
    }

    /// For as long as this one waits itself.
    async fn call_all(&self) {
        let _caller = self.caller.lock().await;
        while let Some(pause) = self.call() {
            sleep(pause).await;
        }
        // It has called itself, and hears that as soon as it is polled again.
        std::future::pending::<()>().await;
    }

    fn come_back(&self, kind: Kind, node: &str) -> Duration {
        let turn = self.queue.lock().turn_after(kind, node);
        turn.clamp(SHORTEST_WAIT, LONGEST_WAIT)
    }
}

/// A call that waits; leaves the queue when it is dropped.
struct Waiting<'a> {
    queue: &'a Mutex<Queue<oneshot::Sender<()>>>,
    kind: Kind,
    node: &'a str,
    number: u64,
    turn: oneshot::Receiver<()>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.lock().leave(self.kind, self.node, self.number);
    }
}

#[cfg(test)]
mod tests;
