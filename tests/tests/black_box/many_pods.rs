//! A large cluster: its pods come as the beginning of a watch or in pages, and whatever breaks off, what counts is complete.

use std::time::Duration;

use signet_tests::{
    domain::{Domain, Plan},
    fake_kube::{Endpoint, FakeKubeConfig, Fault, FaultRule, PodSpec},
    wait::eventually,
};

use super::support::pod_with_volume;

const PODS: usize = 20_000;
/// As the server asks for them.
const PAGES: u64 = 40;

/// The server is not running, and there are pods.
async fn many_pods(watch_list: bool) -> Domain {
    let kube = FakeKubeConfig {
        watch_list,
        ..FakeKubeConfig::default()
    };
    let mut domain = Plan::default().kube(kube).start().await.unwrap();
    domain.server.kill().await;
    for number in 0..PODS {
        let node = format!("node-{}", number % 100);
        let spec = PodSpec::new("many", &name(number))
            .node(&node)
            .label("app", "many");
        domain.kube.add_pod(&spec).unwrap();
    }
    domain
}

fn name(number: usize) -> String {
    format!("pod-{number:05}")
}

/// Waits until the server shows so many pods, and never a part of them before.
async fn until_shown(domain: &Domain, pods: usize) {
    eventually("the pods in the watch", async || {
        let status = domain.server.admin(&["status"]).await.ok()?;
        let cluster = &status["clusters"][0];
        let shown = usize::try_from(cluster["pods"].as_u64()?).unwrap();
        assert!(
            shown == 0 || shown + 200 > PODS,
            "{shown} pods of a list that has not ended are in force"
        );
        (cluster["pods_synced"] == true && shown == pods).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_watch_cut_within_its_first_objects_begins_again_and_shows_all() {
    let mut domain = many_pods(true).await;
    let (lists, watches) = (
        domain.kube.calls(Endpoint::Pods),
        domain.kube.calls(Endpoint::PodWatches),
    );
    domain.kube.cut_initial_events_after(7_000);
    domain.server.start().await.unwrap();
    until_shown(&domain, PODS).await;
    domain.kube.delete_pod("many", &name(3)).unwrap();
    until_shown(&domain, PODS - 1).await;
    assert_eq!(domain.kube.calls(Endpoint::Pods), lists, "no pages");
    assert!(domain.kube.calls(Endpoint::PodWatches) >= watches + 3);
    let agent = domain.agent("node-a").await.unwrap();
    let workload = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    workload.identity().await;
}

#[tokio::test]
async fn an_api_server_whose_watches_do_not_begin_so_is_read_in_pages() {
    let mut domain = many_pods(false).await;
    let lists = domain.kube.calls(Endpoint::Pods);
    domain.server.start().await.unwrap();
    until_shown(&domain, PODS).await;
    assert_eq!(domain.kube.calls(Endpoint::Pods) - lists, PAGES);
}

/// One page that was kept waiting and is asked for again, and one answered with 410.
const ASKED_AGAIN: u64 = 2;

/// Pods that go and come among those that were listed, while the list is under way, and it can no longer go on as it is.
async fn changed_within_a_list(forget: impl FnOnce(&Domain)) -> (Domain, u64) {
    let mut domain = many_pods(false).await;
    let before = domain.kube.calls(Endpoint::Pods);
    // The second half of the pages waits for what happens here: whatever the machine does, the list has not ended by then.
    domain.kube.fault_at(Endpoint::Pods, Fault::Hang);
    domain.kube.fault(FaultRule {
        endpoint: Some(Endpoint::Pods),
        fault: Fault::slow(Duration::ZERO),
        times: Some(u32::try_from(PAGES / 2).unwrap()),
    });
    domain.server.spawn().unwrap();
    eventually("half of the pages", async || {
        (domain.kube.calls(Endpoint::Pods) - before > PAGES / 2).then_some(())
    })
    .await;
    for number in 0..100 {
        domain.kube.delete_pod("many", &name(number)).unwrap();
    }
    for number in 0..40 {
        domain
            .kube
            .add_pod(&PodSpec::new("many", &format!("late-{number}")))
            .unwrap();
    }
    forget(&domain);
    domain.kube.clear_faults();
    until_shown(&domain, PODS - 100 + 40).await;
    let pages = domain.kube.calls(Endpoint::Pods) - before;
    (domain, pages)
}

#[tokio::test]
async fn a_list_that_expires_in_the_middle_goes_on_and_shows_nothing_that_is_gone() {
    let (_domain, pages) = changed_within_a_list(|domain| domain.kube.expire_lists()).await;
    assert_eq!(
        pages,
        PAGES + ASKED_AGAIN,
        "it expired, and nothing was read anew"
    );
}

#[tokio::test]
async fn where_what_lies_between_is_forgotten_too_the_list_begins_again() {
    let (_domain, pages) = changed_within_a_list(|domain| domain.kube.compact_history()).await;
    assert!(
        pages > PAGES + ASKED_AGAIN,
        "believed without a word on what went: {pages}"
    );
}
