//! What an operator watches. Units are in the names, SPIFFE IDs in no label.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use signet_certs::time::unix_seconds;
use signet_certs::tls::KeyExchange;
use signet_runtime::clock::Clock as _;
use signet_runtime::drain::Drain;
use signet_runtime::telemetry::Metrics;

use super::wires::Wires;
use crate::manager::lists_of;
use crate::sds::Observed;
use crate::server_client::anchors::ControlAnchors;
use crate::time::AgentTime;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(15);

type GaugeI64 = Gauge<i64, AtomicI64>;

/// Keeps the gauges as the watched values are, until draining starts.
pub(super) fn keep(
    metrics: &Metrics,
    wires: &Wires,
    time: Arc<AgentTime>,
    drain: Drain,
) -> impl Future<Output = ()> + Send + 'static {
    let expires = gauge(
        metrics,
        "certificate_not_after_timestamp_seconds",
        "End of the agent's own certificate as Unix time, 0 without one",
    );
    let sequence = gauge(
        metrics,
        "bundle_sequence_number",
        "Sequence number of the trust bundle in force",
    );
    let stale = gauge(
        metrics,
        "crl_next_update_timestamp_seconds",
        "Earliest end of a revocation list in force as Unix time, 0 without one",
    );
    let refused = gauge(
        metrics,
        "crls_refused",
        "Revocation lists of the server's last push that are not believed; `status` says why",
    );
    let connected = gauge(
        metrics,
        "server_connected",
        "1 while the trust stream to the server is open",
    );
    let difference = gauge(
        metrics,
        "clock_difference_seconds",
        "How far this machine's clock is from the agent's time, either way",
    );
    let (mut node, mut trust) = (wires.node.subscribe(), wires.trust.subscribe());
    let mut connection = wires.connection.subscribe();
    async move {
        loop {
            let not_after = node
                .borrow_and_update()
                .identity
                .as_ref()
                .map(|identity| identity.not_after);
            expires.set(not_after.map_or(0, unix_seconds));
            let held = trust.borrow_and_update().clone();
            sequence.set(held.as_ref().map_or(0, |held| shown(held.bundle.sequence_number)));
            let ends = held
                .iter()
                .flat_map(|held| &held.x509)
                .filter_map(|authority| Some(authority.crl.as_ref()?.next_update()));
            stale.set(ends.min().map_or(0, unix_seconds));
            refused.set(held.map_or(0, |held| shown(held.refused.len())));
            connected.set(i64::from(connection.borrow_and_update().connected));
            difference.set(shown(time.skew().as_secs()));
            tokio::select! {
                // A clock tells nobody that it was set.
                () = tokio::time::sleep(LOOK) => {}
                () = drain.signalled() => return,
                Ok(()) = node.changed() => {}
                Ok(()) = trust.changed() => {}
                Ok(()) = connection.changed() => {}
                else => return,
            }
        }
    }
}

fn shown(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Labels of a key exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Had {
    group: &'static str,
}

/// The same for the gauges that say which key exchange the connection to the server has had.
pub(super) fn keep_key_exchange(
    metrics: &Metrics,
    wires: &Wires,
    drain: Drain,
) -> impl Future<Output = ()> + Send + 'static {
    let gauges = Family::<Had, GaugeI64>::default();
    let help = "1 for the group of the key exchange with the server while the trust stream is open, else 0";
    metrics.register(|registry| registry.register("server_key_exchange", help, gauges.clone()));
    let (mut connection, mut key_exchange) = (wires.connection.subscribe(), wires.key_exchange.subscribe());
    async move {
        loop {
            let connected = connection.borrow_and_update().connected;
            let had = key_exchange.borrow_and_update().filter(|_| connected);
            for of in KeyExchange::ALL {
                let group = of.name();
                gauges
                    .get_or_create(&Had { group })
                    .set(i64::from(had == Some(of)));
            }
            tokio::select! {
                () = drain.signalled() => return,
                Ok(()) = connection.changed() => {}
                Ok(()) = key_exchange.changed() => {}
                else => return,
            }
        }
    }
}

/// The same for the gauges that say how the anchors file stands.
pub(super) fn keep_anchors(
    metrics: &Metrics,
    anchors: Arc<ControlAnchors>,
    drain: Drain,
) -> impl Future<Output = ()> + Send + 'static {
    let distrusted = gauge(
        metrics,
        "distrusted_authorities",
        "Authorities that the anchors file distrusts, as last read",
    );
    let unusable = gauge(
        metrics,
        "anchors_file_unusable",
        "1 while the anchors file is missing or cannot be read",
    );
    let mut changes = anchors.changes();
    async move {
        loop {
            changes.mark_unchanged();
            let number = anchors.word().distrusted.len();
            distrusted.set(i64::try_from(number).unwrap_or(i64::MAX));
            unusable.set(i64::from(!anchors.file_problem().is_empty()));
            tokio::select! {
                () = drain.signalled() => return,
                Ok(()) = changes.changed() => {}
                else => return,
            }
        }
    }
}

/// What proxies make of what they are sent; what the newest trust is, is known to it until draining starts.
pub(super) fn keep_proxies(
    metrics: &Metrics,
    wires: &Wires,
    time: Arc<AgentTime>,
    drain: &Drain,
) -> Arc<Observed> {
    let observed = Observed::registered(metrics);
    let (of, ending) = (observed.clone(), drain.clone());
    let mut trust = wires.trust.subscribe();
    drain.spawn_worker("newest trust", async move {
        loop {
            if let Some(held) = trust.borrow_and_update().clone() {
                of.newest(&held.bundle_der, &lists_of(&held), time.now());
            }
            tokio::select! {
                () = ending.signalled() => return,
                Ok(()) = trust.changed() => {}
                else => return,
            }
        }
    });
    observed
}

fn gauge(metrics: &Metrics, name: &str, help: &str) -> GaugeI64 {
    let gauge = GaugeI64::default();
    metrics.register(|registry| registry.register(name, help, gauge.clone()));
    gauge
}
