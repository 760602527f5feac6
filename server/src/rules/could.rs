//! Which rules could give an identity, whoever asked: from the ID back to what a workload would have to be.

use super::account::{Mismatch, listed};
use super::matcher::Matcher;
use super::template::Placeholder;
use super::{Evidence, Rule, RuleSet};
use signet_certs::id::SpiffeId;

/// A rule whose template can give an ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Could {
    /// Name of the rule.
    pub rule: String,
    /// Its place among all, from 1.
    pub place: usize,
    /// What a workload has to be for it to give this ID: the placeholders with the values that they had to have.
    pub pinned: Vec<(String, String)>,
    /// Why it gives it to nobody all the same: what it wants, and what the ID would need.
    pub never: Option<Mismatch>,
    /// Whether it gives to pods.
    pub to_pods: bool,
    /// Which processes outside pods it gives to, in words; `None` where to none.
    pub to_processes: Option<String>,
}

impl Could {
    /// The value that a placeholder had to have.
    pub(crate) fn pinned(&self, placeholder: &str) -> Option<&str> {
        let mut pinned = self.pinned.iter();
        let found = pinned.find(|(name, _)| name == placeholder);
        found.map(|(_, value)| value.as_str())
    }
}

impl RuleSet {
    /// The rules whose templates can give this ID, in order.
    pub(crate) fn could_give(&self, id: &SpiffeId) -> Vec<Could> {
        let of = |(index, rule): (usize, &Rule)| {
            let values = rule.grant.as_ref()?.spiffe_id.read(id)?;
            let never = values
                .iter()
                .find_map(|(placeholder, value)| rule.refuses(placeholder, value));
            Some(Could {
                rule: rule.name.clone(),
                place: index + 1,
                to_pods: rule.matcher.takes_pods(),
                to_processes: rule
                    .matcher
                    .takes_processes()
                    .then(|| rule.matcher.processes(&values)),
                pinned: values
                    .iter()
                    .map(|(placeholder, value)| (placeholder.to_string(), value.clone()))
                    .collect(),
                never,
            })
        };
        let rules = self.rules.iter().enumerate();
        rules.filter_map(of).collect()
    }
}

impl Matcher {
    fn takes_pods(&self) -> bool {
        self.evidence.contains(&Evidence::PodToken) && self.unix.is_empty()
    }

    fn takes_processes(&self) -> bool {
        self.evidence.contains(&Evidence::Unix) && !self.asks_for_pods()
    }

    /// Whom it takes of the processes, where placeholders have these values.
    fn processes(&self, values: &[(Placeholder, String)]) -> String {
        let one_of = |placeholder: &Placeholder, all: Vec<String>| {
            let pinned = values.iter().find(|(known, _)| known == placeholder);
            pinned.map_or(all, |(_, value)| vec![value.clone()])
        };
        let of = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect();
        let unix = &self.unix;
        let wanted = [
            ("uid", one_of(&Placeholder::Uid, of(&unix.uids))),
            ("gid", one_of(&Placeholder::Gid, of(&unix.gids))),
            ("path", unix.paths.clone()),
            ("sha256", unix.sha256.iter().map(hex::encode).collect()),
            ("cluster", one_of(&Placeholder::Cluster, self.clusters.clone())),
        ];
        let wanted = wanted.into_iter().filter(|(_, values)| !values.is_empty());
        let wanted = wanted.map(|(what, values)| format!("{what} {}", listed(values.into_iter())));
        wanted.collect::<Vec<_>>().join(", ")
    }
}

impl Rule {
    /// Whether what it asks for lets a placeholder have this value.
    fn refuses(&self, placeholder: &Placeholder, value: &str) -> Option<Mismatch> {
        let matcher = &self.matcher;
        let (criterion, wanted): (_, Vec<String>) = match placeholder {
            Placeholder::Cluster => ("clusters", matcher.clusters.clone()),
            Placeholder::Namespace => ("namespaces", matcher.namespaces.clone()),
            Placeholder::ServiceAccount => ("service_accounts", matcher.service_accounts.clone()),
            Placeholder::Label(key) => (
                "pod_labels",
                matcher.pod_labels.get(key).cloned().into_iter().collect(),
            ),
            Placeholder::Uid => (
                "unix.uids",
                matcher.unix.uids.iter().map(u32::to_string).collect(),
            ),
            Placeholder::Gid => (
                "unix.gids",
                matcher.unix.gids.iter().map(u32::to_string).collect(),
            ),
            Placeholder::PodName | Placeholder::PodUid | Placeholder::NodeName => return None,
        };
        if wanted.is_empty() || wanted.iter().any(|one| one == value) {
            return None;
        }
        Some(Mismatch {
            criterion,
            wanted: listed(wanted.into_iter()),
            found: value.to_owned(),
        })
    }
}
