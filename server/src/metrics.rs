//! What the server counts. Each metric stands in one table with its field, its name and its meaning, and a test holds
//! docs/operating.md against it. SPIFFE IDs are never labels.

mod key_exchanges;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::SystemTime,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use signet_certs::{authority::AuthorityKind, time::unix_seconds};
use signet_runtime::refusals::{Refusals, Refused};

use self::key_exchanges::Had;
pub(crate) use self::key_exchanges::KeyExchanges;
use crate::trust::{PublishedAuthority, TrustSnapshot};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

type GaugeI64 = Gauge<i64, AtomicI64>;

/// Fields, and for each its name without the prefix `signet_server_` and its meaning.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $name:literal, $help:literal;)+) => {
        /// The server's counters and gauges.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $($field: $kind,)+
        }

        impl Metrics {
            fn registered(registry: &mut Registry) -> Self {
                let metrics = Self::default();
                $(registry.register($name, $help, metrics.$field.clone());)+
                metrics
            }
        }

        /// Name and meaning of every metric.
        #[cfg(test)]
        const METRICS: &[(&str, &str)] = &[$(($name, $help)),+];
    };
}

metrics! {
    issued: Counter<u64, AtomicU64> = "certificates_issued", "Certificates signed for workloads and agents";
    refused: Family<Reason, Counter> = "certificates_refused", "Certificates refused, by reason";
    displaced: Counter = "certificates_displaced",
        "Certificates that a newer one of the same workload displaced while they were unexpired";
    displaced_many: Counter = "certificates_displaced_over_bound",
        "Certificates displaced where more than 32 of the same workload were displaced and unexpired";
    unavailable: Counter = "certificates_unavailable", "Requests that could not be decided or carried out";
    revoked: Counter = "certificates_revoked", "Certificates revoked";
    agents: GaugeI64 = "agents_connected", "Agents with an open trust stream";
    sequence: GaugeI64 = "bundle_sequence", "Sequence number of the published bundle";
    crl_entries: Family<Kind, GaugeI64> =
        "crl_entries", "Entries of the published CRLs, by kind of authority";
    crl_capacity: Family<Kind, GaugeI64> =
        "crl_capacity_entries", "Entries that the published CRLs may have together, by kind of authority";
    crl_waiting: Family<Kind, GaugeI64> =
        "crl_waiting_entries", "Revoked certificates that no CRL has room for, by kind of authority";
    crl_next_update: Family<Kind, GaugeI64> =
        "crl_next_update_timestamp_seconds", "When the first of the published CRLs ends, by kind of authority";
    authority_not_after: Family<Kind, GaugeI64> =
        "authority_not_after_timestamp_seconds", "When the last of the published authorities ends, by kind";
    lists_unproven: Counter = "lists_unproven",
        "Reports of lists that this store lacks and that the agent did not prove";
    clock_trusted: GaugeI64 = "clock_trusted", "1 while the server knows what time it is";
    clock_contradicted: GaugeI64 =
        "clock_contradicted", "1 while the API servers tell another time than the one the server goes by";
    clock_difference: GaugeI64 = "clock_difference_seconds", "The machine's clock less the time the server goes by";
    refused_at_doors: Refused = "refused",
        "Connections and calls refused or ended because their caller has its share, by door and reason";
    key_exchanges: Family<Had, Counter> = "key_exchanges", "Finished TLS handshakes, by door and group of the key exchange; at the door of agents of those alone that have proved themselves";
    rules_waiting: GaugeI64 = "rules_waiting_withdrawals",
        "Live identities that rules which wait for a confirmation would withdraw; 0 while none wait";
    rules_unusable: GaugeI64 =
        "rules_unusable", "1 while the rules of the configuration file cannot be used and those before are in force";
    reviews_kept: GaugeI64 = "token_reviews_kept", "Reviews of tokens by API servers that are remembered";
    reviews_displaced: Counter = "token_reviews_displaced",
        "Reviews of tokens given up for newer ones of the same pod, or not remembered for want of room";
    audit_dropped: Counter = "audit_lines_dropped", "Audit lines left out because too many waited";
    audit_missed: Counter = "audit_lines_missed", "Audit lines that went by `audit tail --follow` while its reader took none";
    audit_backlog: GaugeI64 = "audit_backlog_lines", "Audit lines that are stored and not yet emitted";
}

/// As a gauge holds it.
fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn of(kind: &'static str) -> Kind {
    Kind { kind }
}

impl Metrics {
    /// Registers every metric.
    #[must_use]
    pub(crate) fn register(telemetry: &signet_runtime::telemetry::Metrics) -> Arc<Self> {
        let metrics = telemetry.register(Self::registered);
        // Series that exist from the start: an alert on their absence then means what it says.
        for kind in ["x509", "control"].map(of) {
            for family in [
                &metrics.crl_entries,
                &metrics.crl_capacity,
                &metrics.crl_waiting,
                &metrics.crl_next_update,
                &metrics.authority_not_after,
            ] {
                drop(family.get_or_create(&kind));
            }
        }
        Arc::new(metrics)
    }

    /// How many live identities the rules that wait would withdraw, and whether those of the file cannot be used.
    pub(crate) fn set_rules(&self, waiting: u64, unusable: bool) {
        self.rules_waiting.set(whole(waiting));
        self.rules_unusable.set(i64::from(unusable));
    }

    /// How many reviews are remembered, and how many ever were given up.
    pub(crate) fn set_reviews(&self, kept: usize, displaced: u64) {
        self.reviews_kept.set(whole(kept));
        let more = displaced.saturating_sub(self.reviews_displaced.get());
        self.reviews_displaced.inc_by(more);
    }

