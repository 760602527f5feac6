//! How often callers met a bound, and the word in the log about it.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use signet_runtime::tally::Tally;
use signet_runtime::telemetry::Metrics;

/// As `/metrics` shows it.
pub(crate) const METRIC: &str = "signet_agent_workloads_refused_total";

/// How often the log has a line.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What a caller had too much of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// A new connection was closed.
    Connections,
    /// A connection of the caller with the most was closed, for one who has fewer.
    Evicted,
    /// A call was told to retry.
    Calls,
    /// A call was told to retry.
    Bytes,
    /// A connection was closed, a new one or one that has long brought more than may be sent.
    Work,
    /// A call was told to retry, as many have come in a short time.
    Attaches,
    /// A request of secret discovery waited, as many have come in a short time.
    Requests,
    /// A stream ended whose client has not taken lists that were replaced.
    Lists,
}

impl Bound {
    const ALL: [Self; 8] = [
        Self::Connections,
        Self::Evicted,
        Self::Calls,
        Self::Bytes,
        Self::Work,
        Self::Attaches,
        Self::Requests,
        Self::Lists,
    ];

    const fn label(self) -> Label {
        let bound = match self {
            Self::Connections => "connections",
            Self::Evicted => "evicted",
            Self::Calls => "calls",
            Self::Bytes => "bytes",
            Self::Work => "work",
            Self::Attaches => "attaches",
            Self::Requests => "requests",
            Self::Lists => "lists",
        };
        Label { bound }
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Label {
    bound: &'static str,
}

/// Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    refused: Family<Label, Counter>,
    tally: Arc<Tally>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            refused: Family::default(),
            tally: Arc::new(Tally::new(TELL_EVERY)),
        }
    }
}

impl Counts {
    /// Shown from the start, with a series for each bound.
    pub(super) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        for bound in Bound::ALL {
            drop(counts.refused.get_or_create(&bound.label()));
        }
        metrics.register(|registry| {
            registry.register(
                "workloads_refused",
                "Connections and calls on workload sockets that met a bound of their caller, by bound",
                counts.refused.clone(),
            );
        });
        counts
    }

    /// Somebody met this bound.
    pub(super) fn met(&self, bound: Bound) {
        self.refused.get_or_create(&bound.label()).inc();
        if let Some(number) = self.tally.count() {
            tracing::warn!(
                number,
                last = bound.label().bound,
                "workloads met bounds of what one caller may use; metrics tell which"
            );
        }
    }
}
