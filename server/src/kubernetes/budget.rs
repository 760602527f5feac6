//! How many calls attestation may make to an API server: so many each second, so many at a time, and every node has its turn.

mod queue;
mod rows;
mod served;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::bucket::Rate;
use signet_runtime::places::{Bounds, Loses, Places};
use signet_runtime::sync::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep};

use self::queue::{Kind, Queue};
pub(crate) use self::rows::limits;

/// How long a call may be under way: after that its room is another's.
pub(crate) const LONGEST_CALL: Duration = Duration::from_secs(5);
/// How long a call waits for its turn, for the rate and for room alike. A proof takes four calls at most, and there is an end to all
/// that it waits for.
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
pub(crate) enum Payer<'a> {
    /// The pods of the node with this UID.
    PodsOf(&'a str),
    /// The node itself, whose agent wants a certificate.
    Node(&'a str),
    /// An admin, who asks about a pod.
    Admin,
}

impl Payer<'_> {
    const fn parts(&self) -> (Kind, &str) {
        match self {
            Self::PodsOf(node) => (Kind::Pods, node),
            Self::Node(node) => (Kind::Nodes, node),
            Self::Admin => (Kind::Nodes, "an admin"),
        }
    }
}

impl fmt::Display for Payer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodsOf(node) => write!(f, "pods of the node {node}"),
            Self::Node(node) => write!(f, "the node {node}"),
            Self::Admin => f.write_str("an admin"),
        }
    }
}

/// A call that a caller causes, from its turn until it is dropped. Each has a connection of its own, and with it one of the files that
/// this process may open.
#[derive(Debug)]
#[must_use]
pub(crate) struct UnderWay {
    _room: OwnedSemaphorePermit,
}

/// `burst` calls at once and `per_second` on average, in all, and only as many as there is room for under way. While there are fewer
/// than are wanted they wait for their turn, by the order of [`Queue`]; a node that has as many waiting as one may have, or has waited
/// for long, is told when to come back.
#[derive(Debug)]
pub(crate) struct Budget {
    queue: Mutex<Queue<oneshot::Sender<UnderWay>>>,
    /// Taken only by whoever calls, so that room and rate are given in one order.
    rooms: Arc<Semaphore>,
    /// Of pods and of nodes, as [`Kind`] counts them.
    seats: [Arc<Places<Arc<str>>>; 2],
    /// Held by one of those who wait: it lets all of them go, each in its turn.
    caller: AsyncMutex<()>,
}

impl Budget {
    /// Nothing used up yet. Rates below one call per second count as one, and room for fewer than one call as for one.
    pub(crate) fn new(per_second: u32, burst: u32, rooms: usize) -> Self {
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
            rooms: Arc::new(Semaphore::new(rooms.clamp(1, Semaphore::MAX_PERMITS))),
            seats: [Places::new(bounds), Places::new(bounds)],
            caller: AsyncMutex::default(),
        }
    }

    /// Returns when this call may be made. What is returned is held until it is over.
    ///
    /// # Errors
    /// When to come back: there was no turn in time, or too many wait.
    pub(crate) async fn take(&self, payer: Payer<'_>) -> Result<UnderWay, Duration> {
        let (kind, node) = payer.parts();
        let Ok(mut seat) = self.seats[kind.index()].take(&node.into()) else {
            return Err(self.come_back(kind, node));
        };
        let mut call = self.join(kind, node);
        self.call();
        tokio::select! {
            biased;
            Ok(under_way) = &mut call.turn => Ok(under_way),
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

    /// Lets everybody go whose turn it is, as far as there is room. How long until the rate allows the next one, if anybody waits.
    fn call(&self) -> Option<Duration> {
        let (mut queue, now) = (self.queue.lock(), Instant::now());
        while let Ok(room) = Arc::clone(&self.rooms).try_acquire_owned()
            && let Some(go) = queue.next(now)
        {
            // Whoever waits no longer has left the queue, or gives the room back as it goes.
            let _ = go.send(UnderWay { _room: room });
        }
        queue.pause(now)
    }

    /// For as long as this one waits itself.
    async fn call_all(&self) {
        let _caller = self.caller.lock().await;
        while let Ok(room) = self.rooms.acquire().await {
            // It is for whoever is next.
            drop(room);
            let Some(pause) = self.call() else { break };
            sleep(pause).await;
        }
        // It has called itself, and hears that as soon as it is polled again.
        std::future::pending::<()>().await;
    }

    fn come_back(&self, kind: Kind, node: &str) -> Duration {
        let turn = self.queue.lock().turn_after(kind, node);
        // The queue knows the rate alone. Of those under way none is left after the longest call.
        let is_full = self.rooms.available_permits() == 0;
        let shortest = if is_full { LONGEST_CALL } else { SHORTEST_WAIT };
        turn.clamp(shortest, LONGEST_WAIT)
    }
}

/// A call that waits; leaves the queue when it is dropped.
struct Waiting<'a> {
    queue: &'a Mutex<Queue<oneshot::Sender<UnderWay>>>,
    kind: Kind,
    node: &'a str,
    number: u64,
    turn: oneshot::Receiver<UnderWay>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.lock().leave(self.kind, self.node, self.number);
    }
}

#[cfg(test)]
mod tests;
