//! Which cluster it is: its UID, by which a name of the configuration means one cluster for good.

use std::time::Duration;

use signet_runtime::sync::MutexGuard;
use tokio::time::Instant;

use super::Cluster;
use crate::attest::AttestError;
use crate::attest::policy::ClusterRef;
use crate::kubernetes::api::Purpose;
use crate::kubernetes::objects::cluster_uid;
use crate::store::StoreError;

pub(super) const PIN_AGAIN_AFTER: Duration = Duration::from_secs(2);
const PINNING: Purpose = Purpose {
    doing: "reading the namespace kube-system, whose UID names the cluster",
    permission: "get namespaces (kube-system)",
};

/// Why the cluster's UID is not known.
#[derive(Debug, Clone)]
pub(in crate::attest::cluster) enum PinError {
    /// For good: this is not the cluster meant.
    OtherCluster(String),
    Unavailable(AttestError),
}

impl Cluster {
    /// The cluster's UID, read once and held against the configured one.
    pub(in crate::attest::cluster) async fn pin(&self) -> Result<&str, PinError> {
        if let Some(uid) = self.uid.get() {
            return Ok(uid);
        }
        if let Some((at, problem)) = &*self.pin_problem()
            && (matches!(problem, PinError::OtherCluster(_)) || at.elapsed() < Duration::from_secs(1))
        {
            return Err(problem.clone());
        }
        let pinned = self.uid.get_or_try_init(|| self.read_uid()).await;
        if let Err(error) = &pinned {
            *self.pin_problem() = Some((Instant::now(), error.clone()));
        }
        pinned.map(String::as_str)
    }

    /// Reads which cluster it is. A name of the configuration means one cluster for good: identities, denials and agents
    /// are known by it, and another cluster would inherit them.
    async fn read_uid(&self) -> Result<String, PinError> {
        let read = cluster_uid(&self.api).await;
        let unread = |error| PinError::Unavailable(self.api.unavailable(PINNING, &error).into());
        let uid = read.map_err(unread)?;
        let known = self.remembered.row().uid;
        match (&self.settings.expected_uid, known) {
            (Some(expected), _) if *expected != uid => Err(PinError::OtherCluster(format!(
                "the API server belongs to the cluster {uid}, the configuration says {expected}; \
                 correct its address or its `uid`"
            ))),
            (None, Some(known)) if known != uid => Err(PinError::OtherCluster(format!(
                "the API server belongs to the cluster {uid}, and this name has meant the cluster {known} so far; correct its \
                 address, give the new cluster a name of its own, or write `uid: {uid}` if it takes the place of the old one"
            ))),
            _ => {
                let kept = self.remembered.change(|row| row.uid = Some(uid.clone())).await;
                kept.map_err(|error| PinError::Unavailable(self.not_kept(&error)))?;
                Ok(uid)
            }
        }
    }

    /// Whether this is the cluster with this UID, as its API server has said in this process.
    pub(in crate::attest::cluster) fn is_pinned_to(&self, uid: &str) -> bool {
        self.uid.get().is_some_and(|known| known == uid)
    }

    fn not_kept(&self, error: &StoreError) -> AttestError {
        AttestError::Unavailable {
            message: format!("cluster `{}`: {error}", self.settings.name),
            retry_after: PIN_AGAIN_AFTER,
        }
    }

    pub(super) fn pin_problem(&self) -> MutexGuard<'_, Option<(Instant, PinError)>> {
        self.pin_problem.lock()
    }

    pub(super) async fn reference(&self) -> Result<ClusterRef<'_>, AttestError> {
        match self.pin().await {
            Ok(uid) => Ok(ClusterRef {
                name: &self.settings.name,
                uid,
            }),
            Err(PinError::Unavailable(error)) => Err(error),
            Err(PinError::OtherCluster(problem)) => Err(AttestError::Unavailable {
                message: format!("cluster `{}`: {problem}", self.settings.name),
                retry_after: Duration::from_secs(60),
            }),
        }
    }
}
