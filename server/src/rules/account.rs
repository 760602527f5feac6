//! An account of a verdict: what each rule made of some facts, and what those that do not match found instead of what they want.
//! It is made of the same evaluation as the verdict, so the two cannot differ.

use std::collections::BTreeMap;
use std::fmt;

use super::matcher::{Criterion, Fit, Matcher};
use super::{Evidence, Facts, GrantedIdentity, Rule, RuleSet, Verdict};

/// Longest list of wanted values, in characters.
const MOST_WANTED: usize = 200;

/// Why the rules say what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// What they say.
    pub verdict: Verdict,
    /// Those that match, in order, then the others, the nearest first.
    pub rules: Vec<RuleAccount>,
    /// So many more do not match and are not named.
    pub left_out: usize,
}

/// What one rule made of the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleAccount {
    /// Its name.
    pub rule: String,
    /// Its place among all, from 1.
    pub place: usize,
    /// What came of it.
    pub fate: Fate,
}

/// What came of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It matches and gives this. Another rule may deny all the same, or give the same identity before it.
    Grants(GrantedIdentity),
    /// It matches and denies.
    Denies,
    /// It matches, but its templates give nothing usable for these facts.
    Unusable(String),
    /// It hangs on labels of the namespace that nobody knows at the moment.
    Open,
    /// It does not match, by all of these.
    Differs(Vec<Mismatch>),
}

/// A criterion that the facts do not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Its key in the configuration.
    pub criterion: &'static str,
    /// What the rule wants.
    pub wanted: String,
    /// What was found.
    pub found: String,
}

/// In one line, without what was wanted and found: for a log.
impl fmt::Display for RuleAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rule {:?} ", self.rule)?;
        match &self.fate {
            Fate::Grants(identity) => write!(formatter, "gives {}", identity.spiffe_id),
            Fate::Denies => formatter.write_str("denies"),
            Fate::Unusable(problem) => write!(formatter, "matches, but {problem}"),
            Fate::Open => formatter.write_str("hangs on labels of the namespace, which are not known"),
            Fate::Differs(mismatches) => {
                let mut criteria: Vec<_> = mismatches.iter().map(|one| one.criterion).collect();
                criteria.dedup();
                write!(formatter, "does not match by {}", criteria.join(" and "))
            }
        }
    }
}

impl RuleSet {
    /// The verdict with its reasons; at most `most` rules are named.
    pub(crate) fn account(&self, facts: &Facts<'_>, most: usize) -> Account {
        let met: Vec<(&Rule, Fit)> = self.met(facts).collect();
        let verdict = self.verdict(met.iter().copied(), facts, &mut Vec::new());
        let mut ranked: Vec<(usize, usize, &Rule, Fit)> = met
            .into_iter()
            .enumerate()
            .map(|(index, (rule, fit))| (rule.matcher.distance(facts, fit), index, rule, fit))
            .collect();
        ranked.sort_by_key(|(distance, index, ..)| (*distance, *index));
        let left_out = ranked.len().saturating_sub(most);
        let of = |(_, index, rule, fit): (usize, usize, &Rule, Fit)| RuleAccount {
            rule: rule.name.clone(),
            place: index + 1,
            fate: self.fate(rule, fit, facts),
        };
        Account {
            verdict,
            rules: ranked.into_iter().take(most).map(of).collect(),
            left_out,
        }
    }

    fn fate(&self, rule: &Rule, fit: Fit, facts: &Facts<'_>) -> Fate {
        match fit {
            Fit::Open => Fate::Open,
            Fit::Differs => {
                let unmet = rule.matcher.unmet(facts);
                Fate::Differs(
                    unmet
                        .flat_map(|(unmet, _)| rule.matcher.mismatches(unmet, facts))
                        .collect(),
                )
            }
            Fit::Matches => match rule.render(&self.scope.trust_domain, facts) {
                None => Fate::Denies,
                Some(Ok(identity)) => Fate::Grants(identity),
                Some(Err(problem)) => Fate::Unusable(problem),
            },
        }
    }
}

impl Matcher {
    /// How far a rule is from matching: nothing for one that does. Another kind of workload is further than any value, another cluster
    /// or namespace further than another account, and labels are the easiest to change.
    fn distance(&self, facts: &Facts<'_>, fit: Fit) -> usize {
        use Criterion as C;
        let far = |(criterion, _)| match criterion {
            C::Evidence | C::OfPods | C::OfProcesses => 100,
            C::Clusters => 8,
            C::Namespaces | C::Uids => 5,
            C::ServiceAccounts | C::NamespaceLabels | C::Gids | C::Paths | C::Sha256 => 3,
            C::PodLabels => 2,
        };
        match fit {
            Fit::Matches => 0,
            Fit::Open => 1,
            Fit::Differs => self.unmet(facts).map(far).sum(),
        }
    }

