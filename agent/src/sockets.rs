//! The agent's workload sockets: accepting, knowing who connected, keeping everything bounded, ending in order.
//!
//! One [`Endpoint`] serves all sockets of the agent. [`Endpoint::serve`] starts the accept loop of one socket; each
//! connection is a task of its own that speaks HTTP/2 through the
//! [authority filter](filter). What a connection may use is counted for the agent as a whole and for
//! each caller (a pod, or a user id on the shared socket); over a bound a new connection is closed at once and a
//! new call answered with Unavailable, so that one pod cannot shut out the others.
//!
//! The sockets know no service: `app` gives them the routes to serve and names the calls that need the security header. A
//! service finds who called, and its share of the agent, as [`Connection`] in the extensions of each request.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::accept;
use signet_runtime::quota::Division;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

pub(crate) use self::budget::Rooms;
use self::budget::{Budget, Budgets, Sharer};
pub(crate) use self::connection::Connection;
pub(crate) use self::gate::Deadline;
use self::gate::Gate;
use crate::context::{Caller, PeerProcess};

mod answer;
mod budget;
mod connection;
pub(crate) mod filter;
mod gate;
mod serve;

/// Bounds of the workload sockets.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections of all callers together. An idle one with one watch stream takes about 35 KiB.
    pub max_connections: usize,
    /// Connections of one pod, over all its volumes, or of one user id on the shared socket.
    pub max_connections_per_caller: usize,
    /// Open calls of one pod, or of one user id on the shared socket.
    pub max_streams_per_caller: usize,
    /// Bytes of requests under way and of messages that were sent and not taken. The cap is at least the longest message.
    pub bytes: Division,
    /// How long a new connection has to show that it speaks HTTP/2.
    pub handshake_limit: Duration,
    /// How often a silent client is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long it may take to give one.
    pub keep_alive_limit: Duration,
    /// How long a client may take nothing of what it is sent.
    pub stuck_limit: Duration,
    /// How long connections have to finish when a socket is closed.
    pub drain_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_caller: 64,
            max_streams_per_caller: 256,
            bytes: Division {
                share: 256 * 1024,
                cap: 8 * 1024 * 1024,
                pool: 40 * 1024 * 1024,
            },
            handshake_limit: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(60),
            keep_alive_limit: Duration::from_secs(20),
            stuck_limit: Duration::from_secs(20),
            drain_limit: Duration::from_secs(5),
        }
    }
}

/// Whose socket it is.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The socket of one CSI volume: the socket itself says who calls.
    Volume {
        /// CSI volume id, as kubelet gave it.
        volume_id: String,
        /// UID of the pod that the volume is pinned to.
        pod_uid: String,
    },
    /// A socket for every process of the node: the peer process says who calls.
    Shared,
}

/// Serves workload sockets. Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

/// What all sockets have in common.
struct Shared {
    settings: Settings,
    gate: Gate,
    connections: Arc<Semaphore>,
    budgets: Budgets,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// One socket being served. Dropping it leaves the socket open until the endpoint shuts down.
#[derive(Debug)]
#[must_use = "close it when the volume goes"]
pub struct ServedSocket {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ServedSocket {
    /// Stops accepting, ends all streams with Unavailable, then the connections; waits for it, at most the drain limit.
    /// The file is the caller's to remove.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Endpoint {
    /// An endpoint without sockets, for these services. `protected` are the paths of the calls that need the security
    /// header of the Workload Endpoint (EP-03).
    pub fn new(
        routes: Routes,
        protected: impl IntoIterator<Item = &'static str>,
        settings: Settings,
    ) -> Self {
        let shared = Shared {
            settings,
            gate: Gate::new(routes, protected),
            connections: Arc::new(Semaphore::new(settings.max_connections)),
            budgets: Budgets::new(settings),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Starts serving a listening socket. Needs a tokio runtime.
    pub fn serve(&self, listener: UnixListener, origin: Origin) -> ServedSocket {
        let own_budget = match &origin {
            Origin::Volume { pod_uid, .. } => Some(self.shared.budgets.of(Sharer::Pod(pod_uid.clone()))),
            Origin::Shared => None,
        };
        let socket = Socket {
            shared: self.shared.clone(),
            own_budget,
            origin,
            stop: self.shared.stop.child_token(),
            tasks: TaskTracker::new(),
        };
        let served = ServedSocket {
            stop: socket.stop.clone(),
            tasks: socket.tasks.clone(),
        };
        let accepting = socket.tasks.clone().track_future(socket.accept_each(listener));
        self.shared.tasks.spawn(accepting);
        served
    }

    /// Closes all sockets in order: streams first, each with Unavailable, then connections. Waits at most the drain limit
    /// and a little.
    pub async fn shut_down(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// One socket's side of the work.
struct Socket {
    shared: Arc<Shared>,
    /// The pod's, on the socket of a volume; held so that all its volumes find the same one.
    own_budget: Option<Arc<Budget>>,
    origin: Origin,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Socket {
    async fn accept_each(self, listener: UnixListener) {
        let stop = self.stop.cancelled();
        accept::each(listener, "workload socket", stop, |stream, _| self.admit(stream)).await;
    }

    /// Starts the connection's task, or closes it when a bound is reached or the peer is not known.
    fn admit(&self, stream: UnixStream) {
        let (caller, budget) = match self.caller(&stream) {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(%error, "a peer vanished before it could be identified");
                return;
            }
        };
        let Ok(global) = self.shared.connections.clone().try_acquire_owned() else {
            tracing::warn!("the agent has too many workload connections, closing a new one");
            return;
        };
        let Some(own) = budget.try_connection() else {
            tracing::debug!(?caller, "a caller has too many connections, closing a new one");
            return;
        };
        let connection = Arc::new(Connection::new(caller, budget, self.stop.clone()));
        let serving = serve::serve(stream, connection, self.shared.gate.clone(), self.shared.settings);
        self.shared.tasks.spawn(self.tasks.track_future(async move {
            serving.await;
            drop((global, own));
        }));
    }

    fn caller(&self, stream: &UnixStream) -> std::io::Result<(Caller, Arc<Budget>)> {
        match (&self.origin, &self.own_budget) {
            (Origin::Volume { volume_id, pod_uid }, Some(budget)) => {
                let caller = Caller::Volume {
                    volume_id: volume_id.clone(),
                    pod_uid: pod_uid.clone(),
                };
                Ok((caller, budget.clone()))
            }
            _ => {
                let peer = PeerProcess::of(stream)?;
                let budget = self.shared.budgets.of(Sharer::User(peer.uid));
                Ok((Caller::Peer(peer), budget))
            }
        }
    }
}
