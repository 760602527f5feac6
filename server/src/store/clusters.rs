//! Clusters that nodes and pods are attested in: what of them a restart must not forget.

use std::time::SystemTime;

use bytes::Bytes;

use super::StoreFuture;

/// What a store keeps of clusters.
pub(crate) trait Clusters: Send + Sync {
    /// Every cluster that was ever saved, by name.
    fn clusters(&self) -> StoreFuture<'_, Vec<ClusterRow>>;

    /// Keeps a cluster as it is now, all of it, in place of what was known under its name.
    fn save_cluster(&self, cluster: ClusterRow) -> StoreFuture<'_, ()>;
}

/// A cluster as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClusterRow {
    /// Its name in the configuration.
    pub name: String,
    /// UID of its kube-system namespace; none before the first contact.
    pub uid: Option<String>,
    /// Since when its API server cannot be reached; none while it can.
    pub unreachable_since: Option<SystemTime>,
    /// How its tokens are signed; none before they were read.
    pub signing_keys: Option<SigningKeySet>,
}

/// The keys and the issuer of a cluster's tokens, as its API server gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SigningKeySet {
    /// The issuer that discovery names.
    pub issuer: String,
    /// The key set, as it was read.
    pub document: Bytes,
}
