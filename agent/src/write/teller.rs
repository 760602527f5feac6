//! Has the hook done for the newest set, until it succeeds.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::backoff::Backoff;
use signet_runtime::drain::Drain;
use signet_runtime::error::chain;
use signet_runtime::pace::random_unit;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Plan;
use super::hook::{Hook, HookError};
use super::observed::Observed;
use super::standing::Standing;

/// Waits after a hook that failed.
const BACKOFF: Backoff = Backoff::between(Duration::from_millis(500), Duration::from_secs(30)).jittered(0.5);

/// How far it has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Sets that were written.
    published: u64,
    /// The last of them whose hook has succeeded.
    told: u64,
    /// There will be no more.
    given_up: bool,
}

impl Progress {
    /// There will be no more, or all is done that is done `once`: a set is written and its reader told.
    pub(super) const fn is_over(&self, once: bool) -> bool {
        self.given_up || (once && self.published > 0 && self.told >= self.published)
    }

    #[cfg(test)]
    pub(super) const fn counts(&self) -> (u64, u64) {
        (self.published, self.told)
    }
}

/// Where the publisher says what it has done.
#[derive(Clone)]
pub(super) struct Published(watch::Sender<Progress>);

impl Published {
    pub(super) fn another(&self) {
        self.0.send_modify(|progress| progress.published += 1);
    }

    pub(super) fn no_more(&self) {
        self.0.send_modify(|progress| progress.given_up = true);
    }
}

pub(super) struct Teller {
    plan: Arc<Plan>,
    observed: Observed,
    standing: Arc<Standing>,
    progress: watch::Sender<Progress>,
}

impl Teller {
    pub(super) fn new(plan: Arc<Plan>, observed: Observed, standing: Arc<Standing>) -> Self {
        Self {
            plan,
            observed,
            standing,
            progress: watch::Sender::default(),
        }
    }

    pub(super) fn published(&self) -> Published {
        Published(self.progress.clone())
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Works until the drain starts, which ends a hook that goes on.
    pub(super) async fn run(self, drain: Drain) {
        tokio::select! {
            () = self.each() => {}
            () = drain.signalled() => {}
        }
    }

    async fn each(&self) {
        let mut progress = self.progress.subscribe();
        let mut backoff = BACKOFF;
        loop {
            let Progress { published, told, .. } = *progress.borrow_and_update();
            if told >= published {
                // The sender lives in `self`, so waiting cannot fail.
                let _ = progress.changed().await;
                continue;
            }
            let Err(error) = self.tell(published).await else {
                backoff.reset();
                continue;
            };
            let wait = backoff.next(random_unit());
            let said = chain(&error);
            tracing::warn!(error = said, retry_in = ?wait, "the hook failed");
            self.observed.hook_failures.inc();
            self.standing.told.set(Some(said));
            tokio::select! {
                () = sleep(wait) => {}
                // Its reader may like the next set better.
                _ = progress.wait_for(|progress| progress.published > published) => {}
            }
        }
    }

    /// One attempt, for the sets up to this one.
    async fn tell(&self, published: u64) -> Result<(), HookError> {
        if let Some(hook) = &self.plan.hook {
            hook.call(self.plan.hook_timeout).await?;
            self.done(hook);
        }
        self.progress.send_modify(|progress| progress.told = published);
        Ok(())
    }

    fn done(&self, hook: &Hook) {
        tracing::info!(%hook, "the hook is done");
        self.observed.hooks.inc();
        self.standing.told.set(None);
    }
}
