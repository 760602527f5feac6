//! SIGTERM: streams end with a code that makes clients come back, work under way is finished, the exit is clean.

use std::time::Duration;

use signet_tests::{
    agent_client::new_csr,
    domain::Domain,
    fake_kube::{Endpoint, Fault},
    process::binary,
};
use tonic::Code;

use super::support::{audited, pod_with_volume};

/// Far less than the 30 s that Kubernetes gives.
const SOON: Duration = Duration::from_secs(25);

#[tokio::test]
async fn the_server_ends_cleanly_with_agents_connected() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    front.identity().await;
    let process = domain.server.process().unwrap();
    process.terminate();
    let status = process.wait(SOON).await.unwrap();
    assert!(status.success(), "{status}: {}", process.stderr());
    audited(&domain, &["server_stopped"]).await;
    // A clean end leaves no stale socket in the way of the next start.
    domain.server.start().await.unwrap();
    front.identity().await;
}

#[tokio::test]
async fn the_server_ends_in_time_though_the_api_server_hangs() {
    let mut domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    domain.kube.fault_at(Endpoint::TokenReviews, Fault::Hang);
    let asking = tokio::spawn(async move { raw.issue_one(new_csr().unwrap(), &token).await });
    signet_tests::wait::eventually("a review under way", async || {
        (domain.kube.calls(Endpoint::TokenReviews) > 1).then_some(())
    })
    .await;
    let process = domain.server.process().unwrap();
    process.terminate();
    let status = process.wait(SOON).await.unwrap();
    assert!(status.success(), "{status}: {}", process.stderr());
    // It was answered or cut off, but it does not hang.
    let _ = asking.await.unwrap();
}

/// A start that waits for others must not make the process deaf, nor leave half of it behind.
#[tokio::test]
async fn a_signal_during_the_start_ends_it() {
    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let started = |domain: &Domain| {
        let lines = domain.server.audit().unwrap();
        let starts = lines
            .iter()
            .filter(|line| line.to_string().contains("server_started"));
        starts.count()
    };
    assert_eq!(started(&domain), 1);
    domain.kube.fault_at(Endpoint::Namespaces, Fault::Hang);
    let before = domain.kube.calls(Endpoint::Namespaces);
    domain.server.spawn().unwrap();
    signet_tests::wait::eventually("a start that waits for the cluster", async || {
        (domain.kube.calls(Endpoint::Namespaces) > before).then_some(())
    })
    .await;
    let process = domain.server.process().unwrap();
    process.terminate();
    let status = process.wait(Duration::from_secs(5)).await.unwrap();
    assert!(status.success(), "{status}: {}", process.stderr());
    assert_eq!(started(&domain), 1);
    domain.kube.clear_faults();
    domain.server.start().await.unwrap();
}

/// Covers BG-21.
#[tokio::test]
async fn the_agent_ends_its_streams_with_unavailable() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let workload = agent.workload(&volume);
    workload.identity().await;
    let mut updates = workload.watch().await.unwrap();
    updates.next().await.unwrap();
    agent.stop().await.unwrap();
    let end = updates.next().await.err().expect("the stream outlived its agent");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    let registry = agent.folder().join("kubelet/plugins_registry");
    let left: Vec<_> = std::fs::read_dir(registry).unwrap().flatten().collect();
    assert!(
        left.is_empty(),
        "the registration socket must go: its removal is the deregistration: {left:?}"
    );
}

/// A second one on the same socket must not steal it, and must not disturb the first.
#[tokio::test]
async fn a_second_server_on_the_same_sockets_refuses_to_start() {
    let domain = Domain::start().await.unwrap();
    let config = domain.server.config_path();
    let args = ["run", "--config", config.to_str().unwrap()];
    let second = signet_tests::process::run(&binary("signet-server"), args, &[])
        .await
        .unwrap();
    assert!(!second.status.success());
    assert!(second.stderr.contains("listen"), "{}", second.stderr);
    domain.server.admin(&["status"]).await.unwrap();
}
