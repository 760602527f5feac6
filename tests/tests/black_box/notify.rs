//! What systemd hears of both programs, and that they do without it where it does not listen. Units run them in `units`.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use signet_tests::domain::Domain;
use signet_tests::process::{Process, binary};
use signet_tests::wait::eventually;

fn started(program: &str, config: &Path, socket: &str) -> Process {
    let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    Process::start(program, &binary(program), args, &[("NOTIFY_SOCKET", socket)]).unwrap()
}

/// Takes what is said until this is among it.
pub(super) async fn heard(systemd: &UnixDatagram, wanted: &str) {
    let mut buffer = [0; 4096];
    eventually(wanted, async || match systemd.recv(&mut buffer) {
        Ok(length) => {
            let said = String::from_utf8(buffer[..length].to_vec()).unwrap();
            said.contains(wanted).then_some(())
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            None
        }
    })
    .await;
}

#[tokio::test]
async fn systemd_hears_that_the_doors_are_open_and_what_is_in_the_way() {
    let mut domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    agent.stop().await.unwrap();
    domain.server.stop().await.unwrap();
    let path = domain.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_nonblocking(true).unwrap();
    let socket = path.to_str().unwrap();

    let mut server = started("signet-server", &domain.server.config_path(), socket);
    heard(&systemd, "READY=1\nSTATUS=ready").await;
    let config = agent.folder().join("agent.yaml");
    let _agent = started("signet-agent", &config, socket);
    heard(&systemd, "READY=1\nSTATUS=ready").await;
    server.stop().await.unwrap();
    heard(
        &systemd,
        "READY=1\nSTATUS=serves, not ready to issue: server_away",
    )
    .await;
}

#[tokio::test]
async fn a_server_that_systemd_does_not_hear_serves_and_says_so() {
    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let ready = format!("{}/ready", domain.server.telemetry_url());
    for (socket, said) in [
        ("run/notify", "NOTIFY_SOCKET names no socket"),
        (
            "/nobody/listens/here",
            "systemd does not hear how this program is",
        ),
    ] {
        let mut server = started("signet-server", &domain.server.config_path(), socket);
        server.until_ready(&ready).await.unwrap();
        eventually(said, async || server.said().contains(said).then_some(())).await;
        server.stop().await.unwrap();
    }
}
