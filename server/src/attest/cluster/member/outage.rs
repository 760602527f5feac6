//! Whether the cluster is away, and what goes on meanwhile.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::{Cluster, Role};
use crate::attest::NodeInOutage;
use crate::attest::reach::Probe;

const VERSION_BYTES: usize = 16 * 1024;
/// Answers count as a clock for a minute; two that are lost in between change nothing.
const PROBE_EVERY: Duration = Duration::from_secs(20);
/// While there is no answer.
pub(super) const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Cluster {
    /// Asks the API server whether it is there. Keeps a fresh answer at hand too: its `Date` is the server's second clock.
    pub(super) async fn probe(&self) {
        loop {
            let answer = self.api.get_bytes("/version", VERSION_BYTES).await;
            if let Err(error) = &answer {
                tracing::debug!(cluster = %self.settings.name, %error, "the API server does not tell its version");
            }
            let probe = Probe::of(&answer);
            self.probed(probe).await;
            sleep(match probe {
                Probe::Answered => PROBE_EVERY,
                Probe::Failed | Probe::Unclear => PROBE_AGAIN_AFTER,
            })
            .await;
        }
    }

    async fn probed(&self, probe: Probe) {
        let before = self.reach.unreachable_since();
        let since = self.reach.probed(probe, self.watch.is_whole());
        match (before, since) {
            (None, Some(_)) => {
                tracing::error!(cluster = %self.settings.name, "the API server cannot be reached");
            }
            (Some(_), None) => tracing::info!(cluster = %self.settings.name, "the API server is back"),
            _ => {}
        }
        // Every time, so that what could not be written once is written soon.
        let kept = self.remembered.change(|row| row.unreachable_since = since).await;
        if let Err(error) = kept {
            tracing::error!(cluster = %self.settings.name, %error, "the store did not take the state of the cluster");
        }
    }

    /// The time by which a token must not have expired: in an outage the moment when it began, for kubelet gets no newer
    /// ones since.
    pub(super) fn good_at(&self) -> SystemTime {
        let now = self.clock.now();
        self.reach.in_grace().map_or(now, |since| since.min(now))
    }

    pub(super) fn is_watch_believed(&self) -> bool {
        self.watch.is_synced() || self.reach.in_grace().is_some()
    }

    /// In an outage that is not older than the grace: the node that a token names, if the cluster signed it, it was unexpired
    /// when the outage began, and its pod was there when the watch last showed anything. `None` otherwise.
    pub(in crate::attest::cluster) async fn node_in_outage(&self, token: &str) -> Option<NodeInOutage> {
        self.reach.in_grace()?;
        let claims = self
            .check_locally(Role::Node, &self.settings.node_audience, token)
            .await
            .ok()?;
        let (pod, node) = (claims.pod?, claims.node?);
        let was_there = match self.watch.pod(&pod.uid) {
            Some(live) => live.node_name == node.name && !live.phase.is_over(),
            None => !self.watch.was_listed(),
        };
        was_there.then(|| NodeInOutage {
            cluster_uid: self
                .uid
                .get()
                .cloned()
                .or_else(|| self.remembered.row().uid)
                .unwrap_or_default(),
            node_name: node.name,
            node_uid: node.uid,
        })
    }
}
