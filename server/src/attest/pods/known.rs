//! The pods of a cluster at one moment, by UID, and how many each node has.

use std::collections::HashMap;
use std::sync::Arc;

use super::LivePod;

/// What the watch shows.
#[derive(Debug, Default)]
pub(super) struct KnownPods {
    by_uid: HashMap<String, Arc<LivePod>>,
    /// Pods that are not over, by the name of their node.
    on_node: HashMap<String, usize>,
}

impl KnownPods {
    /// The pod with this UID.
    pub(super) fn get(&self, uid: &str) -> Option<Arc<LivePod>> {
        self.by_uid.get(uid).cloned()
    }

    /// Every pod, one after the other let go of.
    pub(super) fn into_all(self) -> impl Iterator<Item = Arc<LivePod>> {
        self.by_uid.into_values()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// How many pods of a node are not over.
    pub(super) fn on_node(&self, node_name: &str) -> usize {
        self.on_node.get(node_name).copied().unwrap_or(0)
    }

    /// Adds a pod, or shows it as it is now. Returns it as it was.
    pub(super) fn put(&mut self, pod: Arc<LivePod>) -> Option<Arc<LivePod>> {
        if !pod.phase.is_over() {
            *self.on_node.entry(pod.node_name.clone()).or_default() += 1;
        }
        let old = self.by_uid.insert(pod.uid.clone(), pod)?;
        self.leave_node(&old);
        Some(old)
    }

    /// Takes a pod away.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<LivePod>> {
        let pod = self.by_uid.remove(uid)?;
        self.leave_node(&pod);
        Some(pod)
    }

    fn leave_node(&mut self, pod: &LivePod) {
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
