//! A pod, beside another pod of its node.

use std::path::Path;

use signet_tests::{domain::Domain, http, workload::WorkloadClient};
use tokio::task::JoinSet;

use super::{
    super::support::pod_with_volume,
    AGENT, Form, Trial,
    proxy::attack_as_proxy,
    tools::{attack, attack_with_identity},
};

/// What the agent has counted by the end.
async fn beside_another(
    caller: &'static str,
    form: Form,
    attack: impl FnOnce(&Path) -> JoinSet<()>,
) -> String {
    signet_runtime::limits::raise_open_files().unwrap();
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let honest = pod_with_volume(&domain, &agent, "honest").await;
    let greedy = pod_with_volume(&domain, &agent, "greedy").await;
    let (honest, greedy) = (agent.socket(&honest), agent.socket(&greedy));
    let pid = agent.process().unwrap().pid().unwrap();
    WorkloadClient::new(&honest).identity().await;
    let trial = Trial {
        caller,
        pid,
        telemetry: agent.telemetry_url(),
        size: AGENT,
        form,
    };
    let neighbour = async || drop(WorkloadClient::new(&honest).fetch().await.unwrap());
    trial.run(neighbour, || attack(&greedy)).await;
    http::metrics(&agent.telemetry_url()).await.unwrap()
}

pub(super) async fn without_identity(form: Form) {
    drop(beside_another("a pod without identity", form, attack).await);
}

pub(super) async fn with_identity(form: Form) {
    drop(beside_another("a pod with identity", form, attack_with_identity).await);
}

pub(super) async fn as_a_proxy(form: Form) {
    let counted = beside_another("a sidecar proxy", form, attack_as_proxy).await;
    // Refused answers are no refusals of the agent's.
    for name in [
        "signet_agent_workloads_refused_total",
        "signet_agent_sds_answers_refused_total",
    ] {
        let of = |line: &&str| line.starts_with(name) && !line.ends_with(" 0");
        assert!(counted.lines().any(|line| of(&line)), "{name}:\n{counted}");
    }
}

/// Covers BG-17, BG-24.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_proxy_with_all_that_it_may_use_takes_nothing_of_the_others() {
    as_a_proxy(Form::Short).await;
}

/// Covers BG-17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_with_all_that_it_may_use_takes_nothing_of_the_others() {
    without_identity(Form::Short).await;
}

/// Covers BG-17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_with_all_that_its_identity_lets_it_do_takes_nothing_of_the_others() {
    with_identity(Form::Short).await;
}
