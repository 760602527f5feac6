//! The CSI driver's place in the agent.

use std::sync::Arc;

use anyhow::Context;
use signet_runtime::drain::Drain;
use signet_runtime::files::make_parent;

use crate::config::{Csi, MounterKind};
use crate::csi::mount::{BindMounter, LinkMounter, Mounter};
use crate::csi::sockets::VolumeSockets;
use crate::csi::volumes::Volumes;
use crate::csi::{Driver, DriverConfig};
use crate::manager::Manager;
use crate::sockets::Endpoint;

/// Rebuilds the sockets of every known volume, then listens for kubelet. Returns the driver, for who calls it in kubelet's place.
pub(super) fn start(
    config: Csi,
    node: Option<String>,
    volumes: Volumes,
    max_volumes: usize,
    endpoint: &Endpoint,
    manager: Manager,
    drain: &Drain,
) -> anyhow::Result<Driver> {
    let driver = DriverConfig {
        driver_name: config.driver_name,
        socket_path: config.socket_path,
        registration_dir: config.registration_dir,
        kubelet_dir: config.kubelet_dir,
        node_name: node.map_or_else(node_name, Ok)?,
        token_audience: config.audience,
        max_volumes,
    };
    make_parent(&driver.socket_path)?;
    let mounter: Arc<dyn Mounter> = match config.mounter {
        MounterKind::Bind => Arc::new(BindMounter),
        MounterKind::Link => Arc::new(LinkMounter),
    };
    let sink = Arc::new(VolumeSockets::new(endpoint.clone(), manager));
    let driver = Driver::restore(driver, volumes, mounter, sink);
    driver.clone().serve(drain)?;
    Ok(driver)
}

/// The node's name where the configuration does not give it.
fn node_name() -> anyhow::Result<String> {
    if let Ok(name) = std::env::var("SIGNET_NODE_NAME")
        && !name.is_empty()
    {
        return Ok(name);
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("node.name is not set, nor is the host name")?;
    Ok(name.trim().to_owned())
}
