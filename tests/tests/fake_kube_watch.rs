//! Lists and watches of the fake Kubernetes API, through the client the server uses.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt};
use hyper::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use signet_tests::{
    fake_kube::{Endpoint, FakeKube, FakeKubeConfig, Fault, PodSpec},
    http,
};

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Pod>>>>>;

async fn fake() -> (FakeKube, Api<Pod>) {
    let config = FakeKubeConfig {
        bookmark_interval: Duration::from_millis(20),
        require_credentials: true,
        ..FakeKubeConfig::default()
    };
    let fake = FakeKube::start(config).await.unwrap();
    let directory = signet_testkit::folder();
    let path = directory.path().join("kubeconfig");
    fake.kubeconfig(&path).unwrap();
    let kubeconfig = Kubeconfig::read_from(&path).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options);
    let mut config = config.await.unwrap();
    // Those of the environment are for another network.
    config.proxy_url = None;
    let client = Client::try_from(config).unwrap();
    (fake, Api::all(client))
}

async fn watch(pods: &Api<Pod>, params: &WatchParams, version: &str) -> Events {
    Box::pin(pods.watch(params, version).await.unwrap())
}

/// The next event that is no bookmark.
async fn next(events: &mut Events) -> WatchEvent<Pod> {
    loop {
        match events.next().await.expect("the watch ended").unwrap() {
            WatchEvent::Bookmark(_) => {}
            event => return event,
        }
    }
}

/// The client shows a connection cut in the middle of a stream as an error or as its end.
async fn is_over(events: &mut Events) -> bool {
    !matches!(events.next().await, Some(Ok(_)))
}

async fn version_now(pods: &Api<Pod>) -> String {
    let list = pods.list(&ListParams::default()).await.unwrap();
    list.metadata.resource_version.unwrap()
}

#[tokio::test]
async fn a_watch_goes_on_where_the_list_ended() {
    let (fake, pods) = fake().await;
    fake.add_pod(&PodSpec::new("shop", "before")).unwrap();
    let list = pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let version = list.metadata.resource_version.unwrap();
    let uid = fake.add_pod(&PodSpec::new("shop", "after")).unwrap();
    let mut events = watch(&pods, &WatchParams::default(), &version).await;
    let WatchEvent::Added(pod) = next(&mut events).await else {
        panic!("expected the pod made between list and watch");
    };
    assert_eq!(pod.uid(), Some(uid.clone()));

    let grace = Duration::from_millis(30);
    fake.terminate_pod("shop", "after", grace).unwrap();
    let WatchEvent::Modified(pod) = next(&mut events).await else {
        panic!("expected a terminating pod");
    };
    assert!(pod.metadata.deletion_timestamp.is_some());
    assert!(matches!(next(&mut events).await, WatchEvent::Deleted(_)));

    let again = fake.add_pod(&PodSpec::new("shop", "after")).unwrap();
    assert_ne!(again, uid, "a pod of the same name is another pod");
}

#[tokio::test]
async fn a_watch_sees_only_the_pods_it_selects() {
    let (fake, pods) = fake().await;
    let params = WatchParams::default().fields("spec.nodeName=node-b");
    let mut events = watch(&pods, &params, &version_now(&pods).await).await;
    fake.add_pod(&PodSpec::new("shop", "a").node("node-a")).unwrap();
    fake.add_pod(&PodSpec::new("shop", "b").node("node-b")).unwrap();
    let WatchEvent::Added(pod) = next(&mut events).await else {
        panic!("expected an added pod");
    };
    assert_eq!(pod.name_any(), "b");
}

#[tokio::test]
async fn bookmarks_carry_the_newest_version() {
    let (fake, pods) = fake().await;
    let mut events = watch(&pods, &WatchParams::default(), &version_now(&pods).await).await;
    fake.add_node("node-z");
    let newest = version_now(&pods).await;
    loop {
        let WatchEvent::Bookmark(bookmark) = events.next().await.unwrap().unwrap() else {
            panic!("expected nothing but bookmarks");
        };
        if bookmark.metadata.resource_version == newest {
            break;
        }
    }
}

