//! An attested agent, beside that of another node.

use std::time::Duration;

use signet_proto::agent::{GetTrustRequest, TrustReport};
use signet_tests::{
    agent_client::{ClientCertificate, RawAgent, new_csr, pod_item},
    domain::Domain,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{super::doors::send_half, Form, SERVER, Trial, honest::Honest};

/// Connections of one agent.
const CONNECTIONS: usize = 8;
/// Calls at once on each.
const CALLS: usize = 32;

/// Opens trust streams that it does not read, again and again.
async fn streams(agent: RawAgent) {
    let mut open = Vec::new();
    loop {
        let (reports, messages) = mpsc::channel(1);
        let _ = reports.send(TrustReport::default()).await;
        let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
        match agent.stub().sync_trust(stream).await {
            Ok(states) => open.push((states, reports)),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// As many certificates as it can ask for, good ones and such as are refused.
async fn asks(mut agent: RawAgent, token: String, forged: bool) {
    let csr = new_csr().unwrap();
    loop {
        let items = (0..64).map(|number| {
            let token = if forged {
                format!("{token}{number}")
            } else {
                token.clone()
            };
            pod_item(csr.clone(), &token)
        });
        if agent.issue(items.collect()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn reads_trust(agent: RawAgent) {
    loop {
        if agent.stub().get_trust(GetTrustRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn attack(connections: Vec<RawAgent>, token: &str) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    for (number, agent) in connections.into_iter().enumerate() {
        for _ in 0..CALLS / 2 {
            let half = send_half(&agent, "IssueX509Svids", 2 << 20);
            attack.spawn(async move {
                half.await;
            });
        }
        attack.spawn(streams(agent.clone()));
        attack.spawn(asks(agent.clone(), token.to_owned(), number % 2 == 1));
        for _ in 0..4 {
            attack.spawn(reads_trust(agent.clone()));
        }
    }
    attack
}

async fn connect(domain: &Domain, certificate: &ClientCertificate) -> RawAgent {
    let agent = RawAgent::connect(domain.server.agents(), Some(certificate));
    let mut agent = agent.await.expect("an agent connects");
    agent.hello().await.expect("an agent says hello");
    agent
}

pub(super) async fn of_another_node(form: Form) {
    let mut domain = Domain::start().await.unwrap();
    let pid = domain.server.process().unwrap().pid().unwrap();
    let mut honest = Honest::of(&domain, "node-a").await;
    let greedy_token = domain.shop_pod("back", "node-b").unwrap();
    let (_, greedy) = domain.raw_agent("node-b").await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(connect(&domain, &greedy).await);
    }
    let trial = Trial {
        caller: "an agent",
        pid,
        telemetry: domain.server.telemetry_url(),
        size: SERVER,
        form,
    };
    let neighbour = async || honest.issue().await;
    trial.run(neighbour, || attack(connections, &greedy_token)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_with_all_that_it_may_use_takes_nothing_of_the_others() {
    of_another_node(Form::Short).await;
}
