//! An admin, beside an agent.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use signet_proto::admin::{
    ListAgentsRequest, ListSvidsRequest, ShowCrlsRequest, StatusRequest, admin_client::AdminClient,
};
use signet_tests::{
    agent_client::{new_csr, pod_item},
    domain::Domain,
    uds,
};
use tokio::{io::AsyncWriteExt as _, net::UnixStream, task::JoinSet};

use super::{Form, SERVER, Trial, honest::Honest};

/// Asks for everything that is long or dear, again and again.
async fn asks(socket: PathBuf) {
    loop {
        let Ok(channel) = uds::connect(&socket).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut admin = AdminClient::new(channel).max_decoding_message_size(64 << 20);
        for _ in 0..50 {
            let answers = (
                admin.status(StatusRequest::default()).await.is_ok(),
                admin.list_svids(ListSvidsRequest::default()).await.is_ok(),
                admin.show_crls(ShowCrlsRequest::default()).await.is_ok(),
                admin.list_agents(ListAgentsRequest::default()).await.is_ok(),
            );
            if answers != (true, true, true, true) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Opens connections on which nothing is said, or only that it will be.
async fn idle(socket: PathBuf) {
    if let Ok(mut stream) = UnixStream::connect(&socket).await {
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        std::future::pending::<()>().await;
    }
}

fn attack(socket: &Path) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    for _ in 0..16 {
        attack.spawn(asks(socket.to_owned()));
        attack.spawn(idle(socket.to_owned()));
    }
    attack
}

pub(super) async fn beside_agents(form: Form) {
    let mut domain = Domain::start().await.unwrap();
    let pid = domain.server.process().unwrap().pid().unwrap();
    let token = domain.shop_pod("front", "node-b").unwrap();
    let (mut agent, _) = domain.raw_agent("node-b").await.unwrap();
    // A ledger that is worth listing.
    let csr = new_csr().unwrap();
    for _ in 0..4 {
        let items = (0..16).map(|_| pod_item(csr.clone(), &token)).collect();
        agent.issue(items).await.unwrap();
    }
    let mut honest = Honest::of(&domain, "node-a").await;
    let trial = Trial {
        caller: "an admin",
        pid,
        telemetry: domain.server.telemetry_url(),
        size: SERVER,
        form,
    };
    let neighbour = async || honest.issue().await;
    let socket = domain.server.admin_socket();
    trial.run(neighbour, || attack(&socket)).await;
    domain.server.admin(&["status"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_admin_with_all_that_he_may_use_takes_nothing_of_the_agents() {
    beside_agents(Form::Short).await;
}
