//! Clusters by name.

use super::MemoryStore;
use crate::store::{ClusterRow, Clusters, StoreFuture};

impl Clusters for MemoryStore {
    fn clusters(&self) -> StoreFuture<'_, Vec<ClusterRow>> {
        self.look(|kept| kept.clusters.values().cloned().collect())
    }

    fn save_cluster(&self, cluster: ClusterRow) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            kept.clusters.insert(cluster.name.clone(), cluster);
            Ok(())
        })
    }
}
