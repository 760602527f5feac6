//! A socket for each volume: what the driver's [`VolumeSink`] is in a running agent.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use signet_runtime::sync::Mutex;
use signet_runtime::uds;

use super::VolumeSink;
use super::volumes::VolumeRecord;
use crate::manager::{Manager, PodVolume};
use crate::sockets::{Endpoint, Origin, ServedSocket};
use crate::token::PodToken;

/// Any user of any container of the pod may connect: the socket itself is the attestation, and only that pod has it.
const SOCKET_MODE: u32 = 0o777;

/// The sockets of this node's volumes, each known to the manager before anybody can reach it.
pub(crate) struct VolumeSockets {
    endpoint: Endpoint,
    manager: Manager,
    open: Mutex<HashMap<String, ServedSocket>>,
}

impl VolumeSockets {
    /// Without sockets. They are served by this endpoint, and their volumes reported to this manager.
    #[must_use]
    pub(crate) fn new(endpoint: Endpoint, manager: Manager) -> Self {
        Self {
            endpoint,
            manager,
            open: Mutex::default(),
        }
    }
}

impl VolumeSink for VolumeSockets {
    fn open(&self, volume: &VolumeRecord, socket: &Path, svid_file: &Path) -> anyhow::Result<()> {
        let listener = uds::bind(socket, SOCKET_MODE, None, None)?;
        // The manager first: whoever connects finds the volume known.
        self.manager.volume_ready(PodVolume {
            volume_id: volume.volume_id.clone(),
            pod_uid: volume.pod_uid.clone(),
            pod: volume.pod(),
            socket: socket.to_owned(),
            svid_file: svid_file.to_owned(),
        });
        let origin = Origin::Volume {
            volume_id: volume.volume_id.clone(),
            pod_uid: volume.pod_uid.clone(),
        };
        let served = self.endpoint.serve(listener, origin);
        self.open.lock().insert(volume.volume_id.clone(), served);
        Ok(())
    }

    fn token(&self, volume_id: &str, token: Arc<PodToken>) {
        self.manager.token_refreshed(volume_id, token);
    }

    fn cut_off(&self, volume_id: &str) {
        self.manager.volume_cut_off(volume_id);
    }

    fn missed(&self, volume_id: &str) {
        self.manager.volume_missed(volume_id);
    }

    fn close(&self, volume_id: &str) {
        self.manager.volume_removed(volume_id);
        if let Some(served) = self.open.lock().remove(volume_id) {
            // kubelet does not wait for the pod's streams; they are told within the endpoint's drain limit.
            signet_runtime::spans::spawn(served.close());
        }
    }
}
