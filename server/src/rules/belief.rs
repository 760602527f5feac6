//! What a rule for processes takes on trust, for whoever checks a configuration.

use super::{Evidence, IdentityRuleConfig, UnixMatchConfig};

/// What such a rule believes, and what follows from it; nothing for a rule that looks at pods only, or denies by uid.
pub(crate) fn belief(rule: &IdentityRuleConfig) -> Option<(String, String)> {
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
