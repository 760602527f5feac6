//! The pods and service accounts of a cluster as they are now, from two watches over all namespaces.

mod accounts;
mod known;
mod phase;
mod shared;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::sync::RwLock;
use tokio::task::coop;

use self::accounts::Accounts;
use self::known::KnownPods;
pub(crate) use self::phase::PodPhase;
use self::wire::PodItem;
use super::api::{CallError, KubeApi, is_path_segment};
use super::namespaces::TellNamespaces;
use super::watch::{Sink, WatchHealth, follow};
use crate::clock::TrustedClock;

const POD_BYTES: usize = 8 * 1024 * 1024;

/// What matters of a live pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePod {
    /// UID, which no second pod ever gets.
    pub uid: Box<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name, which a later pod may get again.
    pub name: Box<str>,
    /// Service account it runs as.
    pub service_account: Arc<str>,
    /// Node it is bound to; empty while it is on none.
    pub node_name: Arc<str>,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// Labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// A deletion has begun and the pod is still there.
    pub terminating: bool,
}

/// The state of one cluster, fed by [`PodWatch::run`].
pub(crate) struct PodWatch {
    pods: Arc<Pods>,
    accounts: Arc<Accounts>,
    pods_health: Arc<WatchHealth>,
    accounts_health: Arc<WatchHealth>,
}

impl PodWatch {
    pub(crate) fn new(cluster: Arc<str>, tell: TellPod, clock: &Arc<TrustedClock>) -> Self {
        let health = || Arc::new(WatchHealth::new(Arc::clone(clock)));
        Self {
            pods: Arc::new(Pods {
                cluster,
                known: RwLock::default(),
                tell,
            }),
            accounts: Arc::default(),
            pods_health: health(),
            accounts_health: health(),
        }
    }

    /// Follows the cluster; ends never.
    pub(crate) async fn run(&self, api: Arc<KubeApi>) {
        tokio::join!(
            follow(
                Arc::clone(&api),
                Arc::clone(&self.pods),
                Arc::clone(&self.pods_health)
            ),
            follow(api, Arc::clone(&self.accounts), Arc::clone(&self.accounts_health)),
        );
    }

    /// Both watches are complete and lively.
    pub(crate) fn is_synced(&self) -> bool {
        self.pods_health.is_synced() && self.accounts_health.is_synced()
    }

    /// What both watches have shown may be gone by: they are synced, or lists that replace it come in.
    pub(crate) fn holds(&self) -> bool {
        self.pods_health.holds() && self.accounts_health.holds()
    }

    /// Both watches are complete, lively, and nothing interrupts them at the moment.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_synced() && self.problem().is_none()
    }

    /// The watch of pods is lively, and has shown everything up to some moment of elapsed time after this one.
    pub(crate) fn is_current(&self, after: Option<Duration>) -> bool {
        let reached = self.pods_health.current_at();
        self.is_whole() && reached.is_some_and(|reached| after.is_none_or(|after| reached > after))
    }

    /// Both watches have shown the whole cluster once.
    pub(crate) fn was_listed(&self) -> bool {
        self.last_seen().is_some()
    }

    /// Returns once both first lists are complete.
    pub(crate) async fn first_sync(&self) {
        self.pods_health.first_list().await;
        self.accounts_health.first_list().await;
    }

    /// Silence of the quieter watch.
    pub(crate) fn last_seen(&self) -> Option<Duration> {
        Some(
            self.pods_health
                .last_seen()?
                .max(self.accounts_health.last_seen()?),
        )
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let named = |kind: &str, health: &WatchHealth| {
            health.problem().map(|text| format!("watch of {kind}: {text}"))
        };
        named("pods", &self.pods_health).or_else(|| named("service accounts", &self.accounts_health))
    }

    /// The pod with this UID, if the watch shows it.
    pub(crate) fn pod(&self, uid: &str) -> Option<Arc<LivePod>> {
        self.pods.known.read().get(uid)
    }

    /// The pod of this name; while a later one takes the place of one that is over, the later one.
    pub(crate) fn pod_named(&self, namespace: &str, name: &str) -> Option<Arc<LivePod>> {
        let known = self.pods.known.read();
        let named = known
            .all()
            .filter(|pod| &*pod.name == name && &*pod.namespace == namespace);
        named.min_by_key(|pod| pod.phase.is_over()).cloned()
    }

    /// The first pods that are so, and whether there are more.
    pub(crate) fn pods_where(
        &self,
        is_so: &dyn Fn(&LivePod) -> bool,
        most: usize,
    ) -> (Vec<Arc<LivePod>>, bool) {
        let known = self.pods.known.read();
        let mut pods: Vec<_> = known
            .all()
            .filter(|pod| is_so(pod))
            .take(most.saturating_add(1))
            .cloned()
            .collect();
        let more = pods.len() > most;
        pods.truncate(most);
        (pods, more)
    }

    /// Whether the watch shows a pod with this UID.
    pub(crate) fn has_pod(&self, uid: &str) -> bool {
        self.pods.known.read().has(uid)
    }

    pub(crate) fn pod_count(&self) -> usize {
        self.pods.known.read().len()
    }

    /// Tells of every pod of some namespaces that a verdict on it may come out differently.
    pub(crate) fn tell_namespaces(&self) -> TellNamespaces {
        let pods = Arc::clone(&self.pods);
        Box::new(move |namespaces| pods.namespaces_changed(namespaces))
    }

    /// How many pods the watch shows on a node, without those that are over.
    pub(crate) fn pods_on_node(&self, node_name: &str) -> usize {
        self.pods.known.read().on_node(node_name)
    }

    /// Whether the watch shows this service account under this UID.
    pub(crate) fn has_account(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.accounts.has(namespace, name, uid)
    }
}

