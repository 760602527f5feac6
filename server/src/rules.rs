//! From attested facts to identities: which SPIFFE IDs a workload may have.
//!
//! Every rule that matches gives an identity, the first one being the default; any deny rule that matches wins over
//! all of them. The built-in rule comes last and gives every attested pod `/ns/<namespace>/sa/<service account>`; it
//! stays until it is switched off by name, so that adding a rule never takes an identity away.
//!
//! Pure: facts in, verdict out.

mod belief;
mod compile;
mod config;
mod error;
mod matcher;
mod outcome;
mod template;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use signet_certs::id::{SpiffeId, TrustDomain};

pub(crate) use self::belief::belief;
pub(crate) use self::config::{Evidence, IdentityRuleConfig, MatchConfig, UnixMatchConfig};
pub(crate) use self::error::{RuleError, RuleErrors, RuleProblem};
use self::matcher::Matcher;
pub(crate) use self::outcome::{Judgement, Outcome, RuleOutcome, Unusable};
use self::template::{IdTemplate, Rendered, Template};
use crate::attest::AttestedPod;

/// Name of the built-in rule, which no other rule may have.
pub(crate) const BUILTIN_RULE: &str = "builtin";
/// Longest hint, in bytes (SPIFFE Workload API).
pub(crate) const MAX_HINT_BYTES: usize = 1024;
/// Most rules of a set.
pub(crate) const MAX_RULES: usize = 10_000;

/// Where a rule set applies.
#[derive(Debug, Clone)]
pub(crate) struct RuleScope {
    /// The trust domain that every identity belongs to.
    pub trust_domain: TrustDomain,
    /// Names of the configured clusters.
    pub clusters: Vec<String>,
    /// Whether the built-in rule is there.
    pub builtin_rule: bool,
    /// With several clusters: equal names in different clusters are one identity.
    pub same_identity: bool,
}

/// Rules that were checked as a whole and can be asked.
#[derive(Debug)]
pub(crate) struct RuleSet {
    trust_domain: TrustDomain,
    rules: Vec<Rule>,
    revision: u64,
}

#[derive(Debug)]
struct Rule {
    name: String,
    matcher: Matcher,
    /// Nothing for a deny rule.
    grant: Option<Grant>,
}

#[derive(Debug)]
struct Grant {
    spiffe_id: IdTemplate,
    dns_names: Vec<Template>,
    ttl: Option<Duration>,
    hint: String,
}

/// What attestation proved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Facts<'a> {
    /// A pod, by its own token.
    Pod(&'a AttestedPod),
    /// A process on a node, outside pods.
    Unix(&'a UnixFacts),
}

/// What an agent saw of a process on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnixFacts {
    /// Cluster of the agent.
    pub cluster: String,
    /// Node of the agent.
    pub node_name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Path of the executable, where it could be read.
    pub path: Option<String>,
    /// SHA-256 of the executable, where it could be read.
    pub sha256: Option<[u8; 32]>,
}

/// What the rules say to some facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// At least one identity, all different; the first is the default.
    Identities(Vec<GrantedIdentity>),
    /// A deny rule matches.
    Denied {
        /// Its name.
        rule: String,
    },
    /// No rule gives an identity.
    NoMatch,
}

/// One identity that a workload may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantedIdentity {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// Lifetime of its certificates, where the rule sets one.
    pub ttl: Option<Duration>,
    /// DNS names of its certificates.
    pub dns_names: Vec<String>,
    /// Tells identities of one workload apart; empty or unique among them.
    pub hint: String,
    /// Name of the rule that gives it.
    pub rule: String,
}

impl RuleSet {
    /// Checks rules and makes a set of them, the built-in one last if the scope has it.
    ///
    /// The error names every faulty rule, what is wrong with it and what to write instead.
    pub(crate) fn compile(scope: &RuleScope, rules: Vec<IdentityRuleConfig>) -> Result<Self, RuleErrors> {
        compile::compile(scope, rules)
    }

