//! The CSI driver, and what it asks of the rest of the agent: a socket for each volume, and the manager's attention.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use signet_runtime::drain::Drain;
use signet_runtime::uds;

use super::make_parent;
use crate::config::{Config, MounterKind};
use crate::csi::mount::{BindMounter, LinkMounter, Mounter};
use crate::csi::volumes::{KeptToken, VolumeRecord, Volumes};
use crate::csi::{Driver, DriverConfig, VolumeSink};
use crate::manager::{Manager, PodToken, PodVolume, VolumeEvents};
use crate::sockets::{Endpoint, Origin, ServedSocket};

/// Any user of any container of the pod may connect: the socket itself is the attestation, and only that pod has it.
const SOCKET_MODE: u32 = 0o777;

/// Rebuilds the sockets of every known volume, then listens for kubelet.
pub(super) fn start_csi(
    config: &Config,
    volumes: Volumes,
    endpoint: &Endpoint,
    manager: Manager,
    drain: &Drain,
) -> anyhow::Result<()> {
    let csi = &config.csi;
    let driver = DriverConfig {
        driver_name: csi.driver_name.clone(),
        socket_path: csi.socket_path(),
        registration_dir: csi.registration_dir(),
        kubelet_dir: csi.kubelet_dir.clone(),
        node_name: node_name(config)?,
        token_audience: config.pod_audience(),
    };
    make_parent(&driver.socket_path)?;
    let mounter: Arc<dyn Mounter> = match csi.mounter {
        MounterKind::Bind => Arc::new(BindMounter),
        MounterKind::Link => Arc::new(LinkMounter),
    };
    let sink = Arc::new(VolumeSockets::new(endpoint.clone(), Arc::new(manager)));
    Driver::restore(driver, volumes, mounter, sink).serve(drain)
}

fn node_name(config: &Config) -> anyhow::Result<String> {
    if !config.node.name.is_empty() {
        return Ok(config.node.name.clone());
    }
    if let Ok(name) = std::env::var("SIGNET_NODE_NAME")
        && !name.is_empty()
    {
        return Ok(name);
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("node.name is not set, nor is the host name")?;
    Ok(name.trim().to_owned())
}

/// The sockets that are open.
struct VolumeSockets {
    endpoint: Endpoint,
    events: Arc<dyn VolumeEvents>,
    open: Mutex<HashMap<String, ServedSocket>>,
}

impl VolumeSockets {
    fn new(endpoint: Endpoint, events: Arc<dyn VolumeEvents>) -> Self {
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
