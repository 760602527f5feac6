//! Pods that are gone, where their certificates are to go with them (`revocation.on_pod_deletion`). Best effort, by design: what a
//! watch did not show while the server was down ends by itself, and lists give to this what nobody else needs.

use std::{sync::Arc, time::Duration};

use signet_runtime::drain::Drain;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    attest::Attestor,
    store::{StoreError, SvidFilter},
    unasked::Unasked,
};

/// Pods that may wait; more than a cluster loses at once.
const WAITING: usize = 65_536;
/// Between a failure of the store and the next try.
const PAUSE: Duration = Duration::from_secs(5);

/// A pod that a watch shows no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GonePod {
    /// Name of its cluster in the configuration.
    pub cluster: String,
    /// Its UID.
    pub pod_uid: String,
}

/// Where watches say which pods are gone. They never wait.
#[derive(Clone, Debug)]
pub(crate) struct TellGone(mpsc::Sender<GonePod>);

impl TellGone {
    /// Its certificates end by themselves where too many wait already.
    pub(crate) fn tell(&self, pod: GonePod) {
        if let Err(error) = self.0.try_send(pod) {
            tracing::warn!(%error, "certificates of a pod that is gone are not revoked, and end by themselves");
        }
    }
}

/// What [`GonePods`] reads.
pub(crate) fn channel() -> (TellGone, mpsc::Receiver<GonePod>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (TellGone(sender), receiver)
}

/// Revokes what pods had that are gone.
pub(crate) struct GonePods {
    /// Revokes; its store has the certificates.
    pub unasked: Unasked,
    /// Says which cluster has which UID.
    pub attestor: Arc<dyn Attestor>,
}

impl GonePods {
    /// One pod after the other; ends with the drain.
    pub(crate) async fn run(self, mut gone: mpsc::Receiver<GonePod>, drain: Drain) {
        loop {
            let pod = tokio::select! {
                () = drain.signalled() => return,
                pod = gone.recv() => match pod {
                    Some(pod) => pod,
                    None => return drain.signalled().await,
                },
            };
            while let Err(error) = self.revoke_all_of(&pod).await {
                tracing::error!(%error, "certificates of a pod that is gone wait for the store");
                tokio::select! {
                    () = drain.signalled() => return,
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }

    async fn revoke_all_of(&self, pod: &GonePod) -> Result<(), StoreError> {
        let clusters = self.attestor.clusters();
        let cluster_uid = clusters.into_iter().find(|known| known.name == pod.cluster);
        let Some(cluster_uid) = cluster_uid.and_then(|known| known.uid) else {
            return Ok(());
        };
        let filter = SvidFilter {
            pod: Some(pod.pod_uid.clone()),
            live_at: Some(self.unasked.clock.time().earliest),
            limit: u32::MAX,
            ..SvidFilter::default()
        };
        // Found beside the writer, which has one scan less for each pod of a cluster that is emptied.
        let rows = self.unasked.store.list(filter).await?.rows;
        for row in rows.iter().filter(|row| row.workload.cluster_uid == cluster_uid) {
            self.unasked.revoke(row, "its pod is gone".to_owned()).await?;
        }
        Ok(())
    }
}
