//! An attestor that believes a table, for tests of everything behind attestation.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use signet_certs::jws::JwsError;
use signet_runtime::sync::{Mutex, MutexGuard};

use super::{AgentIdentity, AttestError, AttestedNode, AttestedPod, Attestor, ClusterHealth, RefusedReason};

/// Answers from tables of tokens; confines pods to the calling agent's node as the real one does.
#[derive(Debug, Default)]
pub(crate) struct FakeAttestor {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<String, AttestedNode>,
    pods: HashMap<String, AttestedPod>,
    outage: Option<String>,
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

    /// With a message every question is answered with it, as if the cluster were away; without one the outage is over.
    pub(crate) fn set_outage(&self, message: Option<&str>) {
        self.lock().outage = message.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn verdict<T: Clone>(&self, known: impl Fn(&State) -> Option<&T>) -> Result<T, AttestError> {
        let state = self.lock();
        if let Some(message) = &state.outage {
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

    fn pods_on_node(&self, agent: &AgentIdentity) -> usize {
        let state = self.lock();
        let pods: std::collections::HashSet<_> = state
            .pods
            .values()
            .filter(|pod| pod.cluster == agent.cluster && pod.node_name == agent.node_name)
            .map(|pod| &pod.pod_uid)
            .collect();
        pods.len()
    }

    fn is_pod_gone(&self, _cluster: &str, _pod_uid: &str) -> bool {
        false
    }

    fn forget_reviews(&self) {}

    fn clusters(&self) -> Vec<ClusterHealth> {
        let problem = self.lock().outage.clone();
        vec![ClusterHealth {
            name: "dev".to_owned(),
            uid: None,
            synced: problem.is_none(),
            last_seen: None,
            pods: 0,
            problem,
        }]
    }
}
