//! From attested facts to identities: which SPIFFE IDs a workload may have.
//!
//! Every rule that matches gives an identity, the first one being the default; any deny rule that matches wins over
//! all of them. The built-in rule comes last and gives every attested pod `/ns/<namespace>/sa/<service account>`; it
//! stays until it is switched off by name, so that adding a rule never takes an identity away.
//!
//! Pure: facts in, verdict out.

mod account;
mod belief;
mod compile;
mod config;
mod could;
mod error;
mod facts;
mod matcher;
mod origin;
mod outcome;
mod template;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use signet_certs::id::{SpiffeId, TrustDomain};

pub(crate) use self::account::{Account, Fate, Mismatch, RuleAccount};
pub(crate) use self::belief::{ACROSS_NAMESPACES, belief};
pub(crate) use self::config::{Evidence, IdentityRuleConfig, MatchConfig, UnixMatchConfig, WrittenRules};
pub(crate) use self::could::Could;
pub(crate) use self::error::{RuleError, RuleErrors, RuleProblem};
pub(crate) use self::facts::{Facts, UnixFacts};
use self::matcher::{Fit, Matcher};
pub(crate) use self::origin::Origin;
pub(crate) use self::outcome::{Judgement, Unusable};
use self::template::{IdTemplate, Rendered, Template};
use self::verdict::keep_first_of_equal_hints;
pub(crate) use self::verdict::{GrantedIdentity, Verdict};

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
    scope: RuleScope,
    rules: Vec<Rule>,
    revision: u64,
}

#[derive(Debug)]
struct Rule {
    name: String,
    written: IdentityRuleConfig,
    matcher: Matcher,
    /// Nothing for a deny rule.
    grant: Option<Grant>,
    /// An admin has set it; else the file has it, or it is built in.
    by_admin: bool,
}

#[derive(Debug)]
struct Grant {
    spiffe_id: IdTemplate,
    dns_names: Vec<Template>,
    ttl: Option<Duration>,
    hint: String,
}

impl RuleSet {
    /// Checks rules and makes a set of them, the built-in one last if the scope has it.
    ///
    /// The error names every faulty rule, what is wrong with it and what to write instead.
    pub(crate) fn compile(scope: &RuleScope, rules: Vec<IdentityRuleConfig>) -> Result<Self, RuleErrors> {
        compile::compile(scope, rules)
    }

    /// As [`compile`](Self::compile), of rules that were written for a server that may have had other clusters. Where one of them
    /// is named that is gone, the rule stands and matches nobody.
    pub(crate) fn compile_written(scope: &RuleScope, written: WrittenRules) -> Result<Self, RuleErrors> {
        let named = written.rules.iter().flat_map(|rule| &rule.matching.clusters);
        let mut clusters = scope.clusters.clone();
        for cluster in named {
            if !clusters.contains(cluster) {
                clusters.push(cluster.clone());
            }
        }
        let scope = RuleScope {
            trust_domain: scope.trust_domain.clone(),
            clusters,
            builtin_rule: written.builtin_rule,
            same_identity: written.same_identity,
        };
        compile::compile(&scope, written.rules)
    }

    /// The rules as somebody wrote them: what [`compile_written`](Self::compile_written) takes.
    pub(crate) fn written(&self) -> WrittenRules {
        let own = self.rules.iter().filter(|rule| rule.name != BUILTIN_RULE);
        WrittenRules {
            rules: own.map(|rule| rule.written.clone()).collect(),
            builtin_rule: self.scope.builtin_rule,
            same_identity: self.scope.same_identity,
        }
    }

    /// Where it applies.
    pub(crate) fn scope(&self) -> &RuleScope {
        &self.scope
    }

    /// Every rule as it is written, in order, the built-in one included.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &IdentityRuleConfig> {
        self.rules.iter().map(|rule| &rule.written)
    }

    /// Names of those rules of this set whose gift `other` gives as well, whoever has it: they stand there unchanged. None where a deny
    /// rule came in.
    pub(crate) fn kept_by<'s>(&'s self, other: &'s Self) -> HashSet<&'s str> {
        let known: HashMap<&str, &Rule> = self.rules.iter().map(|rule| (rule.name.as_str(), rule)).collect();
        let stands = |rule: &&Rule| {
            let known = known.get(rule.name.as_str());
            known.is_some_and(|known| known.written == rule.written)
        };
        let mut denies = other.rules.iter().filter(|rule| rule.grant.is_none());
        if !denies.all(|deny| stands(&deny)) {
            return HashSet::new();
        }
        let kept = other.rules.iter().filter(stands);
        kept.map(|rule| rule.name.as_str()).collect()
    }

    /// The verdict alone.
    #[cfg(test)]
    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        self.judge(facts).verdict
    }

    /// Every identity the facts give, or why there is none.
    pub(crate) fn judge(&self, facts: &Facts<'_>) -> Judgement {
        let mut unusable = Vec::new();
        let verdict = self.verdict(self.met(facts), facts, &mut unusable);
        Judgement { verdict, unusable }
    }

    /// How each rule meets the facts, in order: what every verdict and every account of one is made of.
    fn met<'r>(&'r self, facts: &'r Facts<'_>) -> impl Iterator<Item = (&'r Rule, Fit)> {
        self.rules.iter().map(|rule| (rule, rule.matcher.fit(facts)))
    }

    /// What follows from how the rules meet the facts.
    fn verdict<'r>(
        &self,
        met: impl Iterator<Item = (&'r Rule, Fit)>,
        facts: &Facts<'_>,
        unusable: &mut Vec<Unusable>,
    ) -> Verdict {
        let (mut matching, mut is_open) = (Vec::new(), false);
        for (rule, fit) in met {
            match fit {
                Fit::Matches => matching.push(rule),
                Fit::Open => is_open = true,
                Fit::Differs => {}
            }
        }
        if let Some(deny) = matching.iter().find(|rule| rule.grant.is_none()) {
            return Verdict::Denied {
                rule: deny.name.clone(),
            };
        }
        // What is open may deny, or give the default.
        if is_open {
            return Verdict::Undecided;
        }
        let (mut identities, mut seen) = (Vec::new(), HashSet::new());
        for rule in matching {
            let identity = match rule.render(&self.scope.trust_domain, facts) {
                Some(Ok(identity)) => identity,
                Some(Err(problem)) => {
                    let rule = rule.name.clone();
                    unusable.push(Unusable { rule, problem });
                    continue;
                }
                None => continue,
            };
            if seen.insert(identity.spiffe_id.clone()) {
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

    /// Whether any rule asks for labels of namespaces.
    pub(crate) fn asks_for_namespace_labels(&self) -> bool {
        let mut matchers = self.rules.iter().map(|rule| &rule.matcher);
        matchers.any(|matcher| !matcher.namespace_labels.is_empty())
    }

    /// Whether the verdict on these facts hangs on labels of the pod's namespace that they lack.
    pub(crate) fn is_undecided(&self, facts: &Facts<'_>) -> bool {
        self.asks_for_namespace_labels() && self.judge(facts).verdict == Verdict::Undecided
    }

    /// Places in the list of rules that give equal service accounts of all namespaces one identity.
    pub(crate) fn across_namespaces(&self) -> impl Iterator<Item = usize> {
        let across = |rule: &Rule| {
            let grant = rule.grant.as_ref();
            !rule.matcher.names_namespaces()
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
