//! The labels of a cluster's namespaces as they are now, from a watch that goes on for as long as somebody asks for them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::sync::Arc;

use serde::Deserialize;
use signet_runtime::sync::RwLock;
use tokio::sync::watch::Receiver;

use super::api::{CallError, KubeApi, is_path_segment};
use super::watch::{Object, Sink, WatchHealth, follow};
use crate::clock::TrustedClock;

const NAMESPACE_BYTES: usize = 4 * 1024 * 1024;

/// Labels of a namespace.
pub(crate) type Labels = Arc<BTreeMap<String, String>>;

/// Who is told which namespaces have other labels than before. Called by the watch itself: none may be waited with.
pub(crate) type TellNamespaces = Box<dyn Fn(&BTreeSet<String>) + Send + Sync>;

/// The namespaces of one cluster, fed by [`NamespaceWatch::run`].
pub(crate) struct NamespaceWatch {
    namespaces: Arc<Namespaces>,
    health: Arc<WatchHealth>,
    wanted: Receiver<bool>,
}

impl NamespaceWatch {
    /// `wanted` says whether anybody asks for labels, as that changes.
    pub(crate) fn new(tell: TellNamespaces, wanted: Receiver<bool>, clock: &Arc<TrustedClock>) -> Self {
        Self {
            namespaces: Arc::new(Namespaces {
                known: RwLock::default(),
                read: RwLock::default(),
                tell,
            }),
            health: Arc::new(WatchHealth::new(Arc::clone(clock))),
            wanted,
        }
    }

    /// Follows the cluster while that is wanted, and forgets what it has shown when it no longer is; ends never.
    pub(crate) async fn run(&self, api: Arc<KubeApi>) {
        loop {
            becomes(&self.wanted, true).await;
            tokio::select! {
                () = follow(Arc::clone(&api), Arc::clone(&self.namespaces), Arc::clone(&self.health)) => {}
                () = becomes(&self.wanted, false) => {}
            }
            // What is shown no longer ages without a sign of it, and in an outage it would count all the same.
            self.namespaces.known.write().clear();
            self.namespaces.read.write().clear();
        }
    }

    /// What the watch has shown may be gone by, as of pods.
    pub(crate) fn holds(&self) -> bool {
        self.health.holds()
    }

    /// The labels of a namespace that the watch shows.
    pub(crate) fn labels(&self, name: &str) -> Option<Labels> {
        self.namespaces.known.read().get(name).cloned()
    }

    /// Somebody judges by these labels, which were read, for the watch had shown none.
    pub(crate) fn was_read(&self, name: &str, labels: &Labels) {
        if self.namespaces.was_read(name, labels) {
            (self.namespaces.tell)(&BTreeSet::from([name.to_owned()]));
        }
    }

    /// What stands in the way of labels that somebody asks for, and what to do.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.health.problem().filter(|_| *self.wanted.borrow())?;
        Some(format!(
            "watch of namespaces, whose labels rules ask for: {problem} (this server must be allowed to get, list and watch them)"
        ))
    }
}

/// Returns when it is so. Where nobody can change it any more, that is now or never.
async fn becomes(wanted: &Receiver<bool>, so: bool) {
    let mut wanted = wanted.clone();
    if wanted.wait_for(|now| *now == so).await.is_err() {
        pending::<()>().await;
    }
}

/// Asks the API server itself for the labels of a namespace, if it is there. The call was admitted.
pub(crate) async fn get_labels(api: &KubeApi, name: &str) -> Result<Option<Labels>, CallError> {
    if !is_path_segment(name) {
        return Ok(None);
    }
    let path = format!("/api/v1/namespaces/{name}");
    match api.get::<NamespaceItem>(&path, NAMESPACE_BYTES).await {
        Ok(item) => Ok(Some(item.metadata.into_labels())),
        Err(CallError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A namespace as the API server writes it, as far as it matters.
#[derive(Deserialize)]
struct NamespaceItem {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Metadata {
    fn into_labels(self) -> Labels {
        Arc::new(self.labels.unwrap_or_default())
    }
}

impl Object for NamespaceItem {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Labels by the name of the namespace.
type Known = HashMap<String, Labels>;

struct Namespaces {
    known: RwLock<Known>,
    /// Labels that were read because the watch did not show them, and by which somebody was judged; none where they were not always the
    /// same. There are no more of them than namespaces with pods that were proved.
    read: RwLock<HashMap<String, Option<Labels>>>,
    tell: TellNamespaces,
}

impl Namespaces {
    /// Whether the watch shows others by now, so that nothing is left to come that would tell of it. Else they are kept until it shows some.
    fn was_read(&self, name: &str, labels: &Labels) -> bool {
        // Held until it is done: what the watch shows is put there before what was read is looked at.
        let known = self.known.read();
        if let Some(shown) = known.get(name) {
            return shown != labels;
        }
        let mut read = self.read.write();
        let kept = read
            .entry(name.to_owned())
            .or_insert_with(|| Some(Arc::clone(labels)));
        if kept.as_ref().is_some_and(|kept| kept != labels) {
            *kept = None;
        }
        false
    }

    /// Whether somebody may have been judged by other labels than these; that is so once.
    fn differs(&self, name: &str, new: &Labels, before: Option<&Labels>) -> bool {
        let read = self.read.write().remove(name);
        let was_read_otherwise = read.is_some_and(|read| read.as_ref() != Some(new));
        was_read_otherwise || before.is_some_and(|old| old != new)
    }
}

impl Sink for Namespaces {
    type Item = NamespaceItem;
    type State = Known;
    const PATH: &'static str = "/api/v1/namespaces";

    fn add(state: &mut Known, NamespaceItem { metadata }: NamespaceItem) {
        state.insert(metadata.name.clone(), metadata.into_labels());
    }

    fn take(state: &mut Known, item: &NamespaceItem) {
        state.remove(&item.metadata.name);
    }

    /// One that was neither known nor read, or is gone, has no pods that were judged by other labels.
    async fn replace(&self, state: Known) {
        let changed = {
            let mut known = self.known.write();
            let differs = |(name, new): &(&String, &Labels)| self.differs(name, new, known.get(*name));
            let changed: BTreeSet<_> = state
                .iter()
                .filter(differs)
                .map(|(name, _)| name.clone())
                .collect();
            *known = state;
            // The others are gone.
            self.read.write().clear();
            changed
        };
        if !changed.is_empty() {
            (self.tell)(&changed);
        }
    }

    fn upsert(&self, NamespaceItem { metadata }: NamespaceItem) {
        let (name, labels) = (metadata.name.clone(), metadata.into_labels());
        let old = self.known.write().insert(name.clone(), Arc::clone(&labels));
        if self.differs(&name, &labels, old.as_ref()) {
            (self.tell)(&BTreeSet::from([name]));
        }
    }

    fn remove(&self, item: &NamespaceItem) {
        Self::take(&mut self.known.write(), item);
    }
}
