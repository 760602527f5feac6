//! Orderly endings: tell every task to stop taking work, then wait for the work in hand.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A handle on the ending of a process or of one part of it. Clones are the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tracker: TaskTracker,
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

    /// Whether the drain was started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Runs a task that [`finish`](Self::finish) waits for. The task itself watches [`signalled`](Self::signalled).
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Starts the drain and waits until every spawned task has ended, at most `limit`. False: some are still running,
    /// and end with the runtime.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.start();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
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
    async fn a_late_watcher_still_hears_of_it() {
        let drain = Drain::new();
        drain.start();
        drain.start();
        drain.signalled().await;
        assert!(drain.finish(Duration::ZERO).await);
    }
}
