//! What the API server remembers: objects, one counter of versions, and the changes since the last compaction.
//!
//! Plain data without locks, clocks or sockets: the callers bring them.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Bound, RangeBounds as _},
};

use serde_json::{Value, json};

use super::{
    objects::{Kind, text},
    selector::Selector,
};

/// Namespace (empty for cluster-wide kinds) and name.
type Key = (Kind, String, String);

/// One step in the life of an object.
struct Change {
    version: u64,
    kind: Kind,
    key: Key,
    /// As it was; absent when it was created.
    before: Option<Value>,
    /// As it is; when it was deleted, its last state with the version of the deletion.
    after: Value,
    deleted: bool,
}

/// A change as one watcher sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) version: u64,
    pub(crate) event: &'static str,
    pub(crate) object: Value,
}

/// The version asked for was compacted away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooOld {
    pub(crate) oldest: u64,
}

/// Part of a list, of one moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) version: u64,
    pub(crate) items: Vec<Value>,
    /// Namespace and name after which the rest begins, and how many that are; none where there is no rest.
    pub(crate) rest: Option<((String, String), usize)>,
}

/// Objects and their recent history.
pub(crate) struct Etcd {
    version: u64,
    /// Changes up to and including this version are forgotten.
    compacted: u64,
    /// Lists of versions before this one cannot go on: that is compacted more often than what watches remember.
    oldest_list: u64,
    history: usize,
    objects: BTreeMap<Key, Value>,
    changes: VecDeque<Change>,
}

impl Etcd {
    /// Empty, remembering at most `history` changes.
    pub(crate) fn new(history: usize) -> Self {
        Self {
            // Real clusters start well above zero, and 0 means "any" to a watch.
            version: 100,
            compacted: 100,
            oldest_list: 100,
            history,
            objects: BTreeMap::new(),
            changes: VecDeque::new(),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.objects.get(&key)
    }

    /// Creates or replaces the object under its own namespace and name, and returns it as stored.
    pub(crate) fn put(&mut self, kind: Kind, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.objects.insert(key_of(kind, &object), object.clone());
        self.record(kind, before, object.clone(), false);
        object
    }

    /// Removes the object; `None` when there is none.
    pub(crate) fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let before = self.objects.remove(&key)?;
        self.version += 1;
        let mut last = before.clone();
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.record(kind, Some(before), last.clone(), true);
        Some(last)
    }

    /// Forgets all changes so far: watches from an older version are too old from now on.
    pub(crate) fn compact(&mut self) {
        // Even a watch from the newest list must fail once, so the current version is moved beyond it.
        self.version += 1;
        self.compacted = self.version;
        self.changes.clear();
    }

    /// Forgets what lists that are under way show; watches go on.
    pub(crate) fn expire_lists(&mut self) {
        self.version += 1;
        self.oldest_list = self.version;
    }

    /// At most `limit` objects of one kind after `start`, as they were at `version`; as they are now without one.
    pub(crate) fn page(
        &self,
        kind: Kind,
        selector: &Selector,
        version: Option<u64>,
        start: Option<(String, String)>,
        limit: usize,
    ) -> Result<Page, TooOld> {
        let version = version.unwrap_or(self.version);
        let oldest = self.compacted.max(self.oldest_list);
        if version < oldest && version != self.version {
            return Err(TooOld { oldest });
        }
        let from = start.map_or_else(
            || Bound::Included((kind, String::new(), String::new())),
            |(namespace, name)| Bound::Excluded((kind, namespace, name)),
        );
        let now = self.objects.range((from.clone(), Bound::Unbounded));
        let mut then: BTreeMap<&Key, &Value> = now.take_while(|((of, _, _), _)| *of == kind).collect();
        // Undone from the newest one on: what remains is how it was.
        let undone = self
            .changes
            .iter()
            .rev()
            .take_while(|change| change.version > version);
        for change in undone.filter(|change| (from.clone(), Bound::Unbounded).contains(&change.key)) {
            match &change.before {
                Some(before) if change.kind == kind => then.insert(&change.key, before),
                _ => then.remove(&change.key),
            };
        }
        let mut matching = then.into_iter().filter(|(_, object)| selector.matches(object));
        let taken: Vec<_> = matching.by_ref().take(limit).collect();
        let last = taken
            .last()
            .map(|((_, namespace, name), _)| (namespace.clone(), name.clone()));
        let remaining = matching.count();
        Ok(Page {
            version,
            rest: last.filter(|_| remaining > 0).map(|last| (last, remaining)),
            items: taken.into_iter().map(|(_, object)| object.clone()).collect(),
        })
    }

