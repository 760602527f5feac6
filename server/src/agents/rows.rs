//! Which node each agent is on, in memory where it was read once.

use std::collections::HashMap;

use signet_certs::id::SpiffeId;
use signet_runtime::sync::RwLock;

use crate::store::{AgentRow, Store, StoreError};

/// An agent and its node, as attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentNode {
    /// `spiffe://<td>/signet/agent/<cluster>/<node-uid>`.
    pub spiffe_id: SpiffeId,
    /// Name of the cluster in the configuration.
    pub cluster: String,
    /// The node's name in its cluster.
    pub node_name: String,
    /// The node's UID in its cluster.
    pub node_uid: String,
}

impl AgentNode {
    /// An agent whose node does not matter.
    pub(super) const fn unknown(spiffe_id: SpiffeId) -> Self {
        Self {
            spiffe_id,
            cluster: String::new(),
            node_name: String::new(),
            node_uid: String::new(),
        }
    }
}

impl From<AgentRow> for AgentNode {
    fn from(row: AgentRow) -> Self {
        Self {
            spiffe_id: row.spiffe_id,
            cluster: row.cluster,
            node_name: row.node_name,
            node_uid: row.node_uid,
        }
    }
}

/// Agents as last attested.
#[derive(Debug, Default)]
pub(super) struct Rows(RwLock<HashMap<SpiffeId, AgentNode>>);

impl Rows {
    /// See [`Agents::node`](super::Agents::node).
    pub(super) async fn of(
        &self,
        agent: &SpiffeId,
        store: &dyn Store,
    ) -> Result<Option<AgentNode>, StoreError> {
        if let Some(node) = self.0.read().get(agent) {
            return Ok(Some(node.clone()));
        }
        let Some(row) = store.agent(agent).await? else {
            return Ok(None);
        };
        // What was attested meanwhile is newer.
        let mut rows = self.0.write();
        Ok(Some(
            rows.entry(agent.clone()).or_insert_with(|| row.into()).clone(),
        ))
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// Forgets agents that are not wanted: they are read again when they come back.
    pub(super) fn retain(&self, wanted: impl Fn(&SpiffeId) -> bool) {
        self.0.write().retain(|agent, _| wanted(agent));
    }

    /// See [`Agents::attested`](super::Agents::attested).
    pub(super) fn attested(&self, node: AgentNode) {
        self.0.write().insert(node.spiffe_id.clone(), node);
    }
}
