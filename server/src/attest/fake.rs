//! An attestor that believes a table, for tests of everything behind attestation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use signet_certs::jws::JwsError;
use signet_runtime::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{
    AgentIdentity, AttestError, AttestedNode, AttestedPod, Attestor, Bearer, ClusterHealth, Found, FoundPod,
    KnownPod, NodeInOutage, Outages, Place, PodsLike, RefusedReason,
};

/// Answers from tables of tokens; confines pods to the calling agent's node as the real one does.
#[derive(Debug, Default)]
pub(crate) struct FakeAttestor {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<String, AttestedNode>,
    pods: HashMap<String, AttestedPod>,
    /// Labels by namespace.
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// Every call fails with this.
    failure: Option<String>,
    /// The clusters are away, and not for longer than the grace.
    unreachable: bool,
    /// UIDs of pods and nodes that are gone.
    gone: HashSet<String>,
}

impl FakeAttestor {
    /// Knows no token.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// From now on `token` proves this node.
    pub(crate) fn add_node(&self, token: &str, node: AttestedNode) {
        self.lock().nodes.insert(token.to_owned(), node);
    }

    /// From now on `token` proves this pod, to an agent of its node.
    pub(crate) fn add_pod(&self, token: &str, pod: AttestedPod) {
        self.lock().pods.insert(token.to_owned(), pod);
    }

    /// From now on this namespace has this label.
    pub(crate) fn label_namespace(&self, name: &str, key: &str, value: &str) {
        let mut state = self.lock();
        let labels = state.namespaces.entry(name.to_owned()).or_default();
        labels.insert(key.to_owned(), value.to_owned());
    }

    /// With a message every call fails with it, as a call can while the cluster is there; without one that is over.
    pub(crate) fn set_failure(&self, message: Option<&str>) {
        self.lock().failure = message.map(str::to_owned);
    }

    /// The clusters are away: every call fails, and what was attested before may be renewed.
    pub(crate) fn set_unreachable(&self) {
        self.set_failure(Some("away"));
        self.lock().unreachable = true;
    }

    /// In an outage: the pod of this token goes on being proved, by what was known before.
    pub(crate) fn remember_pod(&self, token: &str) {
        let mut state = self.lock();
        state.failure = None;
        if let Some(pod) = state.pods.get_mut(token) {
            pod.outage = true;
        }
    }

    /// The clusters are back, without the pods and nodes of these UIDs.
    pub(crate) fn set_back(&self, gone: &[&str]) {
        let mut state = self.lock();
        (state.failure, state.unreachable) = (None, false);
        state.gone = gone.iter().map(|uid| (*uid).to_owned()).collect();
        state.pods.values_mut().for_each(|pod| pod.outage = false);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn verdict<T: Clone>(&self, known: impl Fn(&State) -> Option<&T>) -> Result<T, AttestError> {
        let state = self.lock();
        if let Some(message) = &state.failure {
            return Err(AttestError::Unavailable {
                message: message.clone(),
                retry_after: Duration::from_secs(1),
            });
        }
        known(&state)
            .cloned()
            .ok_or_else(|| RefusedReason::Token(JwsError::BadSignature).into())
    }

    fn pod(&self, agent: &AgentIdentity, token: &str) -> Result<AttestedPod, AttestError> {
        let pod = self.verdict(|state| state.pods.get(token))?;
        let same_node = pod.cluster == agent.cluster
            && pod.node_uid == agent.node_uid
            && pod.node_name == agent.node_name;
        if !same_node {
            return Err(RefusedReason::OtherNode {
                pod_node: pod.node_name,
                agent_node: agent.node_name.clone(),
            }
            .into());
        }
        Ok(pod)
    }

    fn node(&self, cluster: &str, token: &str) -> Result<AttestedNode, AttestError> {
        let node = self.verdict(|state| state.nodes.get(token))?;
        if node.cluster != cluster {
            return Err(RefusedReason::UnknownCluster {
                cluster: cluster.to_owned(),
            }
            .into());
        }
        Ok(node)
    }
}

impl Attestor for FakeAttestor {
    fn attest_node<'a>(
        &'a self,
        _bearer: Bearer<'a>,
        cluster: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<AttestedNode, AttestError>> {
        ready(self.node(cluster, token)).boxed()
    }

