//! What the store has of agents, in memory where it was read once.

use std::collections::HashMap;

use signet_certs::id::SpiffeId;
use signet_runtime::sync::Mutex;

use crate::store::{AgentRow, Store, StoreError};

/// Agents as last attested.
#[derive(Debug, Default)]
pub(super) struct Rows(Mutex<HashMap<SpiffeId, AgentRow>>);

impl Rows {
    /// See [`Agents::row`](super::Agents::row).
    pub(super) async fn of(
        &self,
        agent: &SpiffeId,
        store: &dyn Store,
    ) -> Result<Option<AgentRow>, StoreError> {
        if let Some(row) = self.0.lock().get(agent) {
            return Ok(Some(row.clone()));
        }
        let read = store.agents().await?;
        let mut rows = self.0.lock();
        for row in read {
            rows.entry(row.spiffe_id.clone()).or_insert(row);
        }
        Ok(rows.get(agent).cloned())
    }

    /// See [`Agents::attested`](super::Agents::attested).
    pub(super) fn attested(&self, row: AgentRow) {
        self.0.lock().insert(row.spiffe_id.clone(), row);
    }
}
