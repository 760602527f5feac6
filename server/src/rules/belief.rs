//! What a rule takes on trust, for whoever checks a configuration.

use super::{Evidence, IdentityRuleConfig, RuleSet, UnixMatchConfig};

/// What is wrong with a rule that gives equal service accounts of all namespaces one identity, and what to do.
pub(crate) const ACROSS_NAMESPACES: (&str, &str) = (
    "equal service accounts of all namespaces are one identity, and who may make accounts in any of them has it",
    "put {namespace} into `spiffe_id`, or name `namespaces`",
);

impl RuleSet {
    /// What somebody should look at who has set the rule of this name.
    pub(crate) fn warnings_of(&self, name: &str) -> Vec<String> {
        let rules: Vec<_> = self.rules().collect();
        let places = rules.iter().enumerate().filter(|(_, rule)| rule.name == name);
        let across: Vec<_> = self.across_namespaces().collect();
        let mut told = Vec::new();
        for (place, rule) in places {
            let belief = belief(rule).map(|(claim, so)| format!("rule `{name}` {claim}; {so}"));
            told.extend(belief);
            if across.contains(&place) {
                let (problem, remedy) = ACROSS_NAMESPACES;
                told.push(format!("rule `{name}`: {problem}; {remedy}"));
            }
        }
        told
    }
}

/// What a rule believes, and what follows from it; nothing for one that goes by what API servers vouch for alone, or denies by uid.
pub(crate) fn belief(rule: &IdentityRuleConfig) -> Option<(String, String)> {
    if !rule.matching.namespace_labels.is_empty() {
        let claim = "goes by the labels of namespaces".to_owned();
        let so = "whoever may label a namespace, or make one, decides whom it concerns; and this server must be allowed to get, list \
                  and watch namespaces";
        return Some((claim, so.to_owned()));
    }
    let unix = rule.matching.unix.as_ref()?;
    let narrowing = narrowing(unix);
    if rule.deny {
        let claim = format!("denies processes by {}, which they choose", narrowing?);
        let so = "a copy in another place, of other content or in another group is not denied".to_owned();
        return Some((claim, so));
    }
    if !rule.matching.evidence.contains(&Evidence::Unix) {
        return None;
    }
    let users: Vec<_> = unix.uids.iter().map(u32::to_string).collect();
    let clusters = match rule.matching.clusters.as_slice() {
        [] => "any cluster".to_owned(),
        [one] => format!("cluster {one}"),
        several => format!("clusters {}", several.join(", ")),
    };
    let claim = format!(
        "believes the agents of {clusters} which process had uid {} when it connected",
        users.join(" or ")
    );
    let so = match narrowing {
        Some(facts) => format!(
            "{facts} only narrow that: whoever acts as such a user can run the program and hand on what it connected"
        ),
        None => "whoever acts as such a user gets the identity".to_owned(),
    };
    Some((claim, so))
}

/// The criteria that a process can come to meet by itself.
fn narrowing(unix: &UnixMatchConfig) -> Option<String> {
    let given = [
        ("gids", !unix.gids.is_empty()),
        ("paths", !unix.paths.is_empty()),
        ("sha256", !unix.sha256.is_empty()),
    ];
    let names: Vec<_> = given
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
    let (last, others) = names.split_last()?;
    Some(match others {
        [] => (*last).to_owned(),
        _ => format!("{} and {last}", others.join(", ")),
    })
}
