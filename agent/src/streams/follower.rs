//! Follows one workload for one stream: what is true for it now, when that may have changed, and room for the next message. A stream
//! ends only with a status that clients come back from.

use std::any::Any;
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{Stream, StreamExt};
use signet_runtime::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;

use super::body::{Messages, Watch};
use super::message::{Message, Sending};
use super::nothing::Nothing;
use super::readings::Readings;
use super::status;
use crate::context::{AttachError, Caller, WorkloadSource, WorkloadState, X509Context};
use crate::sockets::{Connection, Deadline, Kept, Room, Rooms};

/// How often a silent stream looks whether its caller still is what connected.
const LOOK: Duration = Duration::from_secs(30);

/// See the [module](self).
pub(crate) struct Follower {
    states: watch::Receiver<WorkloadState>,
    /// Where the lists of a message are read.
    readings: Arc<Readings>,
    clock: Arc<dyn Clock>,
    connection: Arc<Connection>,
    /// How long the stream may have nothing to serve before it ends with Unavailable.
    patience: Duration,
    /// When the client's own deadline passes.
    deadline: Option<Instant>,
    /// Since when nothing can be served plus `patience`.
    give_up: Option<Instant>,
    /// Where the room of each message goes, which is held until the client has taken it.
    rooms: Rooms,
    /// Room that was waited for, until the message is rendered again.
    reserved: Option<Room>,
    /// What is kept of requests.
    kept: Option<Kept>,
}

/// What the streams of one service share.
#[derive(Clone)]
pub(crate) struct Following {
    source: Arc<dyn WorkloadSource>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    readings: Arc<Readings>,
}

/// Where the messages of one stream leave.
pub(crate) struct Outlet {
    connection: Arc<Connection>,
    rooms: Rooms,
}

impl Outlet {
    /// The body of an answer that these messages make.
    pub(crate) fn body(self, messages: Messages) -> Watch {
        Watch::new(messages, self.connection, self.rooms)
    }
}

impl Following {
    /// What workloads are told by `source`, at the time of `clock`. A stream may have nothing to serve for so long as `patience`, which is
    /// [`PATIENCE`](super::PATIENCE), but for tests.
    pub(crate) fn new(source: Arc<dyn WorkloadSource>, clock: Arc<dyn Clock>, patience: Duration) -> Self {
        Self {
            source,
            clock,
            patience,
            readings: Arc::default(),
        }
    }

    /// Subscribes the caller.
    ///
    /// # Errors
    /// The status of the call.
    pub(crate) async fn attach(&self, extensions: &http::Extensions) -> Result<Follower, Status> {
        let connection = extensions
            .get::<Arc<Connection>>()
            .cloned()
            .ok_or_else(|| status::unavailable("internal fault of the agent: the connection is not known"))?;
        if !connection.try_attach() {
            return Err(status::unavailable(
                "too many calls from this workload in a short time; retry later",
            ));
        }
        let states = match timeout(self.patience, self.source.attach(connection.caller())).await {
            Ok(Ok(states)) => states,
            Ok(Err(AttachError::Refused(message))) => return Err(status::refused(&message)),
            Ok(Err(AttachError::Unavailable(problem))) => return Err(status::unavailable(&problem)),
            Err(_elapsed) => return Err(status::unavailable("the caller could not be attested in time")),
        };
        Ok(Follower {
            states,
            readings: self.readings.clone(),
            clock: self.clock.clone(),
            connection,
            patience: self.patience,
            deadline: extensions.get::<Deadline>().map(|deadline| deadline.0),
            give_up: None,
            rooms: extensions.get::<Rooms>().cloned().unwrap_or_default(),
            reserved: None,
            kept: None,
        })
    }
}

impl Follower {
    /// Where its messages leave.
    pub(crate) fn outlet(&self) -> Outlet {
        Outlet {
            connection: self.connection.clone(),
            rooms: self.rooms.clone(),
        }
    }