    /// A certificate left the server.
    pub(crate) fn issued(&self) {
        self.issued.inc();
    }

    /// Certificates since the start of the process.
    #[must_use]
    pub(crate) fn issued_total(&self) -> u64 {
        self.issued.get()
    }

    /// Makes a series for each reason, so that an alert on its absence means what it says.
    pub(crate) fn may_refuse(&self, reasons: impl IntoIterator<Item = &'static str>) {
        for reason in reasons {
            drop(self.refused.get_or_create(&Reason { reason }));
        }
    }

    /// Somebody got a no.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// A certificate displaced an older one of its workload, of which `many` were displaced already.
    pub(crate) fn displaced(&self, many: bool) {
        self.displaced.inc();
        if many {
            self.displaced_many.inc();
        }
    }

    /// Certificates displaced since the start of the process.
    #[cfg(test)]
    pub(crate) fn displaced_total(&self) -> u64 {
        self.displaced.get()
    }

    /// Counts what a door refuses, for these reasons and others.
    pub(crate) fn refusals(&self, door: &'static str, reasons: &[&'static str]) -> Refusals {
        Refusals::new(door, &self.refused_at_doors, reasons)
    }

    /// Counts the key exchanges of a door.
    pub(crate) fn key_exchanges(&self, door: &'static str) -> KeyExchanges {
        KeyExchanges::new(door, &self.key_exchanges)
    }

    /// Somebody was told to come back.
    pub(crate) fn unavailable(&self) {
        self.unavailable.inc();
    }

    /// Certificates were revoked that were not before.
    pub(crate) fn revoked(&self, count: usize) {
        self.revoked.inc_by(count as u64);
    }

    /// An agent reported a list that it did not prove.
    pub(crate) fn list_unproven(&self) {
        self.lists_unproven.inc();
    }

    /// Open trust streams.
    pub(crate) fn set_agents(&self, connected: usize) {
        self.agents.set(whole(connected));
    }

    /// Somebody who looks on has missed audit lines.
    pub(crate) fn audit_missed(&self, lines: u64) {
        self.audit_missed.inc_by(lines);
    }

    /// How many audit lines wait, and how many were ever left out.
    pub(crate) fn set_audit(&self, waiting: u64, left_out: u64) {
        self.audit_backlog.set(whole(waiting));
        let more = left_out.saturating_sub(self.audit_dropped.get());
        self.audit_dropped.inc_by(more);
    }

    /// How the clocks stand.
    pub(crate) fn set_clock(&self, trusted: bool, contradicted: bool, wall: SystemTime, steady: SystemTime) {
        self.clock_trusted.set(i64::from(trusted));
        self.clock_contradicted.set(i64::from(contradicted));
        self.clock_difference
            .set(unix_seconds(wall) - unix_seconds(steady));
    }

    /// What is published.
    pub(crate) fn set_published(&self, snapshot: &TrustSnapshot) {
        self.sequence.set(whole(snapshot.sequence));
        for (kind, published) in &snapshot.kinds {
            self.set_kind(kind.as_str(), published);
        }
    }

    /// How many entries the lists of one kind may have, and how many certificates wait to be one.
    pub(crate) fn set_room(&self, kind: AuthorityKind, capacity: usize, waiting: usize) {
        let kind = of(kind.as_str());
        self.crl_capacity.get_or_create(&kind).set(whole(capacity));
        self.crl_waiting.get_or_create(&kind).set(whole(waiting));
    }

    fn set_kind(&self, kind: &'static str, published: &[PublishedAuthority]) {
        let entries: usize = published.iter().map(|one| one.crl.entry_count()).sum();
        self.crl_entries.get_or_create(&of(kind)).set(whole(entries));
        let ends = published.iter().map(|one| one.crl.next_update());
        set_time(&self.crl_next_update, kind, ends.min());
        let ends = published.iter().map(|one| one.certificate.not_after());
        set_time(&self.authority_not_after, kind, ends.max());
    }
}

/// With nothing published the last value stays.
fn set_time(family: &Family<Kind, GaugeI64>, kind: &'static str, time: Option<SystemTime>) {
    if let Some(time) = time {
        family.get_or_create(&of(kind)).set(unix_seconds(time));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::readiness::STARTING;

    #[test]
    fn every_metric_of_the_table_is_there_with_its_help() {
        let telemetry = signet_runtime::telemetry::Metrics::new("signet_server");
        let metrics = Metrics::register(&telemetry);
        metrics.issued();
        metrics.refused("denied");
        drop(metrics.refusals("agents", &["bytes"]));
        drop(metrics.key_exchanges("agents"));
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

    /// Names as Prometheus shows them, less the prefix.
    fn shown(text: &str) -> BTreeSet<&str> {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let names = series.filter_map(|line| line.split(['{', ' ']).next());
        names
            .filter_map(|name| name.strip_prefix("signet_server_"))
            .collect()
    }

    #[test]
    fn the_documentation_names_every_metric_and_no_other() {
        let telemetry = signet_runtime::telemetry::Metrics::new("signet_server");
        signet_runtime::ready::Readiness::new(&[STARTING]).register(&telemetry);
        // Without a reason the counters have no series.
        let metrics = Metrics::register(&telemetry);
        metrics.refused("denied");
        drop(metrics.refusals("agents", &["bytes"]));
        drop(metrics.key_exchanges("agents"));
        let page = include_str!("../../docs/operating.md");
        let section = page.split("\n## ").find(|part| part.starts_with("What to watch"));
        let rows = section
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(documented, shown(&telemetry.encode()));
    }
}
