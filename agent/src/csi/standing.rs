//! What others are told of the volumes: a person over the admin socket, an operator by metrics.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use signet_runtime::telemetry::Metrics;
use tokio::sync::watch;

use super::volumes::Volumes;

/// How it stands with the volumes and their folder.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// What is wrong with the file system under the folder.
    ground: String,
    said: watch::Sender<String>,
    not_kept: Gauge<i64, AtomicI64>,
    cut_off: Gauge<i64, AtomicI64>,
    /// How often there was no room for a volume.
    pub(super) refused: Counter,
}

/// Moves when there is no room for a volume.
pub(super) const REFUSED: &str = "signet_agent_volumes_refused_total";

impl Standing {
    /// Without volumes, on a file system of which this is to be said; empty when it is as it should be.
    pub(crate) fn new(ground: String, metrics: &Metrics) -> Self {
        let standing = Self {
            said: watch::Sender::new(ground.clone()),
            ground,
            ..Self::default()
        };
        metrics.register(|registry| {
            registry.register(
                "volumes_not_kept",
                "Volumes whose record or newest token could not be written: a restart serves them after kubelet's next call",
                standing.not_kept.clone(),
            );
            registry.register(
                "volumes_cut_off",
                "Volumes of pods of which containers hold a folder that is gone: they reach no agent until the pod is restarted",
                standing.cut_off.clone(),
            );
            registry.register(
                "volumes_refused",
                "Calls of kubelet for which there was no room: its pod has as many volumes as it may, or the agent as many as it has files for",
                standing.refused.clone(),
            );
        });
        standing
    }

    /// What is to be told a person; empty when all is well.
    pub(crate) fn subscribe(&self) -> watch::Receiver<String> {
        self.said.subscribe()
    }

    /// How the volumes are now.
    pub(super) fn tell(&self, volumes: &Volumes) {
        let missing: Vec<&str> = volumes.missing().collect();
        self.not_kept.set(number(missing.len()));
        self.cut_off.set(number(volumes.number_cut_off()));
        let not_kept = missing.first().map(|why| {
            format!(
                "{} of them wait for kubelet's next call after a restart of the agent: {why}",
                missing.len()
            )
        });
        let ground = Some(self.ground.clone()).filter(|ground| !ground.is_empty());
        let said: Vec<String> = ground.into_iter().chain(not_kept).collect();
        self.said.send_replace(said.join("; "));
    }
}

fn number(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
