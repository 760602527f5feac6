//! Values that many pods have in common, each held once: names of namespaces, accounts and nodes, and whole sets of labels,
//! which the pods of one template share.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// So many pods may go before what no pod has any more is looked for.
const SWEEP_AFTER: usize = 1024;

/// The values that pods share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: HashSet<Arc<str>>,
    labels: HashSet<Arc<BTreeMap<String, String>>>,
    let_go: usize,
}

impl Shared {
    /// This text, as all others that are equal.
    pub(super) fn text(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.texts.get(text.as_str()) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    /// These labels, as all others that are equal.
    pub(super) fn labels(&mut self, labels: BTreeMap<String, String>) -> Arc<BTreeMap<String, String>> {
        if let Some(known) = self.labels.get(&labels) {
            return Arc::clone(known);
        }
        let new = Arc::new(labels);
        self.labels.insert(Arc::clone(&new));
        new
    }

    /// A pod is gone, or as it was no longer; so many are left. Now and then what nobody has any more goes too: as often as
    /// half of the pods have changed, so that the work for each change stays small.
    pub(super) fn let_go(&mut self, left: usize) {
        self.let_go += 1;
        if self.let_go >= SWEEP_AFTER.max(left / 2) {
            self.let_go = 0;
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.texts.len(), self.labels.len())
    }
}
