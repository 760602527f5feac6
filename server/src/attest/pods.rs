//! The pods and service accounts of a cluster as they are now, from two watches over all namespaces.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;

use super::kube_api::{CallError, KubeApi, is_path_segment};
use super::watch::{Sink, WatchHealth, follow, pauses};
use super::{PodEvent, PodEventKind};

const POD_BYTES: usize = 8 * 1024 * 1024;

/// What matters of a live pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePod {
    /// UID, which no second pod ever gets.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name, which a later pod may get again.
    pub name: String,
    /// Service account it runs as.
    pub service_account: String,
    /// Node it is bound to; empty while it is on none.
    pub node_name: String,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// Labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Addresses; the node's own for a pod on the host's network.
    pub pod_ips: Vec<IpAddr>,
    /// A deletion has begun and the pod is still there.
    pub terminating: bool,
}

/// `status.phase` of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum PodPhase {
    /// Accepted, not all containers run yet.
    Pending,
    /// Running.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node does not report, or the phase has a name that is new here.
    #[default]
    #[serde(other)]
    Unknown,
}

impl PodPhase {
    fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The state of one cluster, fed by [`PodWatch::run`].
pub(super) struct PodWatch {
    pods: Arc<Pods>,
    accounts: Arc<Accounts>,
    pods_health: Arc<WatchHealth>,
    accounts_health: Arc<WatchHealth>,
}

impl PodWatch {
    pub(super) fn new(cluster: Arc<str>, events: mpsc::Sender<PodEvent>) -> Self {
        Self {
            pods: Arc::new(Pods {
                cluster,
                by_uid: RwLock::default(),
                events,
            }),
            accounts: Arc::default(),
            pods_health: Arc::new(WatchHealth::new()),
            accounts_health: Arc::new(WatchHealth::new()),
        }
    }

    /// Follows the cluster; ends never.
    pub(super) async fn run(&self, api: Arc<KubeApi>) {
        let (min, max) = pauses();
        let pause = || signet_runtime::backoff::Backoff::new(min, max, 0.2);
        let (Ok(pods), Ok(accounts)) = (pause(), pause()) else {
            tracing::error!("the pauses of the watches are out of bounds");
            return;
        };
        tokio::join!(
            follow(
                Arc::clone(&api),
                Arc::clone(&self.pods),
                Arc::clone(&self.pods_health),
                pods
            ),
            follow(
                api,
                Arc::clone(&self.accounts),
                Arc::clone(&self.accounts_health),
                accounts
            ),
        );
    }

    /// Both watches are complete and lively.
    pub(super) fn is_synced(&self) -> bool {
        self.pods_health.is_synced() && self.accounts_health.is_synced()
    }

    /// Returns once both first lists are complete.
    pub(super) async fn first_sync(&self) {
        self.pods_health.first_list().await;
        self.accounts_health.first_list().await;
    }

    /// Silence of the quieter watch.
    pub(super) fn last_seen(&self) -> Option<Duration> {
        Some(
            self.pods_health
                .last_seen()?
                .max(self.accounts_health.last_seen()?),
        )
    }

    pub(super) fn problem(&self) -> Option<String> {
        let named = |kind: &str, health: &WatchHealth| {
            health.problem().map(|text| format!("watch of {kind}: {text}"))
        };
        named("pods", &self.pods_health).or_else(|| named("service accounts", &self.accounts_health))
    }

    /// The pod with this UID, if the watch shows it.
    pub(super) fn pod(&self, uid: &str) -> Option<Arc<LivePod>> {
        self.pods
            .by_uid
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .cloned()
    }

