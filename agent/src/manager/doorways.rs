//! The pods that can be attached to, by their volumes: whoever calls over a pod's socket is let in here, at the same price however many
//! pods there are, and waits behind nobody. What a pod is told is the worker's, who has the other end of each channel.

use std::collections::HashMap;

use signet_runtime::sync::Mutex;
use tokio::sync::watch;

use crate::context::{AttachError, WorkloadState};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Doorways(Mutex<State>);

#[derive(Default)]
struct State {
    /// The pod that each volume is pinned to.
    owners: HashMap<String, String>,
    pods: HashMap<String, Doorway>,
}

struct Doorway {
    sender: watch::Sender<WorkloadState>,
    volumes: usize,
}

impl Doorways {
    /// A volume of this pod. `tell` is given the pod's channel; it hears of all volumes in the order in which they come and go. False for a
    /// volume that is pinned to another pod, of which nobody hears.
    pub(super) fn add(
        &self,
        volume_id: &str,
        pod_uid: &str,
        tell: impl FnOnce(watch::Sender<WorkloadState>),
    ) -> bool {
        let mut state = self.0.lock();
        let State { owners, pods } = &mut *state;
        if owners.get(volume_id).is_some_and(|owner| owner != pod_uid) {
            return false;
        }
        let doorway = pods.entry(pod_uid.to_owned()).or_insert_with(|| Doorway {
            sender: watch::Sender::new(WorkloadState::Pending { problem: None }),
            volumes: 0,
        });
        if owners.insert(volume_id.to_owned(), pod_uid.to_owned()).is_none() {
            doorway.volumes += 1;
        }
        tell(doorway.sender.clone());
        true
    }

    /// The volume is gone, and with the last one its pod.
    pub(super) fn remove(&self, volume_id: &str, tell: impl FnOnce()) {
        let mut state = self.0.lock();
        if let Some(owner) = state.owners.remove(volume_id)
            && let Some(doorway) = state.pods.get_mut(&owner)
        {
            doorway.volumes -= 1;
            if doorway.volumes == 0 {
                state.pods.remove(&owner);
            }
        }
        tell();
    }

    /// Subscribes whoever calls over a volume's socket.
    ///
    /// # Errors
    /// When the volume is not this pod's, or is gone.
    pub(super) fn attach(
        &self,
        volume_id: &str,
        pod_uid: &str,
    ) -> Result<watch::Receiver<WorkloadState>, AttachError> {
        let state = self.0.lock();
        let is_its_own = state.owners.get(volume_id).is_some_and(|owner| owner == pod_uid);
        let doorway = state.pods.get(pod_uid).filter(|_| is_its_own);
        let unknown =
            || AttachError::Unavailable("the volume of this socket is not known (any more)".to_owned());
        doorway
            .map(|doorway| doorway.sender.subscribe())
            .ok_or_else(unknown)
    }
}