    /// What is wanted and found; of labels that are known each one that differs.
    fn mismatches(&self, criterion: Criterion, facts: &Facts<'_>) -> Vec<Mismatch> {
        let labelled = match (criterion, facts) {
            (Criterion::PodLabels, Facts::Pod(pod)) => Some((&self.pod_labels, &pod.labels)),
            (Criterion::NamespaceLabels, Facts::Pod(pod)) => {
                let found = pod.namespace_labels.as_ref();
                found.map(|found| (&self.namespace_labels, found))
            }
            _ => None,
        };
        match labelled {
            Some((wanted, found)) => labels(criterion, wanted, found),
            None => vec![Mismatch {
                criterion: criterion.name(),
                wanted: self.wanted(criterion),
                found: found(criterion, facts),
            }],
        }
    }

    fn wanted(&self, criterion: Criterion) -> String {
        match criterion {
            Criterion::Evidence => listed(
                self.evidence
                    .iter()
                    .map(|evidence| evidence_name(*evidence).to_owned()),
            ),
            Criterion::Clusters => listed(self.clusters.iter().cloned()),
            Criterion::Namespaces => listed(self.namespaces.iter().cloned()),
            Criterion::ServiceAccounts => listed(self.service_accounts.iter().cloned()),
            Criterion::Uids => listed(self.unix.uids.iter().map(u32::to_string)),
            Criterion::Gids => listed(self.unix.gids.iter().map(u32::to_string)),
            Criterion::Paths => listed(self.unix.paths.iter().cloned()),
            Criterion::Sha256 => listed(self.unix.sha256.iter().map(hex::encode)),
            Criterion::OfProcesses => "a process outside pods".to_owned(),
            Criterion::OfPods => "a pod".to_owned(),
            Criterion::PodLabels => joined(self.pod_labels.iter().map(pair), "and"),
            Criterion::NamespaceLabels => joined(self.namespace_labels.iter().map(pair), "and"),
        }
    }
}

fn found(criterion: Criterion, facts: &Facts<'_>) -> String {
    let or_unread = |text: Option<String>| text.unwrap_or_else(|| "not readable".to_owned());
    match (criterion, facts) {
        (Criterion::Evidence, _) => evidence_name(facts.evidence()).to_owned(),
        (Criterion::Clusters, _) => facts.cluster().to_owned(),
        (Criterion::Namespaces, Facts::Pod(pod)) => pod.namespace.clone(),
        (Criterion::ServiceAccounts, Facts::Pod(pod)) => pod.service_account.clone(),
        (Criterion::Uids, Facts::Unix(unix)) => unix.uid.to_string(),
        (Criterion::Gids, Facts::Unix(unix)) => unix.gid.to_string(),
        (Criterion::Paths, Facts::Unix(unix)) => or_unread(unix.path.clone()),
        (Criterion::Sha256, Facts::Unix(unix)) => or_unread(unix.sha256.map(hex::encode)),
        (Criterion::NamespaceLabels, _) => "not known".to_owned(),
        (_, Facts::Pod(_)) => "a pod".to_owned(),
        (_, Facts::Unix(_)) => "a process outside pods".to_owned(),
    }
}

fn labels(
    criterion: Criterion,
    wanted: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> Vec<Mismatch> {
    let differing = wanted
        .iter()
        .filter(|(key, value)| found.get(*key) != Some(value));
    let mismatch = |(key, value): (&String, &String)| Mismatch {
        criterion: criterion.name(),
        wanted: pair((key, value)),
        found: found
            .get(key)
            .map_or_else(|| format!("no label {key}"), |found| pair((key, found))),
    };
    differing.map(mismatch).collect()
}

fn pair((key, value): (&String, &String)) -> String {
    format!("{key}={value}")
}

const fn evidence_name(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::PodToken => "pod_token",
        Evidence::Unix => "unix",
    }
}

/// Values of which one is enough, as they would be read aloud.
pub(super) fn listed(values: impl Iterator<Item = String>) -> String {
    joined(values, "or")
}

/// Cut where there are many.
fn joined(values: impl Iterator<Item = String>, word: &str) -> String {
    let mut text = String::new();
    let mut left_out = 0_usize;
    for value in values {
        if !text.is_empty() && text.len() + value.len() > MOST_WANTED {
            left_out += 1;
            continue;
        }
        if !text.is_empty() {
            text.push_str(&format!(" {word} "));
        }
        text.push_str(&value);
    }
    if left_out > 0 {
        let more = if word == "or" { "one of " } else { "" };
        text.push_str(&format!(" {word} {more}{left_out} more"));
    }
    text
}
