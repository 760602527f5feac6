//! A user of the shared socket, beside a pod of the same node.

use serde_json::json;
use signet_tests::{domain::Plan, workload::WorkloadClient};

use super::{
    super::support::pod_with_volume,
    AGENT, Form, Trial,
    tools::{attack, attack_with_identity},
};

pub(super) async fn on_the_shared_socket(form: Form) {
    signet_runtime::limits::raise_open_files().unwrap();
    let uid = nix::unistd::getuid().as_raw();
    let rules = json!([{
        "name": "shell",
        "match": { "evidence": ["unix"], "unix": { "uids": [uid] } },
        "spiffe_id": "/shell",
    }]);
    let domain = Plan::default().server("/rules", rules).start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let honest = pod_with_volume(&domain, &agent, "honest").await;
    let honest = agent.socket(&honest);
    let pid = agent.process().unwrap().pid().unwrap();
    WorkloadClient::new(&honest).identity().await;
    agent.shell().identity().await;
    let trial = Trial {
        caller: "a user of the shared socket",
        pid,
        telemetry: agent.telemetry_url(),
        size: AGENT,
        form,
    };
    let neighbour = async || drop(WorkloadClient::new(&honest).fetch().await.unwrap());
    let shell = agent.shell_socket();
    let greedy = || {
        let mut all = attack_with_identity(&shell);
        let without = attack(&shell);
        all.spawn(async move { drop(without.join_all().await) });
        all
    };
    trial.run(neighbour, greedy).await;
}

/// Covers BG-17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_with_all_that_he_may_use_takes_nothing_of_the_pods() {
    on_the_shared_socket(Form::Short).await;
}
