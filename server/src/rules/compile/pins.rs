//! What the claimant chooses gives an identity only where the rule says which values it may have: otherwise whoever claims makes up as
//! many identities as he likes, or another's.
//!
//! | fact | chosen by | so the rule |
//! |---|---|---|
//! | uid | who runs the process | names `uids`, whatever else it asks for |
//! | gid, path, SHA-256 | the process, within its user | names the `gids` that `{gid}` may be; the others are in no template |
//! | label | who creates the pod | names the value that `{label:…}` may have |
//! | name of a pod | who creates the pod | has `{namespace}` beside it, or names one namespace |
//! | namespace, service account, node, UID of a pod, cluster | the API server vouches for them | asks for nothing more |

use super::super::matcher::Matcher;
use super::super::template::{Placeholder, shortened};
use super::super::{Evidence, RuleProblem};

/// Whether a rule that gives identities to processes says to which users.
pub(super) fn users(matcher: &Matcher) -> Result<(), RuleProblem> {
    let takes_processes = matcher.evidence.contains(&Evidence::Unix) && !matcher.asks_for_pods();
    if takes_processes && matcher.unix.uids.is_empty() {
        return Err(RuleProblem::UnixAnyone);
    }
    Ok(())
}

/// What of a template's facts the rule leaves to the claimant.
pub(super) fn unpinned(
    template: &str,
    placeholders: &[&Placeholder],
    matcher: &Matcher,
) -> impl Iterator<Item = RuleProblem> {
    let has_namespace = placeholders.contains(&&Placeholder::Namespace) || matcher.namespaces.len() == 1;
    let fault = |placeholder: &&Placeholder| match placeholder {
        Placeholder::Gid if matcher.unix.gids.is_empty() => Some((
            "which the process chooses among the groups of its user",
            "name the groups that it may be under `match.unix.gids`",
        )),
        Placeholder::Label(key) if !matcher.pod_labels.contains_key(key) => Some((
            "which whoever creates the pod chooses",
            "name the value that it may have under `match.pod_labels`, in a rule for each, or use {service_account}",
        )),
        Placeholder::PodName if !has_namespace => Some((
            "which whoever creates the pod chooses, so pods of different namespaces could be one identity",
            "put {namespace} beside it, or name one namespace under `match.namespaces`",
        )),
        _ => None,
    };
    let found = placeholders.iter().filter_map(|placeholder| {
        let (why, remedy) = fault(placeholder)?;
        Some(RuleProblem::Unpinned {
            template: shortened(template),
            fact: placeholder.to_string(),
            why,
            remedy,
        })
    });
    found.collect::<Vec<_>>().into_iter()
}
