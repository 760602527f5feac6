//! Orderly endings: tell every task to stop taking work, then wait for the work in hand.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::spans;

/// A handle on the ending of a process or of one part of it. Clones are the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tracker: TaskTracker,
    cause: Arc<OnceLock<Cause>>,
}

/// Why a drain started; the first cause stands.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// A signal, by name.
    Asked(&'static str),
    /// A vital task, by name.
    Failed(&'static str),
}

impl Drain {
    /// A drain nobody has started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves when the drain is started; at once if it already was.
    pub async fn signalled(&self) {
        self.token.cancelled().await;
    }

    /// Starts the drain: no new work from here on. Calling it again changes nothing.
    pub fn start(&self) {
        self.token.cancel();
        self.tracker.close();
    }

    /// Starts the drain because this signal asks for it.
    pub fn start_on(&self, signal: &'static str) {
        let _ = self.cause.set(Cause::Asked(signal));
        self.start();
    }

    /// Whether the drain was started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Runs a task that [`finish`](Self::finish) waits for, within the span of whoever calls. The task itself watches
    /// [`signalled`](Self::signalled).
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task.in_current_span())
    }

    /// As [`spawn`](Self::spawn), for a task that works for as long as the process does: its lines have its name.
    pub fn spawn_worker<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task.instrument(spans::worker(name)))
    }

    /// As [`spawn_worker`](Self::spawn_worker), for a task without which the process is of no use. Should it end before the drain has
    /// started, by a panic above all, the drain starts: whoever waits for [`signalled`](Self::signalled) ends the
    /// process, and it is started afresh instead of living on as a shell.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let vital = self.vital(name);
        self.spawn_worker(name, async move {
            let _vital = vital;
            task.await
        })
    }

    /// For a vital task that outlives the drain, so that [`finish`](Self::finish) does not wait for it: it holds this
    /// until its end, see [`spawn_vital`](Self::spawn_vital).
    #[must_use]
    pub fn vital(&self, name: &'static str) -> Vital {
        Vital {
            drain: self.clone(),
            name,
        }
    }

    /// The vital task whose end started the drain, so that the process can end with an error; `None` when something else
    /// started it.
    #[must_use]
    pub fn failure(&self) -> Option<&'static str> {
        match self.cause.get() {
            Some(Cause::Failed(task)) => Some(task),
            _ => None,
        }
    }

    /// The signal that started the drain, by name; `None` when something else did.
    #[must_use]
    pub fn signal(&self) -> Option<&'static str> {
        match self.cause.get() {
            Some(Cause::Asked(signal)) => Some(signal),
            _ => None,
        }
    }

    /// Starts the drain and waits until every spawned task has ended, at most `limit`. False: some are still running,
    /// and end with the runtime.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.start();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Starts the drain when its task ends, however it ends.
#[derive(Debug)]
pub struct Vital {
    drain: Drain,
    name: &'static str,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if !self.drain.is_draining() {
            tracing::error!(
                task = self.name,
                "a task that this process cannot do without has ended"
            );
            // Only the first is named: others may end because of it.
            let _ = self.drain.cause.set(Cause::Failed(self.name));
            self.drain.start();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finish_waits_for_work_in_hand() {
        let drain = Drain::new();
        let done = Arc::new(AtomicBool::new(false));
        let (watched, flag) = (drain.clone(), done.clone());
        drain.spawn(async move {
            watched.signalled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            flag.store(true, Ordering::SeqCst);
        });
        assert!(!drain.is_draining());
        assert!(drain.finish(Duration::from_secs(10)).await);
        assert!(drain.is_draining());
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn finish_gives_up_at_the_limit() {
        let drain = Drain::new();
        drain.spawn(std::future::pending::<()>());
        assert!(!drain.finish(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_noticed() {
        let drain = Drain::new();
        let vital = drain.spawn_vital("a worker", async { panic!("by a hostile input") });
        drain.signalled().await;
        assert!(vital.await.unwrap_err().is_panic());
        assert_eq!(drain.failure(), Some("a worker"));
    }

    #[tokio::test]
    async fn the_signal_that_asked_for_the_end_is_known() {
        let drain = Drain::new();
        assert_eq!(drain.signal(), None);
        drain.start_on("SIGTERM");
        drain.start_on("SIGINT");
        drain.signalled().await;
        assert_eq!((drain.signal(), drain.failure()), (Some("SIGTERM"), None));
    }

    #[tokio::test]
    async fn a_late_watcher_still_hears_of_it() {
        let drain = Drain::new();
        drain.start();
        drain.start();
        drain.signalled().await;
        assert!(drain.finish(Duration::ZERO).await);
    }
}
