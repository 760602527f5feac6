//! Checks rules as they are written and turns them into a set that can be asked.

mod criteria;
mod pins;

use std::collections::HashSet;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use signet_runtime::config::HumanDuration;

use self::criteria::matcher;
use self::pins::{unpinned, users};
use super::matcher::Matcher;
use super::template::{IdTemplate, Placeholder, Template, shortened};
use super::{
    BUILTIN_RULE, Grant, IdentityRuleConfig, MAX_HINT_BYTES, MAX_RULES, Rule, RuleError, RuleErrors,
    RuleProblem, RuleScope, RuleSet,
};

const BUILTIN_PATH: &str = "/ns/{namespace}/sa/{service_account}";
const MAX_DNS_NAMES: usize = 32;
const MIN_TTL: Duration = Duration::from_secs(60);
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn compile(scope: &RuleScope, configs: Vec<IdentityRuleConfig>) -> Result<RuleSet, RuleErrors> {
    if configs.len() > MAX_RULES {
        return Err(RuleErrors {
            first: RuleError {
                index: None,
                rule: format!("#{MAX_RULES}"),
                problem: RuleProblem::TooMany(MAX_RULES),
            },
            more: Vec::new(),
        });
    }
    let revision = revision(scope, &configs);
    let mut names = HashSet::new();
    let mut rules = Vec::with_capacity(configs.len() + 1);
    let mut errors = Vec::new();
    for (index, config) in configs.into_iter().enumerate() {
        let label = if config.name.is_empty() {
            format!("#{}", index + 1)
        } else {
            shortened(&config.name)
        };
        let mut problems = Vec::new();
        problems.extend(check_name(&config.name, &mut names).err());
        rules.extend(rule(scope, config, &mut problems));
        errors.extend(problems.into_iter().map(|problem| RuleError {
            index: Some(index),
            rule: label.clone(),
            problem,
        }));
    }
    if scope.builtin_rule {
        rules.extend(builtin(scope, &mut errors));
    }
    let mut errors = errors.into_iter();
    match errors.next() {
        Some(first) => Err(RuleErrors {
            first,
            more: errors.collect(),
        }),
        None => Ok(RuleSet {
            scope: scope.clone(),
            rules,
            revision,
        }),
    }
}

fn builtin(scope: &RuleScope, errors: &mut Vec<RuleError>) -> Option<Rule> {
    let config = IdentityRuleConfig {
        name: BUILTIN_RULE.into(),
        spiffe_id: Some(BUILTIN_PATH.into()),
        ..IdentityRuleConfig::default()
    };
    let mut problems = Vec::new();
    let rule = rule(scope, config, &mut problems);
    errors.extend(problems.into_iter().map(|problem| RuleError {
        index: None,
        rule: BUILTIN_RULE.into(),
        problem: match problem {
            RuleProblem::NeedsCluster => RuleProblem::BuiltinNeedsCluster,
            other => other,
        },
    }));
    rule
}

fn check_name(name: &str, names: &mut HashSet<String>) -> Result<(), RuleProblem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) {
        return Err(RuleProblem::Name);
    }
    if name == BUILTIN_RULE {
        return Err(RuleProblem::ReservedName);
    }
    if names.insert(name.to_owned()) {
        Ok(())
    } else {
        Err(RuleProblem::DuplicateName)
    }
}

/// The rule, or everything that is wrong with it.
fn rule(scope: &RuleScope, config: IdentityRuleConfig, problems: &mut Vec<RuleProblem>) -> Option<Rule> {
    let before = problems.len();
    let matcher = matcher(scope, &config.matching, config.deny, problems);
    let grant = if config.deny {
        refuse_grants(&config, problems);
        if matcher.is_unrestricted() && config.matching.evidence.is_empty() {
            problems.push(RuleProblem::DenyEveryone);
        }
        None
    } else {
        grant(scope, &config, &matcher, problems)
    };
    let labelled = grant.as_ref().is_some_and(Grant::uses_labels) || !matcher.pod_labels.is_empty();
    if labelled && !matcher.names_namespaces() {
        problems.push(RuleProblem::LabelsNeedNamespaces);
    }
    (problems.len() == before).then_some(Rule {
        name: config.name.clone(),
        matcher,
        grant,
        written: config,
        by_admin: false,
    })
}

impl Grant {
    fn uses_labels(&self) -> bool {
        let dns = self.dns_names.iter().flat_map(Template::placeholders);
        let mut all = self.spiffe_id.placeholders().chain(dns);
        all.any(|placeholder| matches!(placeholder, Placeholder::Label(_)))
    }
}

