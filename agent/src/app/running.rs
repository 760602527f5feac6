//! A running agent and its orderly end.

use std::time::Duration;

use signet_runtime::drain::Drain;
use signet_runtime::ready::Readiness;

use crate::csi::Driver;
use crate::manager::Manager;
use crate::readiness::STOPPING;
use crate::sockets::{Endpoint, ServedSocket};

/// Upper bound of an orderly end; Kubernetes gives 30 s by default.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// An agent whose parts have started.
pub(super) struct Running {
    pub(super) endpoint: Endpoint,
    pub(super) readiness: Readiness,
    pub(super) manager: Manager,
    pub(super) driver: Option<Driver>,
    /// Dropping the handle leaves the socket open; it ends with the endpoint.
    #[expect(dead_code, reason = "held, not asked")]
    pub(super) shared: Option<ServedSocket>,
}

impl Running {
    /// Waits for the drain, then ends in order within a bound.
    ///
    /// # Errors
    /// That a part has ended without which the agent is of no use.
    pub(super) async fn until_the_end(self, drain: Drain) -> anyhow::Result<()> {
        drain.signalled().await;
        let _stopping = self.readiness.hold(STOPPING);
        // One more of what is waited for: all of it has one bound.
        drain.spawn(async move { self.endpoint.shut_down().await });
        if !drain.finish(DRAIN_LIMIT).await {
            tracing::warn!(seconds = DRAIN_LIMIT.as_secs(), "not everything ended in time");
        }
        match drain.failure() {
            Some(task) => anyhow::bail!("the {task} ended unexpectedly, see the log"),
            None => Ok(()),
        }
    }
}
