//! Denials, to be found by whom they hit: they say what [`DenialTarget::hits`] says, without looking at each of them. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use signet_certs::id::SpiffeId;

use super::denied::{DenialTarget, Subject};
use super::revocations::Denial;

/// Denials that nobody has lifted, some of which may have ended, to be found by whom they hit.
#[derive(Debug, Default)]
pub(super) struct Denials {
    all: BTreeMap<i64, Denial>,
    ids: Numbers,
    prefixes: Numbers,
    pods: Numbers,
    node_uids: Numbers,
    node_names: Numbers,
}

/// The numbers of denials by the one word that whoever they hit has in common.
type Numbers = HashMap<String, Vec<i64>>;

impl Denials {
    /// Adds a denial. Numbers grow in the order of ordering.
    pub(super) fn insert(&mut self, number: i64, denial: Denial) {
        let mut add = |of: fn(&mut Self) -> &mut Numbers, word: &str| {
            of(self).entry(word.to_owned()).or_default().push(number);
        };
        match &denial.target {
            DenialTarget::Id(id) => add(|all| &mut all.ids, id.as_str()),
            DenialTarget::Prefix(id) => add(|all| &mut all.prefixes, id.as_str()),
            DenialTarget::Pod(pod) => add(|all| &mut all.pods, &pod.uid),
            DenialTarget::Node(node) => {
                add(|all| &mut all.node_uids, &node.uid);
                add(|all| &mut all.node_names, &node.name);
            }
        }
        self.all.insert(number, denial);
    }

    /// Keeps only these.
    pub(super) fn retain(&mut self, kept: impl Fn(&Denial) -> bool) {
        self.all.retain(|_, denial| kept(denial));
        let all = &self.all;
        for numbers in [
            &mut self.ids,
            &mut self.prefixes,
            &mut self.pods,
            &mut self.node_uids,
            &mut self.node_names,
        ] {
            numbers.retain(|_, numbers| {
                numbers.retain(|number| all.contains_key(number));
                !numbers.is_empty()
            });
        }
    }

    /// Those aimed at exactly this, oldest first.
    pub(super) fn aimed_at<'a>(&'a self, target: &'a DenialTarget) -> impl Iterator<Item = &'a Denial> {
        self.all.values().filter(move |denial| denial.target == *target)
    }

    /// The oldest that is in force against this one.
    pub(super) fn of(&self, subject: &Subject<'_>, earliest: SystemTime) -> Option<&Denial> {
        // Nearly always empty: no hashing then.
        if self.all.is_empty() {
            return None;
        }
        let exact = [
            (&self.ids, subject.spiffe_id.as_str()),
            (&self.pods, subject.pod_uid),
            (&self.node_uids, subject.node_uid),
            (&self.node_names, subject.node_name),
        ];
        let exact = exact.into_iter().filter_map(|(numbers, word)| numbers.get(word));
        let above = (!self.prefixes.is_empty()).then(|| ancestors(subject.spiffe_id));
        let above = above
            .into_iter()
            .flatten()
            .filter_map(|word| self.prefixes.get(word));
        let numbers = exact.chain(above).flatten();
        let denials = numbers.filter_map(|number| self.all.get_key_value(number));
        let hits = denials.filter(|(_, denial)| denial.is_active(earliest) && denial.target.hits(subject));
        hits.min_by_key(|(number, _)| **number).map(|(_, denial)| denial)
    }
}

/// An ID and what it lies below, by whole segments, down to its trust domain.
fn ancestors(id: &SpiffeId) -> impl Iterator<Item = &str> {
    let (text, start) = (id.as_str(), id.as_str().len() - id.path().len());
    let ends = id.path().match_indices('/').map(move |(at, _)| start + at);
    ends.filter_map(|end| text.get(..end)).chain([text])
}

#[cfg(test)]
mod tests;