    /// The verdict alone.
    #[cfg(test)]
    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        self.judge(facts).verdict
    }

    /// Every identity the facts give, or why there is none.
    pub(crate) fn judge(&self, facts: &Facts<'_>) -> Judgement {
        let mut unusable = Vec::new();
        let verdict = self.verdict(facts, &mut unusable);
        Judgement { verdict, unusable }
    }

    fn verdict(&self, facts: &Facts<'_>, unusable: &mut Vec<Unusable>) -> Verdict {
        let matching = || {
            self.rules
                .iter()
                .filter(|rule| rule.matcher.mismatch(facts).is_none())
        };
        if let Some(deny) = matching().find(|rule| rule.grant.is_none()) {
            return Verdict::Denied {
                rule: deny.name.clone(),
            };
        }
        let mut identities: Vec<GrantedIdentity> = Vec::new();
        for rule in matching() {
            let identity = match rule.render(&self.trust_domain, facts) {
                Some(Ok(identity)) => identity,
                Some(Err(problem)) => {
                    let rule = rule.name.clone();
                    unusable.push(Unusable { rule, problem });
                    continue;
                }
                None => continue,
            };
            if identities
                .iter()
                .all(|known| known.spiffe_id != identity.spiffe_id)
            {
                identities.push(identity);
            }
        }
        keep_first_of_equal_hints(&mut identities);
        if identities.is_empty() {
            Verdict::NoMatch
        } else {
            Verdict::Identities(identities)
        }
    }

    /// What every rule makes of the facts, in order.
    pub(crate) fn explain(&self, facts: &Facts<'_>) -> Vec<RuleOutcome> {
        let outcome = |rule: &Rule| match rule.matcher.mismatch(facts) {
            Some(criterion) => Outcome::NoMatch(criterion),
            None => match rule.render(&self.trust_domain, facts) {
                None => Outcome::Denies,
                Some(Ok(identity)) => Outcome::Grants(identity.spiffe_id),
                Some(Err(problem)) => Outcome::Unusable(problem),
            },
        };
        self.rules
            .iter()
            .map(|rule| RuleOutcome {
                rule: rule.name.clone(),
                outcome: outcome(rule),
            })
            .collect()
    }

    /// Places in the list of rules that give equal service accounts of all namespaces one identity.
    pub(crate) fn across_namespaces(&self) -> impl Iterator<Item = usize> {
        let across = |rule: &Rule| {
            let grant = rule.grant.as_ref();
            rule.matcher.namespaces.is_empty()
                && grant.is_some_and(|grant| grant.spiffe_id.is_across_namespaces())
        };
        let rules = self.rules.iter().enumerate();
        rules.filter_map(move |(index, rule)| across(rule).then_some(index))
    }

    /// Changes when the content of the set does; equal for equal content, also after a restart. Never 0, and fits
    /// into 63 bits.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The longest lifetime any rule sets; CRLs and authorities must outlive it.
    pub(crate) fn longest_ttl(&self) -> Option<Duration> {
        self.rules
            .iter()
            .filter_map(|rule| rule.grant.as_ref()?.ttl)
            .max()
    }

    /// Names of the rules in order, the built-in one included.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }
}

impl Rule {
    /// Nothing for a deny rule; an error when a template gives nothing usable for these facts.
    fn render(&self, domain: &TrustDomain, facts: &Facts<'_>) -> Option<Result<GrantedIdentity, String>> {
        let grant = self.grant.as_ref()?;
        Some(
            grant
                .render(domain, facts)
                .map(|(spiffe_id, dns_names)| GrantedIdentity {
                    spiffe_id,
                    ttl: grant.ttl,
                    dns_names,
                    hint: grant.hint.clone(),
                    rule: self.name.clone(),
                }),
        )
    }
}

impl Grant {
    fn render(&self, domain: &TrustDomain, facts: &Facts<'_>) -> Rendered<(SpiffeId, Vec<String>)> {
        let spiffe_id = self.spiffe_id.render(domain, facts)?;
        let mut dns_names: Vec<String> = Vec::with_capacity(self.dns_names.len());
        for template in &self.dns_names {
            let name = template.render_dns_name(facts)?;
            if !dns_names.contains(&name) {
                dns_names.push(name);
            }
        }
        Ok((spiffe_id, dns_names))
    }
}

/// Clears a hint that an earlier identity has already: the identity itself stays.
fn keep_first_of_equal_hints(identities: &mut [GrantedIdentity]) {
    let mut seen = HashSet::new();
    for identity in identities {
        if !identity.hint.is_empty() && !seen.insert(identity.hint.clone()) {
            identity.hint.clear();
        }
    }
}

/// For people: which workload.
impl std::fmt::Display for Facts<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(pod) => write!(formatter, "pod {}/{}", pod.namespace, pod.pod_name),
            Self::Unix(unix) => write!(formatter, "uid {} on {}", unix.uid, unix.node_name),
        }
    }
}

impl Facts<'_> {
    fn evidence(&self) -> Evidence {
        match self {
            Self::Pod(_) => Evidence::PodToken,
            Self::Unix(_) => Evidence::Unix,
        }
    }

    fn cluster(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.cluster,
            Self::Unix(unix) => &unix.cluster,
        }
    }
}
