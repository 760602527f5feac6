//! The CSI driver's place in the agent.

use std::sync::Arc;

use anyhow::Context;
use signet_runtime::drain::Drain;
use signet_runtime::environment::{self, NODE_NAME};
use signet_runtime::files::make_parent;

use crate::config::{Csi, MounterKind};
use crate::csi::mount::{BindMounter, LinkMounter, Mounter};
use crate::csi::sockets::VolumeSockets;
use crate::csi::standing::Standing;
use crate::csi::volumes::Volumes;
use crate::csi::{Driver, DriverConfig};
use crate::kept::{Ground, Keeping};
use crate::manager::Manager;
use crate::sockets::Endpoint;

/// What the driver is given of its machine.
pub(super) struct Place {
    /// Kubernetes' name of the node, where the configuration says it.
    pub(super) node: Option<String>,
    /// Those that are there.
    pub(super) volumes: Volumes,
    /// How many there is room for.
    pub(super) max_volumes: usize,
    /// Where the driver says how it stands with them.
    pub(super) standing: Standing,
}

/// Opens the volumes' folder; with what is wrong with the file system under it, empty when nothing is.
pub(super) fn volumes(config: &Csi, keeping: Keeping) -> anyhow::Result<(Volumes, String)> {
    let volumes = Volumes::open(&config.volumes_dir).context("csi.volumes_dir")?;
    let judged = judged(config, keeping).map_err(anyhow::Error::msg);
    let problem = judged.context("csi.volumes_dir")?;
    if !problem.is_empty() {
        tracing::warn!(
            problem,
            "the folder of the pods' volumes is not where it should be"
        );
    }
    Ok((volumes, problem))
}

/// What is wrong with where the volumes' folder, which is there, lies; empty when nothing is. An error where it may not lie there.
pub(super) fn judged(config: &Csi, keeping: Keeping) -> Result<String, String> {
    let dir = &config.volumes_dir;
    let said = |why: &dyn std::fmt::Display| format!("{}: {why}", dir.display());
    let ground = Ground::of(dir).map_err(|error| said(&format_args!("statfs: {error}")))?;
    let problem = judge(ground, config.mounter, keeping).map_err(|why| said(&why))?;
    Ok(match problem.as_str() {
        "" => problem,
        why => said(&why),
    })
}

/// What is wrong with a folder on this; an error where it would cut pods off.
fn judge(ground: Ground, mounter: MounterKind, keeping: Keeping) -> Result<String, &'static str> {
    match (ground, mounter) {
        (Ground::Memory, _) => Ok(String::new()),
        (Ground::Overlay, MounterKind::Bind) => Err(
            "lies on overlayfs, the container's own, and goes with it: every pod that runs then would be cut off until it is \
             restarted; mount a folder of the node's /run there (hostPath), as deploy/kubernetes/agent.yaml does",
        ),
        _ if keeping == Keeping::Anywhere => Ok(String::new()),
        _ => Ok(
            "not on tmpfs: the pods' tokens are written to a disk; put it below /run of the node, or set keep_secrets_on_disk \
             where that is accepted"
                .to_owned(),
        ),
    }
}

/// Rebuilds the sockets of every known volume, then listens for kubelet. Returns the driver, for who calls it in kubelet's place.
pub(super) fn start(
    config: Csi,
    place: Place,
    endpoint: &Endpoint,
    manager: Manager,
    drain: &Drain,
) -> anyhow::Result<Driver> {
    let driver = DriverConfig {
        driver_name: config.driver_name,
        socket_path: config.socket_path,
        registration_dir: config.registration_dir,
        kubelet_dir: config.kubelet_dir,
        node_name: place.node.map_or_else(node_name, Ok)?,
        token_audience: config.audience,
        tokens_from: config.tokens_from,
        max_volumes: place.max_volumes,
    };
    make_parent(&driver.socket_path)?;
    let mounter: Arc<dyn Mounter> = match config.mounter {
        MounterKind::Bind => Arc::new(BindMounter),
        MounterKind::Link => Arc::new(LinkMounter),
    };
    let sink = Arc::new(VolumeSockets::new(endpoint.clone(), manager));
    let driver = Driver::restore(driver, place.volumes, mounter, sink, place.standing);
    driver.clone().serve(drain)?;
    Ok(driver)
}

/// The node's name where the configuration does not give it.
fn node_name() -> anyhow::Result<String> {
    if let Some(name) = environment::text(NODE_NAME)
        && !name.is_empty()
    {
        return Ok(name);
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("node.name is not set, nor is the host name")?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_lie_in_memory_and_never_in_the_container_that_mounts_them() {
        let judged = |ground, mounter| judge(ground, mounter, Keeping::InMemory);
        assert_eq!(judged(Ground::Memory, MounterKind::Bind), Ok(String::new()));
        let refused = judged(Ground::Overlay, MounterKind::Bind).unwrap_err();
        assert!(refused.contains("hostPath"), "{refused}");
        assert!(judge(Ground::Overlay, MounterKind::Bind, Keeping::Anywhere).is_err());
        for (ground, mounter) in [
            (Ground::Disk, MounterKind::Bind),
            (Ground::Disk, MounterKind::Link),
            (Ground::Overlay, MounterKind::Link),
        ] {
            assert!(
                judged(ground, mounter).unwrap().contains("not on tmpfs"),
                "{ground:?}"
            );
            assert_eq!(judge(ground, mounter, Keeping::Anywhere), Ok(String::new()));
        }
    }
}
