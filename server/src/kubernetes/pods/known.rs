//! The pods of a cluster at one moment, by UID, and how many each node has.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::LivePod;
use super::shared::Shared;
use super::wire::PodItem;

/// What the watch shows. A pod takes about 360 bytes where the pods of one template share their labels, and about 1,100 with three
/// labels that no other has in common with it.
#[derive(Debug, Default)]
pub(super) struct KnownPods {
    pods: HashSet<ByUid>,
    /// Pods that are not over, by the name of their node.
    on_node: HashMap<Arc<str>, usize>,
    shared: Shared,
}

/// A pod that stands for its UID.
#[derive(Debug)]
struct ByUid(Arc<LivePod>);

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.uid.hash(state);
    }
}

impl Borrow<str> for ByUid {
    fn borrow(&self) -> &str {
        &self.0.uid
    }
}

impl KnownPods {
    /// The pod with this UID.
    pub(super) fn get(&self, uid: &str) -> Option<Arc<LivePod>> {
        self.pods.get(uid).map(|known| Arc::clone(&known.0))
    }

    /// Whether there is a pod with this UID.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.pods.contains(uid)
    }

    /// Every pod, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<LivePod>> {
        self.pods.iter().map(|known| &known.0)
    }

    /// Every pod, one after the other let go of.
    pub(super) fn into_all(self) -> impl Iterator<Item = Arc<LivePod>> {
        self.pods.into_iter().map(|known| known.0)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// How many pods of a node are not over.
    pub(super) fn on_node(&self, node_name: &str) -> usize {
        self.on_node.get(node_name).copied().unwrap_or(0)
    }

    /// The pods of some namespaces that are not over.
    pub(super) fn of_namespaces<'a>(
        &'a self,
        names: &'a BTreeSet<String>,
    ) -> impl Iterator<Item = Arc<LivePod>> + 'a {
        let concerned = |known: &&ByUid| names.contains(&*known.0.namespace) && !known.0.phase.is_over();
        self.pods
            .iter()
            .filter(concerned)
            .map(|known| Arc::clone(&known.0))
    }

    /// Adds a pod, or shows it as it is now. Returns it, and it as it was.
    pub(super) fn put(&mut self, item: PodItem) -> (Arc<LivePod>, Option<Arc<LivePod>>) {
        let pod = Arc::new(item.into_pod(&mut self.shared));
        if !pod.phase.is_over() {
            *self.on_node.entry(Arc::clone(&pod.node_name)).or_default() += 1;
        }
        let old = self.pods.replace(ByUid(Arc::clone(&pod))).map(|known| known.0);
        if let Some(old) = &old {
            self.leave(old);
        }
        (pod, old)
    }

    /// Takes a pod away.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<LivePod>> {
        let pod = self.pods.take(uid)?.0;
        self.leave(&pod);
        Some(pod)
    }

    /// How many names, and how many sets of labels, pods have in common.
    #[cfg(test)]
    pub(super) fn shared_values(&self) -> (usize, usize) {
        self.shared.len()
    }

    fn leave(&mut self, pod: &LivePod) {
        self.shared.let_go(self.pods.len());
        if pod.phase.is_over() {
            return;
        }
        if let Some(count) = self.on_node.get_mut(&pod.node_name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.on_node.remove(&pod.node_name);
            }
        }
    }
}
