//! What workloads may ask about themselves.

use tonic::service::Routes;

use super::{Agent, Wires};
use crate::explain::Why;
use crate::manager::Manager;

impl Agent {
    /// These with the service.
    pub(super) fn explaining(&self, routes: Routes, wires: &Wires, manager: &Manager) -> Routes {
        let why = Why {
            trust_domain: self.config.trust_domain.clone(),
            time: self.clock.clone(),
            node: wires.node.subscribe(),
            connection: wires.connection.subscribe(),
            trust: wires.trust.subscribe(),
            outage: wires.outage.subscribe(),
            manager: manager.clone(),
        };
        why.join(routes)
    }
}
