//! The owner's task: when to look, and who is served in between.

use std::{future::pending, time::Duration};

use signet_runtime::{drain::Drain, signal::Reread};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Order, owner::Owner, source::Reading};

/// How often the source is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);
const PODS_KNOWN: Duration = Duration::from_millis(250);

/// See the module's documentation.
pub(super) struct Worker {
    pub(super) owner: Owner,
    pub(super) reread: Reread,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) drain: Drain,
}

/// A reading under way: a file system that hangs holds up this and nothing else, and there is never a second one.
struct UnderWay {
    task: JoinHandle<Reading>,
    asked: bool,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_starting = !self.owner.is_weighed();
        let (mut is_due, mut asked) = (false, false);
        let mut reading: Option<UnderWay> = None;
        loop {
            tokio::select! {
                () = self.drain.signalled() => return,
                () = pods_known(&self.owner), if is_starting => {
                    is_starting = false;
                    asked = true;
                }
                () = self.reread.told() => asked = true,
                _ = look.tick() => is_due = true,
                read = joined(&mut reading) => {
                    let asked = reading.take().is_some_and(|reading| reading.asked);
                    let read = read.unwrap_or_else(|error| Err(error.to_string()));
                    self.owner.take(read, asked).await;
                }
                Some(order) = self.orders.recv() => self.carry_out(order).await,
            }
            if (is_due || asked) && !is_starting && reading.is_none() {
                let source = self.owner.source();
                let task = signet_runtime::spans::spawn_blocking(move || source.read());
                reading = Some(UnderWay { task, asked });
                (is_due, asked) = (false, false);
            }
        }
    }

    /// Who has hung up has ordered it all the same.
    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Confirm {
                revision,
                author,
                reply,
            } => {
                let _ = reply.send(self.owner.confirm(revision, &author).await);
            }
            Order::Edit { edit, author, reply } => {
                let _ = reply.send(self.owner.edit(&edit, &author).await);
            }
            Order::Try { edit, reply } => {
                let _ = reply.send(self.owner.tried(&edit).await);
            }
        }
    }
}

async fn pods_known(owner: &Owner) {
    while !owner.pods_are_known() {
        sleep(PODS_KNOWN).await;
    }
}

async fn joined(reading: &mut Option<UnderWay>) -> Result<Reading, JoinError> {
    match reading {
        Some(reading) => (&mut reading.task).await,
        None => pending().await,
    }
}
