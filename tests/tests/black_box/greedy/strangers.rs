//! Strangers at every door of the server, beside an agent that connects anew each time.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use signet_tests::{agent_client::new_csr, domain::Domain};
use tokio::task::JoinSet;

use super::{
    super::doors::{attest_in_vain, half_proofs, keep_alive, stay_silent},
    Form, SERVER, Trial,
    honest::Honest,
};

/// Again and again: what comes too slowly ends.
async fn send_halves(address: SocketAddr) {
    loop {
        half_proofs(address).await.join_all().await;
    }
}

pub(super) async fn of_many_addresses(form: Form) {
    signet_runtime::limits::raise_open_files().unwrap();
    let mut domain = Domain::start().await.unwrap();
    let pid = domain.server.process().unwrap().pid().unwrap();
    let mut honest = Honest::of(&domain, "node-a").await;
    let agents = domain.server.agents();
    let bundle = domain.server.bundle();
    let address = |url: String| -> SocketAddr { url.trim_start_matches("http://").parse().unwrap() };
    let publish = address(domain.server.publish_url());
    let telemetry = address(domain.server.telemetry_url());
    let csr = new_csr().unwrap();
    let trial = Trial {
        caller: "strangers",
        pid,
        telemetry: domain.server.telemetry_url(),
        size: SERVER,
        form,
    };
    let neighbour = async || {
        honest.connect_at_times().await;
        honest.issue().await;
    };
    let attack = || {
        let mut attack = JoinSet::new();
        for last in 1..=8 {
            attack.spawn(stay_silent(Ipv4Addr::new(127, 0, 1, last), agents, 34));
        }
        attack.spawn(send_halves(agents));
        for _ in 0..64 {
            attack.spawn(attest_in_vain(agents, csr.clone(), Arc::default()));
        }
        for last in 1..=8 {
            attack.spawn(stay_silent(Ipv4Addr::new(127, 0, 3, last), bundle, 34));
        }
        for _ in 0..64 {
            attack.spawn(keep_alive(Ipv4Addr::new(127, 0, 2, 2), telemetry));
        }
        for _ in 0..600 {
            attack.spawn(keep_alive(Ipv4Addr::new(127, 0, 2, 1), publish));
        }
        attack
    };
    trial.run(neighbour, attack).await;
}
