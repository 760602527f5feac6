//! What the server counts. Names are in one table, which the documentation and a test share.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use signet_certs::time::unix_seconds;

use crate::trust::TrustSnapshot;

/// Every metric: name without the prefix `signet_server_`, and its meaning. SPIFFE IDs are never labels.
pub const METRICS: &[(&str, &str)] = &[
    (
        "certificates_issued",
        "Certificates signed for workloads and agents",
    ),
    ("certificates_refused", "Certificates refused, by reason"),
    (
        "certificates_unavailable",
        "Requests that could not be decided or carried out",
    ),
    ("certificates_revoked", "Certificates revoked"),
    ("agents_connected", "Agents with an open trust stream"),
    ("bundle_sequence", "Sequence number of the published bundle"),
    (
        "crl_entries",
        "Entries of the published CRLs, by kind of authority",
    ),
    (
        "crl_next_update_timestamp_seconds",
        "When the first of the published CRLs ends, by kind of authority",
    ),
    (
        "authority_not_after_timestamp_seconds",
        "When the last of the published authorities ends, by kind",
    ),
    (
        "clock_behind_seconds",
        "How far the clock is behind the latest time seen",
    ),
    (
        "audit_backlog_lines",
        "Audit lines that are stored and not yet emitted",
    ),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

type GaugeI64 = Gauge<i64, AtomicI64>;

/// The server's counters and gauges.
#[derive(Debug, Default)]
pub struct Metrics {
    issued: Counter<u64, AtomicU64>,
    issued_total: AtomicU64,
    refused: Family<Reason, Counter>,
    unavailable: Counter,
    revoked: Counter,
    agents: GaugeI64,
    sequence: GaugeI64,
    crl_entries: Family<Kind, GaugeI64>,
    crl_next_update: Family<Kind, GaugeI64>,
    authority_not_after: Family<Kind, GaugeI64>,
    clock_behind: GaugeI64,
    audit_backlog: GaugeI64,
}

impl Metrics {
    /// Registers every metric of [`METRICS`].
    #[must_use]
    pub fn register(telemetry: &signet_runtime::telemetry::Metrics) -> Arc<Self> {
        let metrics = Self::default();
        telemetry.register(|registry| {
            let help = |name: &str| {
                METRICS
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map_or("", |(_, help)| *help)
            };
            registry.register(
                "certificates_issued",
                help("certificates_issued"),
                metrics.issued.clone(),
            );
            registry.register(
                "certificates_refused",
                help("certificates_refused"),
                metrics.refused.clone(),
            );
            registry.register(
                "certificates_unavailable",
                help("certificates_unavailable"),
                metrics.unavailable.clone(),
            );
            registry.register(
                "certificates_revoked",
                help("certificates_revoked"),
                metrics.revoked.clone(),
            );
            registry.register(
                "agents_connected",
                help("agents_connected"),
                metrics.agents.clone(),
            );
            registry.register(
                "bundle_sequence",
                help("bundle_sequence"),
                metrics.sequence.clone(),
            );
            registry.register("crl_entries", help("crl_entries"), metrics.crl_entries.clone());
            registry.register(
                "crl_next_update_timestamp_seconds",
                help("crl_next_update_timestamp_seconds"),
                metrics.crl_next_update.clone(),
            );
            registry.register(
                "authority_not_after_timestamp_seconds",
                help("authority_not_after_timestamp_seconds"),
                metrics.authority_not_after.clone(),
            );
            registry.register(
                "clock_behind_seconds",
                help("clock_behind_seconds"),
                metrics.clock_behind.clone(),
            );
            registry.register(
                "audit_backlog_lines",
                help("audit_backlog_lines"),
                metrics.audit_backlog.clone(),
            );
        });
        // Series that exist from the start: an alert on their absence then means what it says.
        for kind in ["x509", "control"].map(|kind| Kind { kind }) {
            for family in [
                &metrics.crl_entries,
                &metrics.crl_next_update,
                &metrics.authority_not_after,
            ] {
                drop(family.get_or_create(&kind));
            }
        }
        Arc::new(metrics)
    }

    /// A certificate left the server.
    pub fn issued(&self) {
        self.issued.inc();
        self.issued_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Certificates since the start of the process.
    #[must_use]
    pub fn issued_total(&self) -> u64 {
        self.issued_total.load(Ordering::Relaxed)
    }

    /// Somebody got a no.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// Somebody was told to come back.
    pub fn unavailable(&self) {
        self.unavailable.inc();
    }

    /// Certificates were revoked.
    pub fn revoked(&self, count: usize) {
        self.revoked.inc_by(count as u64);
    }

    /// Open trust streams.
    pub fn set_agents(&self, connected: usize) {
        self.agents.set(i64::try_from(connected).unwrap_or(i64::MAX));
    }

    /// What the store's housekeeping found.
    pub fn set_housekeeping(&self, clock_behind: std::time::Duration, audit_backlog: u64) {
        self.clock_behind
            .set(i64::try_from(clock_behind.as_secs()).unwrap_or(i64::MAX));
        self.audit_backlog
            .set(i64::try_from(audit_backlog).unwrap_or(i64::MAX));
    }

    /// What is published.
    pub fn set_published(&self, snapshot: &TrustSnapshot) {
        self.sequence
            .set(i64::try_from(snapshot.sequence).unwrap_or(i64::MAX));
        for (kind, authorities) in [("x509", &snapshot.x509), ("control", &snapshot.control)] {
            let label = Kind { kind };
            let entries: usize = authorities
                .iter()
                .map(|published| published.crl.entry_count())
                .sum();
            self.crl_entries
                .get_or_create(&label)
                .set(i64::try_from(entries).unwrap_or(i64::MAX));
            if let Some(first) = authorities
                .iter()
                .map(|published| published.crl.next_update())
                .min()
            {
                self.crl_next_update
                    .get_or_create(&label)
                    .set(unix_seconds(first));
            }
            if let Some(last) = authorities
                .iter()
                .map(|published| published.certificate.not_after())
                .max()
            {
                self.authority_not_after
                    .get_or_create(&label)
                    .set(unix_seconds(last));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_is_there_with_its_help() {
        let telemetry = signet_runtime::telemetry::Metrics::new("signet_server");
        let metrics = Metrics::register(&telemetry);
        metrics.issued();
        metrics.refused("denied");
        let text = telemetry.encode();
        for (name, help) in METRICS {
            assert!(
                text.contains(&format!("# HELP signet_server_{name} {help}")),
                "{name} in {text}"
            );
        }
        assert!(
            text.contains(r#"signet_server_certificates_refused_total{reason="denied"} 1"#),
            "{text}"
        );
    }
}
