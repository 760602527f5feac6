//! The agent's workload sockets: accepting, knowing who connected, keeping everything bounded, ending in order.
//!
//! One [`Endpoint`] serves all sockets of the agent. [`Endpoint::serve`] starts the accept loop of one socket; each
//! connection is a task of its own that speaks HTTP/2 through the
//! [authority filter](filter). What it may use is counted for each caller (a pod, or a user id on the shared socket): over a
//! bound a new connection is closed at once and a new call answered with Unavailable. Where all places are taken, whoever has
//! the most loses one to who has fewer, so that nobody shuts out the others; pods and users have places of their own.
//!
//! The sockets know no service: `app` gives them the routes to serve and says how each call is let in. A
//! service finds who called, and its share of the agent, as [`Connection`] in the extensions of each request.

use std::sync::Arc;

use signet_runtime::accept;
use signet_runtime::places::{Place, Places};
use signet_runtime::spans;
use signet_runtime::telemetry::Metrics;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::Instrument as _;

use self::budget::{Budget, Budgets, Sharer};
pub(crate) use self::budget::{Kept, Room, Rooms};
pub(crate) use self::connection::Connection;
pub(crate) use self::counts::METRIC as REFUSED_METRIC;
use self::counts::{Bound, Counts};
pub use self::gate::Call;
pub(crate) use self::gate::Deadline;
use self::gate::Gate;
pub use self::settings::Settings;
use crate::context::{Caller, PeerProcess};

mod answer;
mod budget;
mod connection;
mod counts;
pub(crate) mod filter;
mod gate;
pub(crate) mod incoming;
mod serve;
pub(crate) mod settings;

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
    counts: Counts,
    pods: Arc<Places<Sharer>>,
    users: Arc<Places<Sharer>>,
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
    /// An endpoint without sockets, for these services. `calls` are the paths of the calls that are let in otherwise than those of tools.
    pub fn new(
        routes: Routes,
        calls: impl IntoIterator<Item = (&'static str, Call)>,
        settings: Settings,
    ) -> Self {
        Self::counting(routes, calls, settings, Counts::default())
    }

    /// As [`new`](Self::new), with what callers are refused among these metrics.
    pub fn measured(
        routes: Routes,
        calls: impl IntoIterator<Item = (&'static str, Call)>,
        settings: Settings,
        metrics: &Metrics,
    ) -> Self {
        Self::counting(routes, calls, settings, Counts::registered(metrics))
    }

    fn counting(
        routes: Routes,
        calls: impl IntoIterator<Item = (&'static str, Call)>,
        settings: Settings,
        counts: Counts,
    ) -> Self {
        let shared = Shared {
            settings,
            gate: Gate::new(routes, calls, counts.clone()),
            counts,
            pods: Places::new(settings.places(settings.connections_of_pods)),
            users: Places::new(settings.places(settings.connections_of_users)),
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
        self.shared
            .tasks
            .spawn(accepting.instrument(spans::worker("workload socket")));
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
        if budget.check_work().is_err() {
            self.shared.counts.met(Bound::Work);
            return;
        }
        budget.spend_work(settings::CONNECT);
        let Some(mut place) = self.place(budget.sharer()) else {
            return;
        };
        let counts = self.shared.counts.clone();
        let connection = Connection::new(caller, budget, counts.clone(), self.stop.clone());
        let (span, connection) = (connection.story().span(), Arc::new(connection));
        let serving = serve::serve(stream, connection, self.shared.gate.clone(), self.shared.settings);
        let serving = async move {
            tokio::select! {
                () = serving => {}
                () = place.lost() => counts.met(Bound::Evicted),
            }
        };
        let serving = self.tasks.track_future(serving.instrument(span));
        self.shared.tasks.spawn(serving);
    }

    fn place(&self, sharer: &Sharer) -> Option<Place<Sharer>> {
        let places = match self.origin {
            Origin::Volume { .. } => &self.shared.pods,
            Origin::Shared => &self.shared.users,
        };
        let place = places.take(sharer);
        if place.is_err() {
            self.shared.counts.met(Bound::Connections);
        }
        place.ok()
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
