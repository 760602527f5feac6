use serde_json::json;
use signet_runtime::clock::FakeClock;
use signet_runtime::sync::Mutex;

use super::*;

fn item(uid: &str, app: &str) -> PodItem {
    let metadata = json!({"name": uid, "namespace": "shop", "uid": uid, "labels": {"app": app}});
    serde_json::from_value(json!({"metadata": metadata, "spec": {"nodeName": "node-a"}})).unwrap()
}

type Told = Arc<Mutex<Vec<(String, PodEventKind)>>>;

fn pods() -> (Pods, Told) {
    let told = Told::default();
    let teller = Arc::clone(&told);
    let pods = Pods {
        cluster: "prod".into(),
        known: RwLock::default(),
        tell: Arc::new(move |event: PodEvent| teller.lock().push((event.pod_uid, event.kind))),
    };
    (pods, told)
}

fn state(items: impl IntoIterator<Item = PodItem>) -> KnownPods {
    let mut state = KnownPods::default();
    items.into_iter().for_each(|item| Pods::add(&mut state, item));
    state
}

fn received(told: &Told) -> Vec<(String, PodEventKind)> {
    std::mem::take(&mut told.lock())
}

#[tokio::test]
async fn only_what_can_change_a_verdict_is_told() {
    let (pods, told) = pods();
    pods.upsert(item("a", "x"));
    pods.upsert(item("a", "x"));
    assert_eq!(received(&told), []);
    pods.upsert(item("a", "y"));
    let mut terminating = item("a", "y");
    terminating.metadata.deletion_timestamp = Some("2026-11-21T18:45:12Z".into());
    pods.upsert(terminating);
    assert_eq!(
        received(&told),
        [
            ("a".into(), PodEventKind::Changed),
            ("a".into(), PodEventKind::Changed)
        ]
    );
    pods.remove(&item("a", "y"));
    pods.remove(&item("a", "y"));
    assert_eq!(received(&told), [("a".into(), PodEventKind::Gone)]);
}

#[tokio::test]
async fn a_new_list_tells_what_was_missed() {
    let (pods, told) = pods();
    pods.replace(state([item("a", "x"), item("b", "x"), item("c", "x")]))
        .await;
    assert_eq!(received(&told), []);
    pods.replace(state([item("b", "y"), item("c", "x"), item("d", "x")]))
        .await;
    let mut told = received(&told);
    told.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(
        told,
        [
            ("a".into(), PodEventKind::Gone),
            ("b".into(), PodEventKind::Changed)
        ]
    );
}

/// No number of changes at once is too large to be told.
#[tokio::test]
async fn a_list_in_which_everything_changed_tells_every_change() {
    let (pods, told) = pods();
    let all = |app: &'static str| state((0..5000).map(move |number| item(&number.to_string(), app)));
    pods.replace(all("x")).await;
    pods.replace(all("y")).await;
    assert_eq!(received(&told).len(), 5000);
}

/// Readers take no turns with the comparison of old and new.
#[tokio::test]
async fn a_reader_sees_the_old_state_or_the_new_one_while_changes_are_told() {
    let (pods, _) = pods();
    let pods = Arc::new(pods);
    let all = |app: &'static str| state((0..5000).map(move |number| item(&number.to_string(), app)));
    pods.replace(all("x")).await;
    let replacing = tokio::spawn({
        let pods = Arc::clone(&pods);
        let new = all("y");
        async move { pods.replace(new).await }
    });
    let mut reads = 0;
    while !replacing.is_finished() {
        assert_eq!(pods.known.read().len(), 5000);
        reads += 1;
        tokio::task::yield_now().await;
    }
    assert!(reads > 5, "the comparison gives way to others: {reads}");
}

#[test]
fn what_pods_have_in_common_is_held_once_and_goes_with_them() {
    let mut known = state((0..3000).map(|number| item(&number.to_string(), "x")));
    let (a, b) = (known.get("1").unwrap(), known.get("2").unwrap());
    assert!(Arc::ptr_eq(&a.labels, &b.labels) && Arc::ptr_eq(&a.node_name, &b.node_name));
    drop((a, b));
    assert_eq!(known.shared_values(), (3, 1));
    // Another set of labels for each, one after the other: what is no longer used does not pile up.
    for round in 0..5 {
        for number in 0..3000 {
            known.put(item(&number.to_string(), &format!("{round}-{number}")));
        }
    }
    let (_, labels) = known.shared_values();
    assert!(labels <= 3000 + 1500, "{labels}");
    assert_eq!((known.len(), known.on_node("node-a")), (3000, 3000));
}

/// `SIGNET_PODS` says how many there are.
#[test]
#[ignore = "prints how much memory a pod takes: cargo test --workspace --lib -- --ignored --nocapture memory_of_a_pod"]
fn memory_of_a_pod() {
    let resident = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let pods = std::env::var("SIGNET_PODS").map_or(100_000, |pods| pods.parse::<usize>().unwrap());
    let recorded = signet_testkit::kube::recording("pod-get")["response"].clone();
    let before = resident();
    let mut known = KnownPods::default();
    for number in 0..pods {
        let mut pod = recorded.clone();
        pod["metadata"]["uid"] = json!(format!("506562ff-0461-4848-8336-{number:012}"));
        pod["metadata"]["name"] = json!(format!("web-{:06}-7d9c8b6f5d-{number:06}", number / 20));
        pod["metadata"]["namespace"] = json!(format!("team-{}", number / 20 % 500));
        pod["metadata"]["labels"] = json!({
            "app": format!("web-{}", number / 20), "pod-template-hash": "7d9c8b6f5d", "team": format!("team-{}", number / 20 % 500),
        });
        pod["spec"]["nodeName"] = json!(format!("node-{}", number % 5000));
        known.put(serde_json::from_str(&pod.to_string()).unwrap());
    }
    let each = (resident() - before) / pods;
    println!(
        "{pods} pods: {each} bytes each, {:?} values in common",
        known.shared_values()
    );
}

#[test]
fn odd_phases_and_members_do_not_hide_a_pod() {
    let pod = pod_from_json(
        r#"{"metadata":{"name":"a","namespace":"b","uid":"c","labels":null},
            "status":{"phase":"Dreaming","podIPs":[{"ip":"?"},{}]}}"#,
    );
    assert_eq!(pod.phase, PodPhase::Unknown);
    assert_eq!((&*pod.node_name, &*pod.service_account), ("", ""));
}

/// Rules may go by the labels of the namespace.
#[test]
fn where_labels_of_a_namespace_change_its_pods_are_told_of_and_no_others() {
    let clock = Arc::new(TrustedClock::agreed(Arc::new(FakeClock::new(
        std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    ))));
    let told = Told::default();
    let teller = Arc::clone(&told);
    let tell: TellPod = Arc::new(move |event: PodEvent| teller.lock().push((event.pod_uid, event.kind)));
    let watch = PodWatch::new("prod".into(), tell, &clock);
    let mut elsewhere = item("b", "x");
    elsewhere.metadata.namespace = "bank".to_owned();
    let over =
        json!({"metadata": {"name": "c", "namespace": "shop", "uid": "c"}, "status": {"phase": "Failed"}});
    for pod in [item("a", "x"), elsewhere, serde_json::from_value(over).unwrap()] {
        watch.pods.upsert(pod);
    }
    watch.tell_namespaces()(&BTreeSet::from(["shop".to_owned(), "till".to_owned()]));
    assert_eq!(received(&told), [("a".to_owned(), PodEventKind::Changed)]);
}
