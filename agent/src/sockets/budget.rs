//! What one caller may use of the agent.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::bucket::Buckets;
use signet_runtime::quota::{Held, Quota};
use signet_runtime::sync::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::Settings;
use crate::shared::Shared;

/// How often room is looked for that others may have given back.
const LOOK: Duration = Duration::from_millis(250);

/// Callers whose work is counted one by one; those beyond share a bucket.
const MOST_WORKING: usize = 4096;

/// The share of one caller.
#[derive(Debug)]
pub(super) struct Budget {
    sharer: Sharer,
    streams: Arc<Semaphore>,
    bytes: Arc<Quota<Sharer>>,
    work: Arc<Buckets<Sharer>>,
    attaches: Arc<Buckets<Sharer>>,
    over_limit: Duration,
    /// Messages wait for room one behind the other, so that waiting costs the same however many do.
    turn: tokio::sync::Mutex<()>,
    /// The same of requests that wait until there may be work.
    work_turn: tokio::sync::Mutex<()>,
    given_back: Notify,
}

impl Budget {
    fn new(sharer: Sharer, all: &Budgets) -> Self {
        Self {
            sharer,
            streams: Arc::new(Semaphore::new(all.settings.max_streams_per_caller)),
            bytes: all.bytes.clone(),
            work: all.work.clone(),
            attaches: all.attaches.clone(),
            over_limit: all.settings.over_limit,
            turn: tokio::sync::Mutex::default(),
            work_turn: tokio::sync::Mutex::default(),
            given_back: Notify::new(),
        }
    }

    pub(super) const fn sharer(&self) -> &Sharer {
        &self.sharer
    }

    pub(super) fn try_stream(&self) -> Option<OwnedSemaphorePermit> {
        self.streams.clone().try_acquire_owned().ok()
    }

    /// Whether this caller may subscribe once more now.
    pub(super) fn try_attach(&self) -> bool {
        self.attaches.take(self.sharer.clone()).is_ok()
    }

    /// How long a connection may go on with more work than may be done.
    pub(super) const fn over_limit(&self) -> Duration {
        self.over_limit
    }

    /// Whether work may be done for this caller.
    ///
    /// # Errors
    /// How long until then.
    pub(super) fn check_work(&self) -> Result<(), Duration> {
        self.work.check(self.sharer.clone())
    }

    /// So much was done.
    pub(super) fn spend_work(&self, work: u32) {
        if work > 0 {
            self.work.spend(self.sharer.clone(), f64::from(work));
        }
    }

    /// Spends so much once work may be done, behind those that wait for that already. Whether it had to wait.
    pub(super) async fn pay(&self, work: u32) -> bool {
        let _turn = self.work_turn.lock().await;
        let mut has_waited = false;
        while let Err(wait) = self.check_work() {
            has_waited = true;
            sleep(wait).await;
        }
        self.spend_work(work);
        has_waited
    }

    /// So many bytes, if there are as many now.
    pub(super) fn try_bytes(&self, bytes: usize) -> Option<Held<Sharer>> {
        self.bytes.take(&self.sharer, bytes)
    }

    /// Holds so many bytes from now on. `false` where there are not as many.
    pub(super) fn keep(&self, kept: &mut Option<Kept>, bytes: usize) -> bool {
        let Some(Kept(held)) = kept else {
            *kept = self.try_bytes(bytes).map(Kept);
            return kept.is_some();
        };
        match bytes.checked_sub(held.amount()) {
            Some(more) => held.grow(more),
            None => {
                held.shrink(held.amount() - bytes);
                true
            }
        }
    }

    /// Room for a message, if there is some now and nobody waits for it.
    pub(super) fn try_room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let _turn = self.turn.try_lock().ok()?;
        let held = self.try_bytes(bytes)?;
        Some(Room {
            held,
            budget: self.clone(),
        })
    }

    /// Room for a message, behind those that wait for some already. Never for one that is larger than what a caller may have in all.
    pub(super) async fn room(self: Arc<Self>, bytes: usize) -> Room {
        let _turn = self.turn.lock().await;
        loop {
            if let Some(held) = self.try_bytes(bytes) {
                return Room {
                    held,
                    budget: self.clone(),
                };
            }
            let _ = timeout(LOOK, self.given_back.notified()).await;
        }
    }
}

/// Bytes that are held for what a call keeps.
#[derive(Debug)]
pub(crate) struct Kept(Held<Sharer>);

/// The bytes of a message, until its caller has taken it.
#[derive(Debug)]
pub(crate) struct Room {
    held: Held<Sharer>,
    budget: Arc<Budget>,
}

impl Room {
    /// How many bytes it has.
    pub(crate) fn amount(&self) -> usize {
        self.held.amount()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.shrink(self.held.amount());
        self.budget.given_back.notify_one();
    }
}

/// Room for the message of one call that is on its way. In the extensions of each request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rooms(Arc<Mutex<Under>>);

/// What is under way.
#[derive(Debug, Default)]
struct Under {
    room: Option<Arc<Room>>,
    ends: bool,
}

impl Rooms {
    /// For the message that comes next.
    pub(crate) fn put(&self, room: Room) {
        *self.0.lock() = Under {
            room: Some(Arc::new(room)),
            ends: false,
        };
    }

    /// The piece that comes next is the message's last: when it and those before are taken, its room is free.
    pub(crate) fn last_piece(&self) {
        self.0.lock().ends = true;
    }

    /// Of the piece that is on its way from now on.
    pub(super) fn of_piece(&self) -> Option<Arc<Room>> {
        let mut under = self.0.lock();
        if under.ends {
            return under.room.take();
        }
        under.room.clone()
    }
}

/// Who shares a budget.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Sharer {
    /// A pod, by UID: its author decides how many volumes it has.
    Pod(String),
    /// A user id on the shared sockets.
    User(u32),
}

/// Budgets of those who are connected or may connect.
#[derive(Debug)]
pub(super) struct Budgets {
    settings: Settings,
    bytes: Arc<Quota<Sharer>>,
    work: Arc<Buckets<Sharer>>,
    attaches: Arc<Buckets<Sharer>>,
    known: Shared<Sharer, Budget>,
}

impl Budgets {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            bytes: Quota::new(settings.bytes),
            work: Arc::new(Buckets::new(settings.work, MOST_WORKING)),
            attaches: Arc::new(Buckets::new(settings.attaches, MOST_WORKING)),
            known: Shared::default(),
        }
    }

    /// The budget of a caller; the same one as long as any of its connections or sockets lives.
    pub(super) fn of(&self, sharer: Sharer) -> Arc<Budget> {
        let new = || Budget::new(sharer.clone(), self);
        self.known.of(sharer.clone(), new)
    }
}
