//! One watch stream: waits for the workload's state, renders the newest one, and ends only with a status that clients
//! come back from.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};
use signet_runtime::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::body::Messages;
use super::message::{Digest, Message, Sending};
use super::readings::Readings;
use super::render::Unservable;
use super::status;
use crate::context::{Caller, WorkloadState, X509Context};
use crate::sockets::{Connection, Rooms};

/// How often a silent stream looks whether its caller still is what connected.
const LOOK: Duration = Duration::from_secs(30);

/// Makes one kind of message; fails when the context cannot be served at that time.
pub(super) type Render = fn(&X509Context, SystemTime) -> Result<Message, Unservable>;

/// Follows one workload for one stream.
pub(super) struct Watcher {
    pub states: watch::Receiver<WorkloadState>,
    pub render: Render,
    /// Where the lists of a message are read.
    pub readings: Arc<Readings>,
    pub clock: Arc<dyn Clock>,
    pub connection: Arc<Connection>,
    /// How long the stream may have nothing to serve before it ends with Unavailable.
    pub patience: Duration,
    /// When the client's own deadline passes.
    pub deadline: Option<Instant>,
    /// Since when nothing can be served plus `patience`.
    pub give_up: Option<Instant>,
    /// Stands for the last message, so that an equal one is not sent again (API-16).
    pub sent: Option<Digest>,
    /// Where the room of each message goes, which is held until the client has taken it.
    pub rooms: Rooms,
}

/// What a state means for this stream now.
enum Verdict {
    Send(Message),
    UpToDate,
    Nothing {
        problem: String,
        again_in: Option<Duration>,
    },
}

impl Watcher {
    /// The stream. It never ends without an error status (EP-21), and a panic inside ends it with Unavailable, where the
    /// library would answer CANCELLED, which is final for clients (EP-22).
    pub(super) fn into_messages(self) -> Messages {
        let messages = stream::unfold(Some(self), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(message) => Some((Ok(message), Some(watcher))),
                Err(status) => Some((Err(status), None)),
            }
        });
        let guarded = AssertUnwindSafe(messages).catch_unwind();
        Box::pin(guarded.map(|item| item.unwrap_or_else(|panic| Err(after_panic(&panic)))))
    }

    /// The next message that differs from the last one. Only called when the client has taken the last one.
    async fn next(&mut self) -> Result<Sending, Status> {
        loop {
            self.connection
                .unchanged()
                .map_err(|changed| status::unavailable(&changed))?;
            match self.judge()? {
                Verdict::Send(message) => {
                    self.give_up = None;
                    if self.reserve(message.held()).await? {
                        self.connection
                            .unchanged()
                            .map_err(|changed| status::unavailable(&changed))?;
                        self.sent = Some(message.digest());
                        let reading = message.lists.as_ref().map(|lists| self.readings.of(lists));
                        return Ok(message.send(reading));
                    }
                }
                Verdict::UpToDate => {
                    self.give_up = None;
                    self.wait(None, "").await?;
                }
                Verdict::Nothing { problem, again_in } => {
                    let patience = self.patience;
                    self.give_up.get_or_insert_with(|| Instant::now() + patience);
                    self.wait(again_in, &problem).await?;
                }
            }
        }
    }

    fn judge(&mut self) -> Result<Verdict, Status> {
        let state = self.states.borrow_and_update().clone();
        match state {
            WorkloadState::Ready(context) => Ok(match (self.render)(&context, self.clock.now()) {
                Ok(message) if self.sent == Some(message.digest()) => Verdict::UpToDate,
                Ok(message) => Verdict::Send(message),
                Err(Unservable { problem, again_in }) => Verdict::Nothing {
                    problem: problem.into_owned(),
                    again_in,
                },
            }),
            WorkloadState::Pending { problem } => Ok(Verdict::Nothing {
                problem: problem.unwrap_or_else(|| "the agent has no answer from the server yet".to_owned()),
                again_in: None,
            }),
            WorkloadState::Refused { message } => Err(status::refused(&message)),
            WorkloadState::Gone => Err(status::gone()),
        }
    }

    /// Waits until something may have changed, or ends the stream.
    async fn wait(&mut self, again_in: Option<Duration>, problem: &str) -> Result<(), Status> {
        let (deadline, give_up) = (self.deadline, self.give_up);
        let look = matches!(self.connection.caller(), Caller::Peer(_)).then_some(LOOK);
        tokio::select! {
            biased;
            () = self.connection.ending() => Err(status::ending()),
            changed = self.states.changed() => changed.map_err(|_| status::gone()),
            () = at(deadline) => Err(status::deadline_exceeded()),
            () = after(again_in) => Ok(()),
            () = after(look) => Ok(()),
            () = at(give_up) => Err(status::unavailable(problem)),
        }
    }

    /// Reserves room for a message of so many bytes among the caller's untaken ones, so that a caller that stops reading
    /// many streams holds bounded memory. False: the state changed while waiting for room, so render again.
    async fn reserve(&mut self, bytes: usize) -> Result<bool, Status> {
        let connection = self.connection.clone();
        tokio::select! {
            biased;
            () = connection.ending() => Err(status::ending()),
            changed = self.states.changed() => changed.map(|()| false).map_err(|_| status::gone()),
            () = at(self.deadline) => Err(status::deadline_exceeded()),
            room = connection.room(bytes) => {
                self.rooms.put(room);
                Ok(true)
            }
        }
    }
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
