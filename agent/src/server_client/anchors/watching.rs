//! The configured file is looked at for as long as the agent runs: what it says is above every server's word, and must reach an agent
//! whose server is a thief's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::authority::AuthorityId;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::signal::Reread;
use tokio::time::{MissedTickBehavior, interval};

use super::files::read_configured;
use super::{AnchorsError, ControlAnchors};

/// How often the file is looked at: what it distrusts is gone within a second.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

impl ControlAnchors {
    /// Looks at the configured file until draining starts, every so often and each time that the process is told to. Nothing that
    /// is missing in it, or cannot be read, takes back what it distrusted; see [`server_not_verified`](Self::server_not_verified).
    pub(crate) async fn watch(
        self: Arc<Self>,
        every: Duration,
        clock: Arc<dyn Clock>,
        mut reread: Reread,
        drain: Drain,
    ) {
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_told = tokio::select! {
                () = drain.signalled() => return,
                () = reread.told() => true,
                _ = looks.tick() => false,
            };
            let (anchors, clock) = (self.clone(), clock.clone());
            // A file system that hangs holds up this, and there is never a second reading.
            let look = signet_runtime::spans::spawn_blocking(move || anchors.look(clock.now()));
            tokio::select! {
                () = drain.signalled() => return,
                looked = look => if let (Ok(Err(error)), true) = (looked, is_told) {
                    tracing::error!(%error, "the control anchors stay as they are");
                }
            }
        }
    }

    /// Reads the configured file. One that has changed is joined to what there is, as if the server could not be verified.
    ///
    /// # Errors
    /// [`AnchorsError`] when the file cannot be used.
    pub(super) fn look(&self, now: SystemTime) -> Result<(), AnchorsError> {
        let read = read_configured(&self.configured, &self.trust_domain);
        let heard = self.hear(&mut self.state.lock(), &read);
        heard.into_iter().for_each(|kept| self.write(kept));
        let fresh = read.map_err(|broken| broken.error)?;
        let mut state = self.state.lock();
        if fresh.source == state.looked_at {
            return Ok(());
        }
        state.looked_at = fresh.source;
        drop(state);
        self.server_not_verified(now).map(drop)
    }

    /// Whom nobody brings back, and by whose word.
    pub(crate) fn distrusted(&self) -> Vec<(AuthorityId, &'static str)> {
        let state = self.state.lock();
        let by_file = state.file.distrusted.iter().map(|id| (*id, "anchors_file"));
        let by_server = state.departed.iter().map(|gone| gone.id);
        let by_server =
            by_server.filter(|id| !state.file.distrusts(id) && state.departed.contains(id, &state.file));
        by_file.chain(by_server.map(|id| (id, "server"))).collect()
    }

    /// Why the configured file is of no use as it is, for people; empty when it is.
    pub(crate) fn file_problem(&self) -> String {
        self.state.lock().problem.clone()
    }
}
