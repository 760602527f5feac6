//! What an earlier run of the agent may have left in use. Until that is known the agent does not say what is in use: what nobody has
//! counted is not nothing, and the server takes an authority away that nobody uses.

use std::collections::BTreeSet;

use crate::cache::WorkloadId;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Left {
    /// Every volume that was there at the start has been named.
    is_named: bool,
    /// Its workloads that have got neither an identity nor a verdict since. What they hold may be kept in a file that is not read yet, or
    /// nowhere.
    workloads: BTreeSet<WorkloadId>,
    /// Its volumes without a socket: their pods are not served yet.
    closed: BTreeSet<String>,
}

impl Left {
    /// A volume is served.
    pub(super) fn opened(&mut self, volume_id: &str, workload: &WorkloadId) {
        if self.closed.remove(volume_id) || !self.is_named {
            self.workloads.insert(workload.clone());
        }
    }

    /// A volume of the earlier run cannot be served.
    pub(super) fn closed(&mut self, volume_id: String) {
        self.closed.insert(volume_id);
    }

    /// A volume is gone.
    pub(super) fn removed(&mut self, volume_id: &str) {
        self.closed.remove(volume_id);
    }

    /// What this workload has is counted from now on, or it is gone.
    pub(super) fn settled(&mut self, workload: &WorkloadId) {
        self.workloads.remove(workload);
    }

    /// No more volumes come that were there at the start.
    pub(super) fn named(&mut self) {
        self.is_named = true;
    }

    /// Whether what is counted is all there is.
    pub(super) fn is_known(&self) -> bool {
        self.is_named && self.workloads.is_empty() && self.closed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_known_once_every_workload_of_the_earlier_run_is_settled_or_gone() {
        let pod = |uid: &str| WorkloadId::Pod(uid.to_owned());
        let mut left = Left::default();
        assert!(!left.is_known(), "its volumes have not been named");
        left.opened("v1", &pod("a"));
        left.closed("v2".to_owned());
        left.closed("v3".to_owned());
        left.named();
        left.opened("v4", &pod("new"));
        left.settled(&pod("a"));
        assert!(!left.is_known());
        left.opened("v2", &pod("b"));
        left.removed("v3");
        assert!(!left.is_known(), "b may hold what was kept");
        left.settled(&pod("b"));
        assert!(left.is_known(), "a new pod holds nothing yet");
    }
}
