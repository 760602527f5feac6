//! The paths and addresses of the configuration, each in the way in which it is used.

use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::trial::{Trial, Use};

use super::csi::judged;
use crate::config::{Config, Csi};
use crate::kept::Keeping;
use crate::server_client::anchors::ControlAnchors;

/// All of them, in the order in which a start uses them.
pub(crate) fn trials(config: &Config) -> Vec<Trial<'_>> {
    let private = |may_be_read_only| Use::PrivateDir {
        may_be_read_only,
        gets_mode: true,
    };
    let anchors = move || {
        let loaded = ControlAnchors::load(
            &config.trust_domain,
            &config.anchors_file,
            &config.data_dir,
            SystemClock.now(),
        );
        loaded.map(drop).map_err(|error| error.to_string())
    };
    let mut trials = vec![
        Trial::of("data_dir", &config.data_dir, private(true)),
        Trial::of(
            "trust.anchors_file",
            &config.anchors_file,
            Use::Own(Box::new(anchors)),
        ),
        Trial::of("node.token_file", &config.node_token_file, Use::ReadLater),
        Trial::of("admin_socket", &config.admin_socket, Use::Socket),
        Trial::address("telemetry.listen", config.telemetry),
    ];
    if config.keeping != Keeping::Nowhere {
        trials.push(Trial::of("state_dir", &config.state_dir, private(false)));
    }
    if let Some(shared) = &config.shared_socket {
        trials.push(Trial::of("shared_socket.path", &shared.path, Use::Socket));
    }
    trials.extend(config.csi.iter().flat_map(|csi| driver(csi, config.keeping)));
    trials
}

fn driver(csi: &Csi, keeping: Keeping) -> [Trial<'_>; 5] {
    let private = Use::PrivateDir {
        may_be_read_only: false,
        gets_mode: true,
    };
    let ground = move || match csi.volumes_dir.exists() {
        true => judged(csi, keeping).map(drop),
        // That has been said.
        false => Ok(()),
    };
    [
        Trial::of("csi.kubelet_dir", &csi.kubelet_dir, Use::Way),
        Trial::of("csi.registration_dir", &csi.registration_dir, Use::Dir),
        Trial::of("csi.socket_path", &csi.socket_path, Use::Socket),
        Trial::of("csi.volumes_dir", &csi.volumes_dir, private),
        Trial::of("csi.volumes_dir", &csi.volumes_dir, Use::Own(Box::new(ground))),
    ]
}
