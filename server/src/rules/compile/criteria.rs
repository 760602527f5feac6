//! Checks what a rule asks of a workload.

use super::super::matcher::{Matcher, UnixMatcher};
use super::super::template::shortened;
use super::super::{Evidence, MatchConfig, RuleProblem, RuleScope, UnixMatchConfig};

/// What to ask; `problems` gets everything that is wrong with it.
pub(super) fn matcher(
    scope: &RuleScope,
    config: &MatchConfig,
    deny: bool,
    problems: &mut Vec<RuleProblem>,
) -> Matcher {
    known(scope, &config.clusters, problems);
    well_formed(config, problems);
    let evidence = match (config.evidence.is_empty(), deny) {
        (false, _) => config.evidence.clone(),
        (true, false) => vec![Evidence::PodToken],
        (true, true) => vec![Evidence::PodToken, Evidence::Unix],
    };
    let unix = config.unix.as_ref();
    let matcher = Matcher {
        evidence,
        clusters: config.clusters.clone(),
        namespaces: config.namespaces.clone(),
        namespace_labels: config.namespace_labels.clone(),
        service_accounts: config.service_accounts.clone(),
        pod_labels: config.pod_labels.clone(),
        unix: unix.map(|unix| unix_matcher(unix, problems)).unwrap_or_default(),
    };
    problems.extend(matcher.can_match().err());
    matcher
}

fn known(scope: &RuleScope, clusters: &[String], problems: &mut Vec<RuleProblem>) {
    let unknown = clusters
        .iter()
        .filter(|cluster| !scope.clusters.contains(cluster));
    problems.extend(unknown.map(|unknown| RuleProblem::UnknownCluster {
        cluster: shortened(unknown),
        known: if scope.clusters.is_empty() {
            "none".into()
        } else {
            scope.clusters.join(", ")
        },
    }));
}

/// Whether the names of Kubernetes could be names of anything there.
fn well_formed(config: &MatchConfig, problems: &mut Vec<RuleProblem>) {
    problems.extend(each(
        &config.namespaces,
        is_dns_label,
        "namespace",
        "write its exact name; patterns are not supported",
    ));
    problems.extend(each(
        &config.service_accounts,
        is_dns_subdomain,
        "service account",
        "write its exact name without the namespace",
    ));
    problems.extend(each(
        config.namespace_labels.keys().chain(config.pod_labels.keys()),
        |key| !key.is_empty() && key.len() <= 317,
        "label key",
        "write the whole key",
    ));
}

impl Matcher {
    /// Whether any evidence that it accepts could have all that it asks for.
    fn can_match(&self) -> Result<(), RuleProblem> {
        if !self.unix.is_empty() && !self.evidence.contains(&Evidence::Unix) {
            return Err(RuleProblem::UnixNotAccepted);
        }
        if self.asks_for_pods() && (!self.unix.is_empty() || !self.evidence.contains(&Evidence::PodToken)) {
            return Err(RuleProblem::NeverMatches(
                "namespaces, their labels, service accounts or pod labels",
            ));
        }
        Ok(())
    }

    pub(super) fn is_unrestricted(&self) -> bool {
        self.clusters.is_empty() && !self.asks_for_pods() && self.unix.is_empty()
    }
}

fn unix_matcher(config: &UnixMatchConfig, problems: &mut Vec<RuleProblem>) -> UnixMatcher {
    problems.extend(each(
        &config.paths,
        |path| path.starts_with('/'),
        "path of an executable",
        "write it from the root: /usr/bin/x",
    ));
    let mut sha256 = Vec::with_capacity(config.sha256.len());
    for text in &config.sha256 {
        let mut hash = [0; 32];
        if hex::decode_to_slice(text, &mut hash).is_err() {
            problems.push(value("SHA-256", text, "write its 64 hexadecimal digits"));
        }
        sha256.push(hash);
    }
    UnixMatcher {
        uids: config.uids.clone(),
        gids: config.gids.clone(),
        paths: config.paths.clone(),
        sha256,
    }
}

/// What is wrong with values of a list.
fn each<'a>(
    values: impl IntoIterator<Item = &'a String>,
    is_valid: impl Fn(&str) -> bool,
    what: &'static str,
    remedy: &'static str,
) -> impl Iterator<Item = RuleProblem> {
    let wrong = values.into_iter().filter(move |text| !is_valid(text));
    wrong.map(move |text| value(what, text, remedy))
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
