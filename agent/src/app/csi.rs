//! The CSI driver's place in the agent.

use std::sync::Arc;

use anyhow::Context;
use signet_runtime::drain::Drain;

use super::make_parent;
use crate::config::{Config, MounterKind};
use crate::csi::mount::{BindMounter, LinkMounter, Mounter};
use crate::csi::sockets::VolumeSockets;
use crate::csi::volumes::Volumes;
use crate::csi::{Driver, DriverConfig};
use crate::manager::Manager;
use crate::sockets::Endpoint;

/// Rebuilds the sockets of every known volume, then listens for kubelet.
pub(super) fn start(
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
    let sink = Arc::new(VolumeSockets::new(endpoint.clone(), manager));
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
