//! How many processes were not served, and why.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use signet_runtime::telemetry::Metrics;

use super::UnixError;
use crate::peer::Changed;

/// As `/metrics` shows it.
pub(crate) const METRIC: &str = "signet_agent_processes_refused_total";

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Clones count together.
#[derive(Clone, Default)]
pub(super) struct Counts(Family<Reason, Counter>);

impl Counts {
    /// Shown from the start, with a series for each reason.
    pub(super) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        for reason in [
            "ended",
            "other_program",
            "pod",
            "namespace",
            "read_much",
            "no_room",
            "unseen",
        ] {
            drop(counts.0.get_or_create(&Reason { reason }));
        }
        metrics.register(|registry| {
            registry.register(
                "processes_refused",
                "Processes on the shared socket that were not served, by reason",
                counts.0.clone(),
            );
        });
        counts
    }

    pub(super) fn no_room(&self) {
        self.count("no_room");
    }

    pub(super) fn refused(&self, error: &UnixError) {
        let reason = match error {
            UnixError::Changed(Changed::Gone) => "ended",
            UnixError::Changed(Changed::Program) => "other_program",
            UnixError::InPod => "pod",
            UnixError::OtherNamespace(_) => "namespace",
            UnixError::Unread(_) => "read_much",
            UnixError::Io(_) => "unseen",
        };
        self.count(reason);
    }

    fn count(&self, reason: &'static str) {
        self.0.get_or_create(&Reason { reason }).inc();
    }
}