    fn attest_pod<'a>(
        &'a self,
        agent: &'a AgentIdentity,
        token: &'a str,
    ) -> BoxFuture<'a, Result<AttestedPod, AttestError>> {
        ready(self.pod(agent, token)).boxed()
    }

    fn namespace_labels<'a>(
        &'a self,
        pod: &'a AttestedPod,
    ) -> BoxFuture<'a, Result<Arc<BTreeMap<String, String>>, AttestError>> {
        let labels = self.verdict(|state| state.namespaces.get(&pod.namespace));
        let unknown = |_| AttestError::Unavailable {
            message: "no such namespace".to_owned(),
            retry_after: Duration::from_secs(1),
        };
        ready(labels.map(Arc::new).map_err(unknown)).boxed()
    }

    fn node_in_outage<'a>(
        &'a self,
        _cluster: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Option<NodeInOutage>> {
        let state = self.lock();
        let node = state.nodes.get(token).filter(|_| state.unreachable);
        let node = node.map(|node| NodeInOutage {
            cluster_uid: node.cluster_uid.clone(),
            node_name: node.node_name.clone(),
            node_uid: node.node_uid.clone(),
        });
        ready(node).boxed()
    }

    fn pods_on_node(&self, agent: &AgentIdentity) -> usize {
        let state = self.lock();
        let pods: HashSet<_> = state
            .pods
            .values()
            .filter(|pod| pod.cluster == agent.cluster && pod.node_name == agent.node_name)
            .map(|pod| &pod.pod_uid)
            .collect();
        pods.len()
    }

    fn is_pod_gone(&self, _cluster: &str, pod_uid: &str) -> bool {
        let state = self.lock();
        !state.unreachable && state.gone.contains(pod_uid)
    }

    fn known_pod(&self, cluster: &str, pod_uid: &str) -> KnownPod {
        let state = self.lock();
        if state.gone.contains(pod_uid) {
            return KnownPod::Gone;
        }
        let known = state.pods.values().find(|pod| pod.pod_uid == pod_uid);
        match known.filter(|pod| pod.cluster == cluster) {
            Some(pod) => KnownPod::There(Box::new(pod.clone())),
            None if state.unreachable => KnownPod::Unknown,
            None => KnownPod::Gone,
        }
    }

    fn find_pod<'a>(&'a self, cluster: &'a str, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Found> {
        let state = self.lock();
        let is_it =
            |pod: &&AttestedPod| pod.cluster == cluster && pod.namespace == namespace && pod.pod_name == name;
        let found = match (state.pods.values().find(is_it), &state.failure) {
            (Some(pod), _) => Found::There(Box::new(FoundPod {
                pod: pod.clone(),
                phase: "Running",
                is_over: state.gone.contains(&pod.pod_uid),
                from_api: false,
            })),
            (None, Some(failure)) => Found::Unknown(failure.clone()),
            (None, None) => Found::Nowhere,
        };
        ready(found).boxed()
    }

    fn pods_like(&self, cluster: &str, like: &PodsLike, most: usize) -> (Vec<AttestedPod>, bool) {
        let state = self.lock();
        let is_like = |pod: &&AttestedPod| {
            pod.cluster == cluster
                && like
                    .namespace
                    .as_ref()
                    .is_none_or(|wanted| *wanted == pod.namespace)
        };
        let pods: Vec<_> = state.pods.values().filter(is_like).cloned().collect();
        (pods.iter().take(most).cloned().collect(), pods.len() > most)
    }

    fn is_there<'a>(&'a self, place: Place<'a>) -> BoxFuture<'a, Option<bool>> {
        let state = self.lock();
        let is_there = !state.gone.contains(place.pod_uid) && !state.gone.contains(place.node_uid);
        ready((!state.unreachable).then_some(is_there)).boxed()
    }

    fn forget_reviews(&self) {}

    fn outages(&self) -> watch::Receiver<Outages> {
        watch::Sender::default().subscribe()
    }

    fn clusters(&self) -> Vec<ClusterHealth> {
        let problem = self.lock().failure.clone();
        vec![ClusterHealth {
            name: "dev".to_owned(),
            uid: None,
            synced: problem.is_none(),
            unreachable_since: None,
            last_seen: None,
            pods: 0,
            kept_reviews: 0,
            displaced_reviews: 0,
            problem,
        }]
    }
}
