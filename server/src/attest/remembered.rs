//! What the store keeps of one cluster, and the only one that writes it.

use std::sync::Arc;

use signet_runtime::sync::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::store::{ClusterRow, Store, StoreError};

/// One cluster as the store has it.
pub(super) struct Remembered {
    store: Arc<dyn Store>,
    row: Mutex<ClusterRow>,
    /// Held while a change is written, so that none overtakes another.
    writing: AsyncMutex<()>,
}

impl Remembered {
    /// What is known of the cluster with this name.
    pub(super) async fn load(store: Arc<dyn Store>, name: &str) -> Result<Self, StoreError> {
        let known = store.clusters().await?.into_iter().find(|row| row.name == name);
        let row = known.unwrap_or_else(|| ClusterRow {
            name: name.to_owned(),
            ..ClusterRow::default()
        });
        Ok(Self {
            store,
            row: Mutex::new(row),
            writing: AsyncMutex::default(),
        })
    }

    /// The cluster as it was last saved.
    pub(super) fn row(&self) -> ClusterRow {
        self.row.lock().clone()
    }

    /// Saves a change; one that changes nothing costs nothing.
    pub(super) async fn change(&self, change: impl FnOnce(&mut ClusterRow)) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let before = self.row();
        let mut row = before.clone();
        change(&mut row);
        if row != before {
            self.store.save_cluster(row.clone()).await?;
            *self.row.lock() = row;
        }
        Ok(())
    }
}