/// Asks the API server itself for a pod. The call was admitted.
pub(crate) async fn get_pod(
    api: &KubeApi,
    namespace: &str,
    name: &str,
) -> Result<Option<LivePod>, CallError> {
    if !is_path_segment(namespace) || !is_path_segment(name) {
        return Ok(None);
    }
    let answer = api
        .get::<PodItem>(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), POD_BYTES)
        .await;
    match answer {
        Ok(item) => Ok(Some(item.into())),
        Err(CallError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A change of a pod that matters to whoever issues to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEvent {
    /// Name of the cluster in the server's configuration.
    pub cluster: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Node the pod was bound to; empty while it is on none.
    pub node_name: String,
    /// What happened to it.
    pub kind: PodEventKind,
}

/// What happened to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodEventKind {
    /// The pod is gone from the cluster, or another one took its name.
    Gone,
    /// Its labels or those of its namespace, its phase of being over, or its being deleted changed: verdicts on it may differ now.
    Changed,
}

/// Who is told of what happens to pods. Called by the watch itself, which goes on afterwards: no event is lost, and none may
/// be waited with.
pub(crate) type TellPod = Arc<dyn Fn(PodEvent) + Send + Sync>;

struct Pods {
    cluster: Arc<str>,
    known: RwLock<KnownPods>,
    tell: TellPod,
}

impl Pods {
    fn namespaces_changed(&self, namespaces: &BTreeSet<String>) {
        let concerned: Vec<_> = self.known.read().of_namespaces(namespaces).collect();
        for pod in concerned {
            self.tell(&pod, PodEventKind::Changed);
        }
    }

    fn tell(&self, pod: &LivePod, kind: PodEventKind) {
        (self.tell)(PodEvent {
            cluster: self.cluster.to_string(),
            pod_uid: pod.uid.to_string(),
            node_name: pod.node_name.to_string(),
            kind,
        });
    }
}

impl Sink for Pods {
    type Item = PodItem;
    type State = KnownPods;
    const PATH: &'static str = "/api/v1/pods";

    fn add(state: &mut KnownPods, item: PodItem) {
        state.put(item);
    }

    fn take(state: &mut KnownPods, item: &PodItem) {
        state.remove(&item.metadata.uid);
    }

    /// Readers go on with what was known until the new state takes its place; nobody waits for the comparison of the two.
    async fn replace(&self, state: KnownPods) {
        let before = {
            let mut pods = self.known.write();
            std::mem::replace(&mut *pods, state)
        };
        for old in before.into_all() {
            let new = self.known.read().get(&old.uid);
            match new {
                None => self.tell(&old, PodEventKind::Gone),
                Some(new) if differs(&old, &new) => self.tell(&new, PodEventKind::Changed),
                Some(_) => {}
            }
            coop::consume_budget().await;
        }
    }

    fn upsert(&self, item: PodItem) {
        let (pod, old) = {
            let mut pods = self.known.write();
            pods.put(item)
        };
        if old.is_some_and(|old| differs(&old, &pod)) {
            self.tell(&pod, PodEventKind::Changed);
        }
    }

    fn remove(&self, item: &PodItem) {
        let removed = {
            let mut pods = self.known.write();
            pods.remove(&item.metadata.uid)
        };
        if let Some(pod) = removed {
            self.tell(&pod, PodEventKind::Gone);
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

#[cfg(test)]
pub(crate) fn pod_from_json(json: &str) -> LivePod {
    serde_json::from_str::<PodItem>(json).unwrap().into()
}
