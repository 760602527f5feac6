//! What workloads may ask about themselves.

use std::time::SystemTime;

use signet_runtime::clock::Clock as _;
use signet_runtime::drain::Drain;
use tokio::sync::watch;
use tonic::service::Routes;

use super::{Agent, Wires};
use crate::explain::{Why, follow};
use crate::manager::Manager;

impl Agent {
    /// These with the service, and the task that keeps since when the server is there.
    pub(super) fn explaining(
        &self,
        routes: Routes,
        wires: &Wires,
        manager: &Manager,
        drain: &Drain,
    ) -> Routes {
        let since = watch::Sender::<SystemTime>::new(self.clock.now());
        let why = Why {
            trust_domain: self.config.trust_domain.clone(),
            time: self.clock.clone(),
            node: wires.node.subscribe(),
            connection: wires.connection.subscribe(),
            since: since.subscribe(),
            trust: wires.trust.subscribe(),
            outage: wires.outage.subscribe(),
            manager: manager.clone(),
        };
        let connection = wires.connection.subscribe();
        drain.spawn_worker(
            "explain",
            follow(connection, since, self.clock.clone(), drain.clone()),
        );
        why.join(routes)
    }
}