    /// Objects of one kind, in the order of namespace and name.
    pub(crate) fn list(&self, kind: Kind, selector: &Selector) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|((of, _, _), object)| *of == kind && selector.matches(object))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Changes after `version` as a watcher with this selector sees them: what starts to match was added to it, what
    /// ceases to match was deleted from it.
    pub(crate) fn since(&self, kind: Kind, selector: &Selector, version: u64) -> Result<Vec<Seen>, TooOld> {
        if version < self.compacted {
            return Err(TooOld {
                oldest: self.compacted,
            });
        }
        Ok(self
            .changes
            .iter()
            .filter(|change| change.version > version && change.kind == kind)
            .filter_map(|change| change.seen_through(selector))
            .collect())
    }

    fn record(&mut self, kind: Kind, before: Option<Value>, after: Value, deleted: bool) {
        self.changes.push_back(Change {
            version: self.version,
            kind,
            key: key_of(kind, &after),
            before,
            after,
            deleted,
        });
        while self.changes.len() > self.history {
            if let Some(forgotten) = self.changes.pop_front() {
                self.compacted = forgotten.version;
            }
        }
    }
}

impl Change {
    fn seen_through(&self, selector: &Selector) -> Option<Seen> {
        let was = self.before.as_ref().is_some_and(|b| selector.matches(b));
        let is = !self.deleted && selector.matches(&self.after);
        let event = match (was, is) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some(Seen {
            version: self.version,
            event,
            object: self.after.clone(),
        })
    }
}

fn key_of(kind: Kind, object: &Value) -> Key {
    let namespace = text(object, "/metadata/namespace").to_owned();
    (kind, namespace, text(object, "/metadata/name").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_kube::objects::{PodSpec, pod};

    fn pod_in_phase(phase: &str) -> Value {
        pod(&PodSpec::new("shop", "a").phase(phase), "u", "t")
    }

    #[test]
    fn a_watcher_sees_what_enters_and_leaves_its_selector() {
        let mut etcd = Etcd::new(10);
        let selector = Selector::parse("", Some("status.phase!=Failed"), None).unwrap();
        let start = etcd.version();
        etcd.put(Kind::Pod, pod_in_phase("Running"));
        etcd.put(Kind::Pod, pod_in_phase("Failed"));
        etcd.put(Kind::Pod, pod_in_phase("Running"));
        etcd.delete(Kind::Pod, "shop", "a");
        let seen = etcd.since(Kind::Pod, &selector, start).unwrap();
        let events: Vec<_> = seen.iter().map(|s| s.event).collect();
        assert_eq!(events, ["ADDED", "DELETED", "ADDED", "DELETED"]);
        assert!(seen.is_sorted_by_key(|s| s.version));
    }

    #[test]
    fn pages_show_one_moment_until_that_is_forgotten() {
        let mut etcd = Etcd::new(10);
        let all = Selector::default();
        let named = |name: &str| pod(&PodSpec::new("shop", name), name, "t");
        for name in ["a", "b", "d"] {
            etcd.put(Kind::Pod, named(name));
        }
        let first = etcd.page(Kind::Pod, &all, None, None, 1).unwrap();
        let (start, remaining) = first.rest.unwrap();
        assert_eq!(remaining, 2);
        etcd.put(Kind::Pod, named("c"));
        etcd.delete(Kind::Pod, "shop", "d");
        etcd.put(Kind::ServiceAccount, named("e"));
        let rest = |etcd: &Etcd| etcd.page(Kind::Pod, &all, Some(first.version), Some(start.clone()), 5);
        let names = |page: &Page| -> Vec<String> {
            let name = |item| text(item, "/metadata/name").to_owned();
            page.items.iter().map(name).collect()
        };
        assert_eq!(names(&rest(&etcd).unwrap()), ["b", "d"]);
        etcd.expire_lists();
        assert!(rest(&etcd).is_err());
        assert!(
            etcd.since(Kind::Pod, &all, first.version).is_ok(),
            "watches go on"
        );
        let now = etcd.page(Kind::Pod, &all, None, Some(start.clone()), 5).unwrap();
        assert_eq!(names(&now), ["b", "c"]);
        assert_eq!(now.rest, None);
    }

    #[test]
    fn history_that_was_forgotten_is_too_old() {
        let mut etcd = Etcd::new(2);
        let start = etcd.version();
        for _ in 0..3 {
            etcd.put(Kind::Pod, pod_in_phase("Running"));
        }
        let all = Selector::default();
        let oldest = start + 1;
        assert_eq!(etcd.since(Kind::Pod, &all, start), Err(TooOld { oldest }));
        assert_eq!(etcd.since(Kind::Pod, &all, oldest).unwrap().len(), 2);
        let newest = etcd.version();
        etcd.compact();
        assert!(etcd.since(Kind::Pod, &all, newest).is_err());
        assert_eq!(etcd.list(Kind::Pod, &all).len(), 1);
    }
}
