//! What is measured, said and answered of the parts.

use signet_runtime::drain::Drain;
use signet_runtime::ready::Readiness;
use signet_runtime::telemetry::Metrics;

use super::wires::Wires;
use super::{Agent, metrics};
use crate::admin::Admin;
use crate::csi::standing::Standing;
use crate::manager::Manager;
use crate::readiness;

impl Agent {
    /// What is measured, said and answered of the parts.
    pub(super) fn observe(&self, wires: &Wires, metrics: &Metrics, readiness: &Readiness, drain: &Drain) {
        let (clock, ending) = (self.clock.clone(), drain.clone());
        drain.spawn_worker("metrics", metrics::keep(metrics, wires, clock, ending.clone()));
        drain.spawn_worker(
            "anchors' metrics",
            metrics::keep_anchors(metrics, self.anchors.clone(), ending.clone()),
        );
        drain.spawn_worker("key exchange", metrics::keep_key_exchange(metrics, wires, ending));
        drain.spawn_worker("clock", self.clock.clone().watch(drain.clone()));
        let watched = readiness::Watched {
            clock: self.clock.clone(),
            node: wires.node.subscribe(),
            trust: wires.trust.subscribe(),
            connection: wires.connection.subscribe(),
        };
        readiness::start(watched, readiness, drain);
    }

    /// What a person at the node sees.
    pub(super) fn admin(
        &self,
        wires: &Wires,
        readiness: &Readiness,
        manager: &Manager,
        standing: &Standing,
    ) -> Admin {
        Admin {
            trust_domain: self.config.trust_domain.clone(),
            time: self.clock.clone(),
            readiness: readiness.clone(),
            node: wires.node.subscribe(),
            connection: wires.connection.subscribe(),
            key_exchange: wires.key_exchange.subscribe(),
            trust: wires.trust.subscribe(),
            outage: wires.outage.subscribe(),
            anchors: self.anchors.clone(),
            manager: manager.clone(),
            not_kept: self.places.problem.clone(),
            volumes: standing.subscribe(),
        }
    }
}
