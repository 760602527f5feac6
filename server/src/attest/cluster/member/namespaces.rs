//! Labels of the namespaces that pods are in: from their watch, or read where that does not show them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::keyed::Keyed;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::Cluster;
use crate::attest::{AttestError, AttestedPod};
use crate::kubernetes::api::{CallError, Purpose, Unavailable};
use crate::kubernetes::budget::Payer;
use crate::kubernetes::namespaces::{Labels, get_labels};

/// How long one read may take with its turn: it comes after an attestation, and agents wait 30 s for both.
const LONGEST_LOOK: Duration = Duration::from_secs(4);
/// When a namespace that is not there is looked for again: its pods are about to go with it.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
const READING: Purpose = Purpose {
    doing: "reading a namespace, whose labels a rule asks for",
    permission: "get, list and watch namespaces",
};

/// What a read of a namespace came to.
type Look = OnceCell<Result<Labels, Unavailable>>;

/// Reads that are under way, by the namespace and the UID of the node that pays: all pods of that namespace and node want the same.
pub(super) type Looks = Keyed<(String, String), Look>;

impl Cluster {
    /// Labels of a proven pod's namespace. In an outage they are those that the watch showed when it began.
    pub(in crate::attest::cluster) async fn namespace_labels(
        &self,
        pod: &AttestedPod,
    ) -> Result<Arc<BTreeMap<String, String>>, AttestError> {
        if let Some(labels) = self.known_labels(&pod.namespace) {
            return Ok(labels);
        }
        let look = self.looks.take((pod.namespace.clone(), pod.node_uid.clone()));
        let found = look.get_or_init(|| self.look_at_namespace(&pod.namespace, &pod.node_uid));
        let found = timeout(LONGEST_LOOK, found).await;
        // The next question is asked afresh.
        look.end();
        match found {
            Ok(found) => Ok(found.clone()?),
            Err(_) => Err(self.api.unavailable(READING, &CallError::Timeout).into()),
        }
    }

    /// Labels that the watch shows, where that may be believed.
    pub(super) fn known_labels(&self, namespace: &str) -> Option<Labels> {
        let is_believed = self.namespaces.holds() || self.reach.in_grace().is_some();
        self.namespaces.labels(namespace).filter(|_| is_believed)
    }

    async fn look_at_namespace(&self, name: &str, node_uid: &str) -> Result<Labels, Unavailable> {
        let read = async {
            let _under_way = self.api.admit(Payer::PodsOf(node_uid)).await?;
            get_labels(&self.api, name).await
        };
        let found = read
            .await
            .map_err(|error| self.api.unavailable(READING, &error))?;
        let labels = found.ok_or_else(|| self.no_namespace(name))?;
        self.namespaces.was_read(name, &labels);
        Ok(labels)
    }

    /// Not a verdict: labels that nobody can see are not missing ones.
    fn no_namespace(&self, name: &str) -> Unavailable {
        Unavailable {
            message: format!(
                "cluster `{}`: the namespace {name} is not there, and a rule asks for its labels",
                self.settings.name
            ),
            retry_after: LOOK_AGAIN_AFTER,
        }
    }
}