#[tokio::test]
async fn a_version_that_was_compacted_away_is_gone_inside_the_stream() {
    let (fake, pods) = fake().await;
    let version = version_now(&pods).await;
    fake.compact_history();
    let mut events = watch(&pods, &WatchParams::default(), &version).await;
    let WatchEvent::Error(status) = next(&mut events).await else {
        panic!("expected an error event");
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(events.next().await.is_none(), "the stream ends with it");

    fake.fault_at(Endpoint::PodWatches, Fault::Gone);
    let refused = pods.watch(&WatchParams::default(), &version).await.err();
    let Some(kube::Error::Api(status)) = refused else {
        panic!("expected 410 before the stream");
    };
    assert_eq!(status.code, 410);
}

#[tokio::test]
async fn watches_end_or_are_cut_on_demand() {
    let (fake, pods) = fake().await;
    let version = version_now(&pods).await;
    let no_bookmarks = WatchParams::default().disable_bookmarks();
    let mut ended = watch(&pods, &no_bookmarks, &version).await;
    fake.end_watches();
    assert!(is_over(&mut ended).await);
    let mut cut = watch(&pods, &no_bookmarks, &version).await;
    fake.cut_watches();
    assert!(is_over(&mut cut).await);
    let mut refused = watch(&pods, &no_bookmarks, &version).await;
    fake.refuse_connections().await;
    assert!(is_over(&mut refused).await);
    assert!(pods.list(&ListParams::default()).await.is_err());
    fake.accept_connections().await.unwrap();
    assert!(pods.list(&ListParams::default()).await.is_ok());
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let (fake, pods) = fake().await;
    for number in 0..5 {
        fake.add_pod(&PodSpec::new("shop", &format!("p{number}")))
            .unwrap();
    }
    let mut names = Vec::new();
    let mut params = ListParams::default().limit(2);
    loop {
        let page = pods.list(&params).await.unwrap();
        names.extend(page.items.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(2).continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["p0", "p1", "p2", "p3", "p4"]);
}

/// The first page of one pod, as an answer of HTTP, and the token of the second.
async fn first_page(fake: &FakeKube) -> (String, String) {
    let pods = format!("{}/api/v1/pods?limit=1", fake.url());
    let page = http::get(&pods).await.unwrap().json().unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    (pods, token)
}

#[tokio::test]
async fn pages_are_of_one_moment_until_it_is_forgotten() {
    let fake = FakeKube::start(FakeKubeConfig::default()).await.unwrap();
    for name in ["a", "b"] {
        fake.add_pod(&PodSpec::new("shop", name)).unwrap();
    }
    let (pods, token) = first_page(&fake).await;
    fake.delete_pod("shop", "b").unwrap();
    let name = |page: &Value| page["items"][0]["metadata"]["name"].clone();
    let second = http::get(&format!("{pods}&continue={token}"))
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(name(&second), "b", "as it was");

    fake.expire_lists();
    let expired = http::get(&format!("{pods}&continue={token}")).await.unwrap();
    assert_eq!(expired.status, StatusCode::GONE);
    let expired = expired.json().unwrap();
    assert_eq!(
        (&expired["kind"], &expired["reason"]),
        (&json!("Status"), &json!("Expired"))
    );
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let rest = http::get(&format!("{pods}&continue={token}"))
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(rest["items"], json!([]), "as it is");
}

#[tokio::test]
async fn a_watch_begins_with_all_objects_where_that_is_switched_on() {
    let (fake, pods) = fake().await;
    fake.add_pod(&PodSpec::new("shop", "a")).unwrap();
    let params = WatchParams::default().initial_events();
    let mut events = watch(&pods, &params, "").await;
    let Some(Ok(WatchEvent::Added(pod))) = events.next().await else {
        panic!("expected the pod that there is");
    };
    assert_eq!(pod.name_any(), "a");
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = events.next().await else {
        panic!("expected the bookmark that ends them");
    };
    assert_eq!(bookmark.metadata.annotations["k8s.io/initial-events-end"], "true");
    fake.cut_initial_events_after(0);
    assert!(is_over(&mut watch(&pods, &params, "").await).await);

    let config = FakeKubeConfig {
        watch_list: false,
        ..FakeKubeConfig::default()
    };
    let old = FakeKube::start(config).await.unwrap();
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let refused = http::get(&format!("{}/api/v1/pods?{query}", old.url()))
        .await
        .unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let said = refused.json().unwrap();
    assert_eq!(said["details"]["causes"][0]["field"], "sendInitialEvents");
    let message = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    assert!(said["message"].as_str().unwrap().ends_with(message), "{said}");
}
