//! What an operator watches of files that are kept. Units are in the names, SPIFFE IDs in no label.

use std::sync::atomic::AtomicI64;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Metric;
use signet_certs::time::unix_seconds;
use signet_runtime::telemetry::Metrics;

type GaugeI64 = Gauge<i64, AtomicI64>;

/// Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    not_after: GaugeI64,
    next_update: GaugeI64,
    written: GaugeI64,
    pub publications: Counter,
    pub publish_failures: Counter,
    pub hooks: Counter,
    pub hook_failures: Counter,
}

impl Observed {
    pub(super) fn register(metrics: &Metrics) -> Self {
        Self {
            not_after: one(
                metrics,
                "certificate_not_after_timestamp_seconds",
                "End of the certificate in the files as Unix time, 0 without one",
            ),
            next_update: one(
                metrics,
                "crl_next_update_timestamp_seconds",
                "Earliest end of a revocation list in the files as Unix time, 0 without one",
            ),
            written: one(
                metrics,
                "set_written_timestamp_seconds",
                "When the newest set was written as Unix time, 0 before the first",
            ),
            publications: one(metrics, "sets_written", "Sets of files that were written"),
            publish_failures: one(
                metrics,
                "publish_failures",
                "Attempts to write a set that failed; the set before stays",
            ),
            hooks: one(metrics, "hooks_done", "Hooks that succeeded"),
            hook_failures: one(
                metrics,
                "hook_failures",
                "Hooks that failed or hung; each is tried again",
            ),
        }
    }

    /// A set of an earlier run is in place.
    pub(super) fn set_found(&self, not_after: SystemTime) {
        self.not_after.set(unix_seconds(not_after));
    }

    /// A set is in place.
    pub(super) fn set_written(
        &self,
        now: SystemTime,
        not_after: SystemTime,
        next_update: Option<SystemTime>,
    ) {
        self.not_after.set(unix_seconds(not_after));
        self.next_update.set(next_update.map_or(0, unix_seconds));
        self.written.set(unix_seconds(now));
        self.publications.inc();
    }
}

fn one<M: Metric + Clone + Default>(metrics: &Metrics, name: &str, help: &str) -> M {
    let metric = M::default();
    metrics.register(|registry| registry.register(name, help, metric.clone()));
    metric
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use signet_runtime::ready::Readiness;

    use super::*;
    use crate::write::standing::REASONS;

    #[test]
    fn the_documentation_names_every_metric_and_no_other() {
        let metrics = Metrics::new("signet_agent_write");
        let _observed = Observed::register(&metrics);
        Readiness::new(REASONS).register(&metrics);
        let text = metrics.encode();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let names =
            series.filter_map(|line| line.split(['{', ' ']).next()?.strip_prefix("signet_agent_write_"));
        let page = include_str!("../../../docs/files.md");
        let rows = page
            .lines()
            .skip_while(|line| !line.starts_with("| metric |"))
            .skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let documented: BTreeSet<&str> = rows.filter_map(|line| line.split('`').nth(1)).collect();
        assert_eq!(documented, names.collect());
    }
}
