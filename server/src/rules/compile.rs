//! Checks rules as they are written and turns them into a set that can be asked.

use std::collections::HashSet;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use signet_runtime::config::HumanDuration;

use super::matcher::{Matcher, UnixMatcher};
use super::template::{IdTemplate, Placeholder, Template, shortened};
use super::{
    BUILTIN_RULE, Evidence, Grant, IdentityRuleConfig, MAX_HINT_BYTES, MAX_RULES, MatchConfig, Rule,
    RuleError, RuleErrors, RuleProblem, RuleScope, RuleSet, UnixMatchConfig,
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
        match check_name(&config.name, &mut names).and_then(|()| rule(scope, config)) {
            Ok(rule) => rules.push(rule),
            Err(problem) => errors.push(RuleError {
                index: Some(index),
                rule: label,
                problem,
            }),
        }
    }
    if scope.builtin_rule {
        match builtin(scope) {
            Ok(rule) => rules.push(rule),
            Err(error) => errors.push(error),
        }
    }
    let mut errors = errors.into_iter();
    match errors.next() {
        Some(first) => Err(RuleErrors {
            first,
            more: errors.collect(),
        }),
        None => Ok(RuleSet {
            trust_domain: scope.trust_domain.clone(),
            rules,
            revision,
        }),
    }
}

