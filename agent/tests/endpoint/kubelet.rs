//! The driver's sockets as kubelet calls them. kubelet's registration client puts the percent-encoded path of the socket
//! into `:authority` (recorded from 1.36: `%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2F…`).

use std::path::Path;
use std::sync::Arc;

use signet_agent::testing::{
    Driver, DriverConfig, LinkMounter, PodToken, Standing, TokensFrom, VolumeRecord, VolumeSink, Volumes,
};
use signet_runtime::drain::Drain;

use crate::support::raw::{RawClient, call_headers};

struct NoVolumes;

impl VolumeSink for NoVolumes {
    fn open(&self, _: &VolumeRecord, _: &Path, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn token(&self, _: &str, _: Arc<PodToken>) {}

    fn cut_off(&self, _: &str) {}

    fn missed(&self, _: &str) {}

    fn close(&self, _: &str) {}
}

fn driver(folder: &Path) -> (Driver, DriverConfig) {
    std::fs::create_dir(folder.join("registry")).unwrap();
    let config = DriverConfig {
        driver_name: "csi.example.org".into(),
        socket_path: folder.join("csi.sock"),
        registration_dir: folder.join("registry"),
        kubelet_dir: folder.to_owned(),
        node_name: "node-a".into(),
        token_audience: "signet:example.org:pod".into(),
        tokens_from: TokensFrom::VolumeContext,
        max_volumes: 20,
    };
    let volumes = Volumes::open(&folder.join("volumes")).unwrap();
    let driver = Driver::restore(
        config.clone(),
        volumes,
        Arc::new(LinkMounter),
        Arc::new(NoVolumes),
        Standing::default(),
    );
    (driver, config)
}

/// Calls as kubelet does and expects an answer that holds `expected`.
async fn calls(socket: &Path, method: &str, expected: &str) {
    let authority = socket.to_string_lossy().replace('/', "%2F");
    let mut client = RawClient::connect(socket).await;
    client
        .call(1, &call_headers(method, Some(authority.as_bytes())), &[])
        .await;
    let answer = client.end(1).await;
    assert_eq!(answer.reset, None, "{method} was reset");
    assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
    assert!(
        String::from_utf8_lossy(&answer.data).contains(expected),
        "{answer:?}"
    );
}

#[tokio::test]
async fn kubelet_may_name_the_socket_as_authority() {
    let folder = signet_testkit::folder();
    let (driver, config) = driver(folder.path());
    let drain = Drain::new();
    driver.serve(&drain).unwrap();
    let registration = config.registration_dir.join("csi.example.org-reg.sock");
    calls(
        &registration,
        "/pluginregistration.Registration/GetInfo",
        "csi.example.org",
    )
    .await;
    calls(&config.socket_path, "/csi.v1.Node/NodeGetInfo", "node-a").await;
    drain.start();
}
