//! Pods and service accounts as the API server writes them, as far as they matter.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::shared::Shared;
use super::{LivePod, PodPhase};
use crate::kubernetes::watch::Object;

/// A pod as the API server writes it, the rest left unread.
#[derive(Deserialize)]
pub(in crate::kubernetes) struct PodItem {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

/// A service account as the API server writes it.
#[derive(Deserialize)]
pub(in crate::kubernetes) struct AccountItem {
    pub(super) metadata: Metadata,
}

impl Object for PodItem {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Object for AccountItem {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Metadata of either.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    service_account_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: PodPhase,
}

impl PodItem {
    /// What matters of it, sharing with other pods what they have in common.
    pub(super) fn into_pod(self, shared: &mut Shared) -> LivePod {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        LivePod {
            uid: metadata.uid.into(),
            namespace: shared.text(metadata.namespace),
            name: metadata.name.into(),
            service_account: shared.text(spec.service_account_name.unwrap_or_default()),
            node_name: shared.text(spec.node_name.unwrap_or_default()),
            phase: status.phase,
            labels: shared.labels(metadata.labels.unwrap_or_default()),
            terminating: metadata.deletion_timestamp.is_some(),
        }
    }
}

impl From<PodItem> for LivePod {
    fn from(item: PodItem) -> Self {
        item.into_pod(&mut Shared::default())
    }
}