    pub(super) fn pod_count(&self) -> usize {
        self.pods
            .by_uid
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether the watch shows this service account under this UID.
    pub(super) fn has_account(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let accounts = self.accounts.uids.read().unwrap_or_else(PoisonError::into_inner);
        accounts
            .get(namespace)
            .and_then(|names| names.get(name))
            .is_some_and(|known| known == uid)
    }
}

/// Asks the API server itself for a pod.
pub(super) async fn get_pod(
    api: &KubeApi,
    namespace: &str,
    name: &str,
) -> Result<Option<LivePod>, CallError> {
    if !is_path_segment(namespace) || !is_path_segment(name) {
        return Ok(None);
    }
    api.admit()?;
    let answer = api
        .get::<PodItem>(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), POD_BYTES)
        .await;
    match answer {
        Ok(item) => Ok(Some(item.into())),
        Err(CallError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Pods {
    cluster: Arc<str>,
    by_uid: RwLock<HashMap<String, Arc<LivePod>>>,
    events: mpsc::Sender<PodEvent>,
}

impl Pods {
    /// Waits when the receiver is slow: the watch then goes silent and counts as unsynced, which is safe. A receiver
    /// that is gone wants no events.
    async fn emit(&self, pod: &LivePod, kind: PodEventKind) {
        let event = PodEvent {
            cluster: self.cluster.to_string(),
            pod_uid: pod.uid.clone(),
            node_name: pod.node_name.clone(),
            kind,
        };
        let _ = self.events.send(event).await;
    }

    fn put(&self, pod: Arc<LivePod>) -> Option<Arc<LivePod>> {
        let mut pods = self.by_uid.write().unwrap_or_else(PoisonError::into_inner);
        pods.insert(pod.uid.clone(), pod)
    }
}

impl Sink for Pods {
    type Item = PodItem;
    const PATH: &'static str = "/api/v1/pods";

    async fn replace(&self, items: Vec<PodItem>) {
        let now: HashMap<String, Arc<LivePod>> = items
            .into_iter()
            .map(|item| Arc::new(LivePod::from(item)))
            .map(|pod| (pod.uid.clone(), pod))
            .collect();
        let before = {
            let mut pods = self.by_uid.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *pods, now.clone())
        };
        for (uid, old) in before {
            match now.get(&uid) {
                None => self.emit(&old, PodEventKind::Gone).await,
                Some(new) if differs(&old, new) => self.emit(new, PodEventKind::Changed).await,
                Some(_) => {}
            }
        }
    }

    async fn upsert(&self, item: PodItem) {
        let pod = Arc::new(LivePod::from(item));
        if self.put(Arc::clone(&pod)).is_some_and(|old| differs(&old, &pod)) {
            self.emit(&pod, PodEventKind::Changed).await;
        }
    }

    async fn remove(&self, item: PodItem) {
        let removed = {
            let mut pods = self.by_uid.write().unwrap_or_else(PoisonError::into_inner);
            pods.remove(&item.metadata.uid)
        };
        if let Some(pod) = removed {
            self.emit(&pod, PodEventKind::Gone).await;
        }
    }
}

/// Whether a verdict on the pod may come out differently.
fn differs(old: &LivePod, new: &LivePod) -> bool {
    old.labels != new.labels
        || old.terminating != new.terminating
        || old.node_name != new.node_name
        || old.phase.is_over() != new.phase.is_over()
}

/// UIDs of service accounts by namespace and name.
#[derive(Default)]
struct Accounts {
    uids: RwLock<HashMap<String, HashMap<String, String>>>,
}

impl Sink for Accounts {
    type Item = AccountItem;
    const PATH: &'static str = "/api/v1/serviceaccounts";

    async fn replace(&self, items: Vec<AccountItem>) {
        let mut uids: HashMap<String, HashMap<String, String>> = HashMap::new();
        for AccountItem { metadata } in items {
            uids.entry(metadata.namespace)
                .or_default()
                .insert(metadata.name, metadata.uid);
        }
        *self.uids.write().unwrap_or_else(PoisonError::into_inner) = uids;
    }

    async fn upsert(&self, AccountItem { metadata }: AccountItem) {
        let mut uids = self.uids.write().unwrap_or_else(PoisonError::into_inner);
        uids.entry(metadata.namespace)
            .or_default()
            .insert(metadata.name, metadata.uid);
    }

    async fn remove(&self, AccountItem { metadata }: AccountItem) {
        let mut uids = self.uids.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = uids.get_mut(&metadata.namespace) {
            names.remove(&metadata.name);
            if names.is_empty() {
                uids.remove(&metadata.namespace);
            }
        }
    }
}

/// A pod as the API server writes it, the rest left unread.
#[derive(Deserialize)]
pub(super) struct PodItem {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

/// A service account as the API server writes it.
#[derive(Deserialize)]
pub(super) struct AccountItem {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    service_account_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: PodPhase,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: Option<String>,
}

impl From<PodItem> for LivePod {
    fn from(item: PodItem) -> Self {
        let PodItem {
            metadata,
            spec,
            status,
        } = item;
        Self {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            service_account: spec.service_account_name.unwrap_or_default(),
            node_name: spec.node_name.unwrap_or_default(),
            phase: status.phase,
            labels: Arc::new(metadata.labels.unwrap_or_default()),
            pod_ips: status
                .pod_ips
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ip?.parse().ok())
                .collect(),
            terminating: metadata.deletion_timestamp.is_some(),
        }
    }
}

#[cfg(test)]
pub(super) fn pod_from_json(json: &str) -> LivePod {
    serde_json::from_str::<PodItem>(json).unwrap().into()
}

#[cfg(test)]
mod tests {
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
                by_uid: RwLock::default(),
                events,
            },
            receiver,
        )
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
        pods.replace(vec![item("a", "x"), item("b", "x"), item("c", "x")])
            .await;
        assert_eq!(received(&mut events), []);
        pods.replace(vec![item("b", "y"), item("c", "x"), item("d", "x")])
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
        assert!(pods.by_uid.read().unwrap().is_empty());
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
            let uids = accounts.uids.read().unwrap();
            uids.get("shop")
                .and_then(|names| names.get("frontend"))
                .is_some_and(|known| known == uid)
        };
        accounts.upsert(account("1")).await;
        assert!(known("1") && !known("2"));
        accounts.upsert(account("2")).await;
        assert!(!known("1") && known("2"));
        accounts.remove(account("2")).await;
        assert!(accounts.uids.read().unwrap().is_empty());
        accounts.replace(vec![account("3")]).await;
        assert!(known("3"));
    }
}