fn refuse_grants(config: &IdentityRuleConfig, problems: &mut Vec<RuleProblem>) {
    let given = [
        ("spiffe_id", config.spiffe_id.is_some()),
        ("ttl", config.ttl.is_some()),
        ("dns_names", !config.dns_names.is_empty()),
        ("hint", !config.hint.is_empty()),
    ];
    let given = given.into_iter().filter(|(_, given)| *given);
    problems.extend(given.map(|(key, _)| RuleProblem::DenyGrants(key)));
}

fn grant(
    scope: &RuleScope,
    config: &IdentityRuleConfig,
    matcher: &Matcher,
    problems: &mut Vec<RuleProblem>,
) -> Option<Grant> {
    problems.extend(users(matcher).err());
    let spiffe_id = id_template(scope, config, matcher, problems);
    if config.dns_names.len() > MAX_DNS_NAMES {
        problems.push(RuleProblem::TooManyDnsNames(MAX_DNS_NAMES));
    }
    let mut dns_names = Vec::with_capacity(config.dns_names.len());
    for text in &config.dns_names {
        match dns_template(text, matcher) {
            Ok(template) => {
                problems.extend(unpinned(
                    text,
                    &template.placeholders().collect::<Vec<_>>(),
                    matcher,
                ));
                dns_names.push(template);
            }
            Err(problem) => problems.push(bad_template("a DNS name", text, problem)),
        }
    }
    if config.hint.len() > MAX_HINT_BYTES || config.hint.chars().any(char::is_control) {
        problems.push(RuleProblem::Hint(MAX_HINT_BYTES));
    }
    let ttl = config.ttl.map(ttl).transpose();
    let ttl = ttl.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    Some(Grant {
        spiffe_id: spiffe_id?,
        dns_names,
        ttl,
        hint: config.hint.clone(),
    })
}

fn id_template(
    scope: &RuleScope,
    config: &IdentityRuleConfig,
    matcher: &Matcher,
    problems: &mut Vec<RuleProblem>,
) -> Option<IdTemplate> {
    let Some(path) = config.spiffe_id.as_deref() else {
        problems.push(RuleProblem::NoSpiffeId);
        return None;
    };
    let parsed = IdTemplate::parse(&scope.trust_domain, path)
        .and_then(|id| fillable(id.placeholders(), matcher).map(|()| id));
    let id = match parsed {
        Ok(id) => id,
        Err(problem) => {
            problems.push(bad_template("a SPIFFE ID", path, problem));
            return None;
        }
    };
    problems.extend(unpinned(path, &id.placeholders().collect::<Vec<_>>(), matcher));
    let names_cluster = id.placeholders().any(|p| *p == Placeholder::Cluster);
    if scope.clusters.len() > 1 && !scope.same_identity && !names_cluster && matcher.clusters.len() != 1 {
        problems.push(RuleProblem::NeedsCluster);
    }
    Some(id)
}

fn dns_template(text: &str, matcher: &Matcher) -> Result<Template, String> {
    let template = Template::parse(text)?;
    template.check_dns_text()?;
    fillable(template.placeholders(), matcher)?;
    Ok(template)
}

fn bad_template(what: &'static str, template: &str, problem: String) -> RuleProblem {
    RuleProblem::Template {
        what,
        template: shortened(template),
        problem,
    }
}

fn fillable<'a>(mut used: impl Iterator<Item = &'a Placeholder>, matcher: &Matcher) -> Result<(), String> {
    match used.find(|placeholder| !matcher.evidence.iter().any(|kind| placeholder.fits(*kind))) {
        Some(placeholder) => Err(format!(
            "{placeholder} has no value for the evidence this rule accepts"
        )),
        None => Ok(()),
    }
}

fn ttl(ttl: HumanDuration) -> Result<Duration, RuleProblem> {
    let ttl = ttl.get();
    if (MIN_TTL..=MAX_TTL).contains(&ttl) {
        Ok(ttl)
    } else {
        Err(RuleProblem::Ttl(format!("{} s", ttl.as_secs())))
    }
}

/// Eight bytes of a hash over everything that decides verdicts.
fn revision(scope: &RuleScope, configs: &[IdentityRuleConfig]) -> u64 {
    // Serialising plain structs into memory cannot fail.
    let rules = serde_json::to_vec(configs).unwrap_or_default();
    let head = format!(
        "1 {} {} {} {:?}\n",
        scope.trust_domain.as_str(),
        scope.builtin_rule,
        scope.same_identity,
        scope.clusters
    );
    let hash = digest(&SHA256, &[head.as_bytes(), &rules].concat());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    (u64::from_be_bytes(first) >> 1).max(1)
}