fn builtin(scope: &RuleScope) -> Result<Rule, RuleError> {
    let config = IdentityRuleConfig {
        name: BUILTIN_RULE.into(),
        spiffe_id: Some(BUILTIN_PATH.into()),
        ..IdentityRuleConfig::default()
    };
    rule(scope, config).map_err(|problem| RuleError {
        index: None,
        rule: BUILTIN_RULE.into(),
        problem: match problem {
            RuleProblem::NeedsCluster => RuleProblem::BuiltinNeedsCluster,
            other => other,
        },
    })
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

fn rule(scope: &RuleScope, config: IdentityRuleConfig) -> Result<Rule, RuleProblem> {
    let deny = config.deny;
    let matcher = matcher(scope, &config.matching, deny)?;
    let grant = if deny {
        refuse_grants(&config)?;
        if matcher.is_unrestricted() && config.matching.evidence.is_empty() {
            return Err(RuleProblem::DenyEveryone);
        }
        None
    } else {
        Some(grant(scope, &config, &matcher)?)
    };
    let label_template = grant.as_ref().is_some_and(|grant| {
        let dns = grant.dns_names.iter().flat_map(Template::placeholders);
        grant
            .spiffe_id
            .placeholders()
            .chain(dns)
            .any(|p| matches!(p, Placeholder::Label(_)))
    });
    if (label_template || !matcher.pod_labels.is_empty()) && matcher.namespaces.is_empty() {
        return Err(RuleProblem::LabelsNeedNamespaces);
    }
    Ok(Rule {
        name: config.name,
        matcher,
        grant,
    })
}

fn refuse_grants(config: &IdentityRuleConfig) -> Result<(), RuleProblem> {
    let given = [
        ("spiffe_id", config.spiffe_id.is_some()),
        ("ttl", config.ttl.is_some()),
        ("dns_names", !config.dns_names.is_empty()),
        ("hint", !config.hint.is_empty()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(RuleProblem::DenyGrants(key)),
        None => Ok(()),
    }
}

fn grant(scope: &RuleScope, config: &IdentityRuleConfig, matcher: &Matcher) -> Result<Grant, RuleProblem> {
    if matcher.evidence.contains(&Evidence::Unix) && matcher.unix.is_empty() && !matcher.asks_for_pods() {
        return Err(RuleProblem::UnixAnyone);
    }
    let path = config.spiffe_id.as_deref().ok_or(RuleProblem::NoSpiffeId)?;
    let bad = |what, template: &str, problem| RuleProblem::Template {
        what,
        template: shortened(template),
        problem,
    };
    let bad_id = |problem| bad("a SPIFFE ID", path, problem);
    let spiffe_id = IdTemplate::parse(&scope.trust_domain, path).map_err(bad_id)?;
    fillable(spiffe_id.placeholders(), matcher).map_err(bad_id)?;
    let names_cluster = spiffe_id.placeholders().any(|p| *p == Placeholder::Cluster);
    if scope.clusters.len() > 1 && !scope.same_identity && !names_cluster && matcher.clusters.len() != 1 {
        return Err(RuleProblem::NeedsCluster);
    }
    if config.dns_names.len() > MAX_DNS_NAMES {
        return Err(RuleProblem::TooManyDnsNames(MAX_DNS_NAMES));
    }
    let mut dns_names = Vec::with_capacity(config.dns_names.len());
    for text in &config.dns_names {
        let bad_name = |problem| bad("a DNS name", text, problem);
        let template = Template::parse(text).map_err(bad_name)?;
        template.check_dns_text().map_err(bad_name)?;
        fillable(template.placeholders(), matcher).map_err(bad_name)?;
        dns_names.push(template);
    }
    if config.hint.len() > MAX_HINT_BYTES || config.hint.chars().any(char::is_control) {
        return Err(RuleProblem::Hint(MAX_HINT_BYTES));
    }
    Ok(Grant {
        spiffe_id,
        dns_names,
        ttl: config.ttl.map(ttl).transpose()?,
        hint: config.hint.clone(),
    })
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

fn matcher(scope: &RuleScope, config: &MatchConfig, deny: bool) -> Result<Matcher, RuleProblem> {
    known(scope, &config.clusters)?;
    well_formed(config)?;
    let evidence = match (config.evidence.is_empty(), deny) {
        (false, _) => config.evidence.clone(),
        (true, false) => vec![Evidence::PodToken],
        (true, true) => vec![Evidence::PodToken, Evidence::Unix],
    };
    let unix = config
        .unix
        .as_ref()
        .map(unix_matcher)
        .transpose()?
        .unwrap_or_default();
    let matcher = Matcher {
        evidence,
        clusters: config.clusters.clone(),
        namespaces: config.namespaces.clone(),
        service_accounts: config.service_accounts.clone(),
        pod_labels: config.pod_labels.clone(),
        unix,
    };
    matcher.can_match()?;
    Ok(matcher)
}

fn known(scope: &RuleScope, clusters: &[String]) -> Result<(), RuleProblem> {
    match clusters.iter().find(|cluster| !scope.clusters.contains(cluster)) {
        None => Ok(()),
        Some(unknown) => Err(RuleProblem::UnknownCluster {
            cluster: shortened(unknown),
            known: if scope.clusters.is_empty() {
                "none".into()
            } else {
                scope.clusters.join(", ")
            },
        }),
    }
}

/// Whether the names of Kubernetes could be names of anything there.
fn well_formed(config: &MatchConfig) -> Result<(), RuleProblem> {
    each(
        &config.namespaces,
        is_dns_label,
        "namespace",
        "write its exact name; patterns are not supported",
    )?;
    each(
        &config.service_accounts,
        is_dns_subdomain,
        "service account",
        "write its exact name without the namespace",
    )?;
    each(
        config.pod_labels.keys(),
        |key| !key.is_empty() && key.len() <= 317,
        "label key",
        "write the whole key",
    )
}

impl Matcher {
    /// Whether any evidence that it accepts could have all that it asks for.
    fn can_match(&self) -> Result<(), RuleProblem> {
        if !self.unix.is_empty() && !self.evidence.contains(&Evidence::Unix) {
            return Err(RuleProblem::UnixNotAccepted);
        }
        if self.asks_for_pods() && (!self.unix.is_empty() || !self.evidence.contains(&Evidence::PodToken)) {
            return Err(RuleProblem::NeverMatches(
                "namespaces, service accounts or pod labels",
            ));
        }
        Ok(())
    }

    fn is_unrestricted(&self) -> bool {
        self.clusters.is_empty() && !self.asks_for_pods() && self.unix.is_empty()
    }
}

fn unix_matcher(config: &UnixMatchConfig) -> Result<UnixMatcher, RuleProblem> {
    each(
        &config.paths,
        |path| path.starts_with('/'),
        "path of an executable",
        "write it from the root: /usr/bin/x",
    )?;
    let mut sha256 = Vec::with_capacity(config.sha256.len());
    for text in &config.sha256 {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash)
            .map_err(|_| value("SHA-256", text, "write its 64 hexadecimal digits"))?;
        sha256.push(hash);
    }
    Ok(UnixMatcher {
        uids: config.uids.clone(),
        gids: config.gids.clone(),
        paths: config.paths.clone(),
        sha256,
    })
}

fn each<'a>(
    values: impl IntoIterator<Item = &'a String>,
    is_valid: impl Fn(&str) -> bool,
    what: &'static str,
    remedy: &'static str,
) -> Result<(), RuleProblem> {
    match values.into_iter().find(|text| !is_valid(text)) {
        Some(text) => Err(value(what, text, remedy)),
        None => Ok(()),
    }
}

fn value(what: &'static str, value: &str, remedy: &'static str) -> RuleProblem {
    RuleProblem::Value {
        what,
        value: shortened(value),
        remedy,
    }
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && is_dns_subdomain(text)
}

fn is_dns_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
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