    /// Who calls, in one word for the log.
    pub(crate) fn caller(&self) -> String {
        match self.connection.caller() {
            Caller::Volume { pod_uid, .. } => format!("pod {pod_uid}"),
            Caller::Peer(peer) => format!("uid {}", peer.uid),
        }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// What is true for the workload now.
    ///
    /// # Errors
    /// How the stream ends.
    pub(crate) fn context(&mut self) -> Result<Result<Arc<X509Context>, Nothing>, Status> {
        self.check()?;
        let state = self.states.borrow_and_update().clone();
        match state {
            WorkloadState::Ready(context) => Ok(Ok(context)),
            WorkloadState::Pending { problem } => {
                let problem = problem.map_or(
                    Cow::Borrowed("the agent has no answer from the server yet"),
                    Cow::Owned,
                );
                Ok(Err(Nothing::because(problem)))
            }
            WorkloadState::Refused { message } => Err(status::refused(&message)),
            WorkloadState::Gone => Err(status::gone()),
        }
    }

    /// Holds so many bytes of its caller's from now on, for what is kept of its requests.
    ///
    /// # Errors
    /// The caller has no more.
    pub(crate) fn keep(&mut self, bytes: usize) -> Result<(), Status> {
        let kept = self.connection.keep(&mut self.kept, bytes);
        let too_many =
            || status::unavailable("too many bytes of requests are kept for this workload; retry later");
        kept.then_some(()).ok_or_else(too_many)
    }

    /// Waits until its caller may do some work, and spends so much of it. Others have their turn in any case.
    ///
    /// # Errors
    /// How the stream ends.
    pub(crate) async fn pay(&self, work: u32) -> Result<(), Status> {
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            () = self.connection.ending() => Err(status::ending()),
            () = self.connection.pay(work) => Ok(()),
        }
    }

    /// Whether its caller still is what connected.
    fn check(&self) -> Result<(), Status> {
        let unchanged = self.connection.unchanged();
        unchanged.map_err(|changed| status::unavailable(&changed))
    }

    /// Waits until something may have changed, or `again_in` is over; where there is a problem, for a bounded time.
    ///
    /// # Errors
    /// How the stream ends.
    pub(crate) async fn wait(
        &mut self,
        again_in: Option<Duration>,
        problem: Option<&str>,
    ) -> Result<(), Status> {
        self.reserved = None;
        self.give_up = problem.map(|_| self.give_up.unwrap_or_else(|| Instant::now() + self.patience));
        let look = matches!(self.connection.caller(), Caller::Peer(_)).then_some(LOOK);
        tokio::select! {
            biased;
            () = self.connection.ending() => Err(status::ending()),
            changed = self.states.changed() => changed.map_err(|_| status::gone()),
            () = at(self.deadline) => Err(status::deadline_exceeded()),
            () = after(again_in) => Ok(()),
            () = after(look) => Ok(()),
            () = at(self.give_up) => Err(status::unavailable(problem.unwrap_or_default())),
        }
    }

    /// Gives a message its room among those that its caller has not taken, so that a caller that stops reading many streams holds bounded
    /// memory. None where that had to be waited for, for the message is not kept meanwhile: render again.
    ///
    /// # Errors
    /// How the stream ends.
    pub(crate) async fn send(&mut self, message: Message) -> Result<Option<Sending>, Status> {
        self.give_up = None;
        let bytes = message.held();
        let kept = self.reserved.take().filter(|room| room.amount() >= bytes);
        let Some(room) = kept.or_else(|| self.connection.try_room(bytes)) else {
            drop(message);
            self.reserve(bytes).await?;
            return Ok(None);
        };
        self.rooms.put(room);
        self.check()?;
        let reading = message.lists().map(|lists| self.readings.of(lists));
        Ok(Some(message.send(reading)))
    }

    /// Waits for room, or for news.
    async fn reserve(&mut self, bytes: usize) -> Result<(), Status> {
        let connection = self.connection.clone();
        tokio::select! {
            biased;
            () = connection.ending() => Err(status::ending()),
            changed = self.states.changed() => changed.map_err(|_| status::gone()),
            () = at(self.deadline) => Err(status::deadline_exceeded()),
            room = connection.room(bytes) => {
                self.reserved = Some(room);
                Ok(())
            }
        }
    }
}

/// Messages in which a panic ends the stream with Unavailable, where the library would answer CANCELLED, which is final for clients
/// (EP-22).
pub(crate) fn guarded(messages: impl Stream<Item = Result<Sending, Status>> + Send + 'static) -> Messages {
    let guarded = AssertUnwindSafe(messages).catch_unwind();
    Box::pin(guarded.map(|item| item.unwrap_or_else(|panic| Err(after_panic(&panic)))))
}

/// Resolves at an instant; never without one.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Resolves after a while; never without one. At least 100 ms, so that a clock that stands still costs little.
async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => sleep(delay.clamp(Duration::from_millis(100), Duration::from_secs(60))).await,
        None => std::future::pending().await,
    }
}

fn after_panic(_panic: &Box<dyn Any + Send>) -> Status {
    tracing::error!("a watch stream panicked; the client was told to retry");
    status::unavailable("internal fault of the agent")
}
