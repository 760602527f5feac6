//! What the CSI driver asks of the rest of the agent: a socket for each volume, and the manager's attention.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signet_runtime::uds;

use crate::csi::VolumeSink;
use crate::csi::volumes::{KeptToken, VolumeRecord};
use crate::manager::{PodToken, PodVolume, VolumeEvents};
use crate::uds::{Endpoint, Origin, ServedSocket};

/// Any user of any container of the pod may connect: the socket itself is the attestation, and only that pod has it.
const SOCKET_MODE: u32 = 0o777;

/// The sockets that are open.
pub(super) struct VolumeSockets {
    endpoint: Endpoint,
    events: Arc<dyn VolumeEvents>,
    open: Mutex<HashMap<String, ServedSocket>>,
}

impl VolumeSockets {
    pub(super) fn new(endpoint: Endpoint, events: Arc<dyn VolumeEvents>) -> Self {
        Self {
            endpoint,
            events,
            open: Mutex::default(),
        }
    }

    fn open_sockets(&self) -> MutexGuard<'_, HashMap<String, ServedSocket>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VolumeSink for VolumeSockets {
    fn open(&self, volume: &VolumeRecord, socket: &Path) -> anyhow::Result<()> {
        let listener = uds::bind(socket, SOCKET_MODE, None, None)?;
        // The manager first: whoever connects finds the volume known.
        self.events.volume_ready(PodVolume {
            volume_id: volume.volume_id.clone(),
            pod_uid: volume.pod_uid.clone(),
            namespace: volume.namespace.clone(),
            name: volume.name.clone(),
            service_account: volume.service_account.clone(),
            token: None,
            socket: socket.to_owned(),
        });
        let origin = Origin::Volume {
            volume_id: volume.volume_id.clone(),
            pod_uid: volume.pod_uid.clone(),
        };
        let served = self.endpoint.serve(listener, origin);
        self.open_sockets().insert(volume.volume_id.clone(), served);
        Ok(())
    }

    fn token(&self, volume_id: &str, token: KeptToken) {
        let token = PodToken {
            secret: token.secret(),
            expires: token.expires(),
        };
        self.events.token_refreshed(volume_id, token);
    }

    fn close(&self, volume_id: &str) {
        self.events.volume_removed(volume_id);
        if let Some(served) = self.open_sockets().remove(volume_id) {
            // kubelet does not wait for the pod's streams; they are told within the endpoint's drain limit.
            tokio::spawn(served.close());
        }
    }
}
