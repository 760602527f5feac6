use serde_json::json;

use super::*;

fn item(uid: &str, app: &str) -> PodItem {
    let metadata = json!({"name": uid, "namespace": "shop", "uid": uid, "labels": {"app": app}});
    serde_json::from_value(json!({"metadata": metadata, "spec": {"nodeName": "node-a"}})).unwrap()
}

fn pods() -> (Pods, mpsc::Receiver<PodEvent>) {
    let (events, receiver) = mpsc::channel(10);
    (
        Pods {
            cluster: "prod".into(),
            known: RwLock::default(),
            events,
        },
        receiver,
    )
}

fn state(items: impl IntoIterator<Item = PodItem>) -> KnownPods {
    let mut state = KnownPods::default();
    items.into_iter().for_each(|item| Pods::add(&mut state, item));
    state
}

fn received(receiver: &mut mpsc::Receiver<PodEvent>) -> Vec<(String, PodEventKind)> {
    std::iter::from_fn(|| receiver.try_recv().ok())
        .map(|event| (event.pod_uid, event.kind))
        .collect()
}

#[tokio::test]
async fn only_what_can_change_a_verdict_is_told() {
    let (pods, mut events) = pods();
    pods.upsert(item("a", "x")).await;
    pods.upsert(item("a", "x")).await;
    assert_eq!(received(&mut events), []);
    pods.upsert(item("a", "y")).await;
    let mut terminating = item("a", "y");
    terminating.metadata.deletion_timestamp = Some("2026-11-21T18:45:12Z".into());
    pods.upsert(terminating).await;
    assert_eq!(
        received(&mut events),
        [
            ("a".into(), PodEventKind::Changed),
            ("a".into(), PodEventKind::Changed)
        ]
    );
    pods.remove(item("a", "y")).await;
    pods.remove(item("a", "y")).await;
    assert_eq!(received(&mut events), [("a".into(), PodEventKind::Gone)]);
}

#[tokio::test]
async fn a_new_list_tells_what_was_missed() {
    let (pods, mut events) = pods();
    pods.replace(state([item("a", "x"), item("b", "x"), item("c", "x")]))
        .await;
    assert_eq!(received(&mut events), []);
    pods.replace(state([item("b", "y"), item("c", "x"), item("d", "x")]))
        .await;
    let mut told = received(&mut events);
    told.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(
        told,
        [
            ("a".into(), PodEventKind::Gone),
            ("b".into(), PodEventKind::Changed)
        ]
    );
}

#[tokio::test]
async fn a_receiver_that_is_gone_stops_nothing() {
    let (pods, events) = pods();
    drop(events);
    pods.upsert(item("a", "x")).await;
    pods.remove(item("a", "x")).await;
    assert!(pods.known.read().len() == 0);
}

#[test]
fn odd_phases_and_addresses_do_not_hide_a_pod() {
    let pod = pod_from_json(
        r#"{"metadata":{"name":"a","namespace":"b","uid":"c","labels":null},
            "status":{"phase":"Dreaming","podIPs":[{"ip":"10.0.0.1"},{"ip":"?"},{}]}}"#,
    );
    assert_eq!(pod.phase, PodPhase::Unknown);
    assert_eq!(pod.pod_ips, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((pod.node_name.as_str(), pod.service_account.as_str()), ("", ""));
}

#[tokio::test]
async fn service_accounts_are_known_by_their_uid() {
    let accounts = Accounts::default();
    let account = |uid: &str| {
        let metadata = json!({"name": "frontend", "namespace": "shop", "uid": uid});
        serde_json::from_value::<AccountItem>(json!({ "metadata": metadata })).unwrap()
    };
    let known = |uid: &str| {
        let uids = accounts.uids.read();
        uids.get("shop")
            .and_then(|names| names.get("frontend"))
            .is_some_and(|known| known == uid)
    };
    accounts.upsert(account("1")).await;
    assert!(known("1") && !known("2"));
    accounts.upsert(account("2")).await;
    assert!(!known("1") && known("2"));
    accounts.remove(account("2")).await;
    assert!(accounts.uids.read().is_empty());
    let mut state = KnownAccounts::default();
    Accounts::add(&mut state, account("3"));
    accounts.replace(state).await;
    assert!(known("3"));
}
