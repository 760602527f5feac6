//! Who could have an identity, who has it, and what stands in the way.

use std::{collections::HashSet, sync::Arc, time::Duration};

use signet_certs::id::SpiffeId;
use signet_proto::admin as wire;
use tokio::time::Instant;

use super::{MOST_RULES, finding, ok, pod::denied_by};
use crate::{
    attest::{AttestedPod, Attestor, PodsLike},
    rules::{Could, Facts, RuleSet},
    store::{Denial, DenialTarget},
};

/// Pods of one answer.
const MOST_HOLDERS: usize = 50;
/// Pods that rules are asked about for one answer.
const MOST_LOOKED_AT: usize = 20_000;
/// And for how long.
const LONGEST: Duration = Duration::from_secs(2);

/// What was found.
pub(super) struct LookedAt<'a> {
    pub(super) id: &'a SpiffeId,
    pub(super) could: &'a [Could],
    pub(super) pods: &'a [wire::Holder],
    pub(super) truncated: bool,
    pub(super) denials: &'a [Denial],
    pub(super) svids: &'a [wire::SvidRecord],
    pub(super) rules_apart: &'a str,
}

/// Live pods that the rules give the identity to, and whether these may not be all.
pub(super) async fn holders(
    attestor: Arc<dyn Attestor>,
    rules: Arc<RuleSet>,
    could: &[Could],
    id: &SpiffeId,
) -> (Vec<wire::Holder>, bool) {
    let likely = likely(could);
    let id = id.clone();
    let look = move || {
        let mut holders = Vec::new();
        let truncated = look(attestor.as_ref(), &rules, &likely, &id, &mut holders);
        holders.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        (holders, truncated)
    };
    signet_runtime::spans::spawn_blocking(look)
        .await
        .unwrap_or_else(|_| (Vec::new(), true))
}

/// In one cluster or any, and what they have.
type Likely = (Option<String>, PodsLike);

/// Which pods rules can give it to, each kind once however many rules have the same template.
fn likely(could: &[Could]) -> HashSet<Likely> {
    let gives = could
        .iter()
        .filter(|could| could.never.is_none() && could.to_pods);
    gives.map(like).collect()
}

fn like(could: &Could) -> Likely {
    let pinned = |placeholder: &str| could.pinned(placeholder).map(str::to_owned);
    let like = PodsLike {
        namespace: pinned("{namespace}"),
        service_account: pinned("{service_account}"),
        name: pinned("{pod_name}"),
        uid: pinned("{pod_uid}"),
        node_name: pinned("{node_name}"),
    };
    (pinned("{cluster}"), like)
}

/// Whether there may be more than these. Each look at a watch holds it, so the time and the bounds are looked at before each.
fn look(
    attestor: &dyn Attestor,
    rules: &RuleSet,
    likely: &HashSet<Likely>,
    id: &SpiffeId,
    holders: &mut Vec<wire::Holder>,
) -> bool {
    let (until, mut seen) = (Instant::now() + LONGEST, HashSet::new());
    let (mut truncated, mut left) = (false, MOST_LOOKED_AT);
    for cluster in attestor.clusters() {
        let here = likely
            .iter()
            .filter(|(wanted, _)| wanted.as_ref().is_none_or(|name| *name == cluster.name));
        for (_, like) in here {
            if Instant::now() > until || left == 0 {
                return true;
            }
            let (pods, more) = attestor.pods_like(&cluster.name, like, left);
            truncated |= more;
            left = left.saturating_sub(pods.len());
            for pod in pods {
                if Instant::now() > until || holders.len() >= MOST_HOLDERS {
                    return true;
                }
                if seen.insert(pod.pod_uid.clone()) {
                    holders.extend(holder(rules, &pod, id));
                }
            }
        }
    }
    truncated
}

fn holder(rules: &RuleSet, pod: &AttestedPod, id: &SpiffeId) -> Option<wire::Holder> {
    let judged = rules.judge(&Facts::Pod(pod)).verdict;
    let identities = judged.identities();
    let given = identities.iter().find(|given| given.spiffe_id == *id)?;
    Some(wire::Holder {
        cluster: pod.cluster.clone(),
        namespace: pod.namespace.clone(),
        name: pod.pod_name.clone(),
        uid: pod.pod_uid.clone(),
        node_name: pod.node_name.clone(),
        rule: given.rule.clone(),
        is_default: identities.first() == Some(given),
    })
}

/// In the order in which they matter.
pub(super) fn findings(seen: &LookedAt<'_>) -> Vec<wire::Finding> {
    let mut all = vec![by_rules(seen)];
    if seen.could.len() > MOST_RULES {
        let says = format!(
            "{} rules have such a template, and {MOST_RULES} of them are named",
            seen.could.len()
        );
        all.push(finding(
            "rules",
            "note",
            says,
            "`signet-server rule list` shows all",
        ));
    }
    if !seen.rules_apart.is_empty() {
        let says = seen.rules_apart.to_owned();
        all.push(finding(
            "rules",
            "note",
            says,
            "`signet-server rule list` shows both",
        ));
    }
    all.extend(seen.denials.iter().map(|denial| {
        let remedy = format!("if it may be issued again: `signet-server allow {}`", denial.id);
        finding("denials", "fails", is_denied(denial), remedy)
    }));
    if seen.denials.is_empty() {
        all.push(ok("denials", "it is not denied"));
    }
    all.extend(holding(seen));
    all.push(match seen.svids.first() {
        Some(last) => ok("certificates", format!("the last one is {}", last.serial)),
        None => finding(
            "certificates",
            "note",
            "the ledger has none of it",
            "if somebody should have one: `signet-server explain --pod NAMESPACE/NAME` says why a pod has none",
        ),
    });
    all
}

fn by_rules(seen: &LookedAt<'_>) -> wire::Finding {
    if seen.id.is_reserved() {
        let says = "it lies under /signet: it is the server's or an agent's, and no rule gives it";
        return finding(
            "rules",
            "note",
            says,
            "`signet-server agent list` shows the agents",
        );
    }
    let giving: Vec<_> = seen.could.iter().filter(|could| could.never.is_none()).collect();
    if let Some(first) = giving.first() {
        let pinned = first
            .pinned
            .iter()
            .map(|(placeholder, value)| format!("{placeholder} = {value}"));
        let pinned = pinned.collect::<Vec<_>>().join(", ");
        let to = if pinned.is_empty() {
            " to all that it matches".to_owned()
        } else {
            format!(", where {pinned}")
        };
        let more = match giving.len() {
            1 => String::new(),
            count => format!(", and {} more can", count - 1),
        };
        return ok("rules", format!("rule {:?} gives it{to}{more}", first.rule));
    }
    match seen
        .could
        .first()
        .and_then(|could| Some((could, could.never.as_ref()?)))
    {
        Some((could, never)) => finding(
            "rules",
            "fails",
            format!(
                "rule {:?} has such a template, and wants {} {} where this would need {}",
                could.rule, never.criterion, never.wanted, never.found
            ),
            format!(
                "let `{}` of rule {:?} take {}",
                never.criterion, could.rule, never.found
            ),
        ),
        None => finding(
            "rules",
            "fails",
            "no rule has a template that can give it",
            "`signet-server rule list` shows the templates: is the ID spelt as one of them gives it?",
        ),
    }
}

/// Who has it: pods, or processes outside them, which no server knows before they ask.
fn holding(seen: &LookedAt<'_>) -> Vec<wire::Finding> {
    let gives = || seen.could.iter().filter(|could| could.never.is_none());
    let processes: Vec<_> = gives()
        .filter_map(|could| Some((could.to_processes.as_ref()?, &could.rule)))
        .collect();
    let Some((whoever, rule)) = processes.first() else {
        return vec![pods(seen)];
    };
    let more = match processes.len() {
        1 => String::new(),
        count => format!(", and whom {} more rules take", count - 1),
    };
    let says = format!("for processes: whoever runs as {whoever}, by rule {rule:?}{more}");
    let processes = ok("processes", says);
    if gives().any(|could| could.to_pods) {
        vec![pods(seen), processes]
    } else {
        vec![processes]
    }
}

fn pods(seen: &LookedAt<'_>) -> wire::Finding {
    let more = if seen.truncated { " at least" } else { "" };
    match seen.pods.len() {
        0 if seen.truncated => finding(
            "pods",
            "unknown",
            "not all pods were looked at, and none that was gets it",
            "`signet-server explain --pod NAMESPACE/NAME` says of one whether it does",
        ),
        0 => finding(
            "pods",
            "note",
            "no pod that the watches show gets it",
            "`signet-server explain --pod` says why of each",
        ),
        1 => ok("pods", format!("one pod gets it{more}")),
        count => ok("pods", format!("{count} pods get it{more}")),
    }
}

/// One line.
pub(super) fn verdict(seen: &LookedAt<'_>) -> String {
    let id = seen.id;
    if let Some(denial) = seen.denials.first() {
        return format!("nobody gets {id}: {}", is_denied(denial));
    }
    let rules = by_rules(seen);
    match rules.state.as_str() {
        "fails" => format!("nobody gets {id}: {}", rules.says),
        _ if seen.id.is_reserved() => format!("{id} is the control plane's"),
        _ => {
            let says = holding(seen).into_iter().map(|one| one.says);
            format!("{id}: {}", says.collect::<Vec<_>>().join("; "))
        }
    }
}

fn is_denied(denial: &Denial) -> String {
    match &denial.target {
        DenialTarget::Prefix(_) => format!("{} is {}", denial.target, denied_by(denial)),
        DenialTarget::Id(_) | DenialTarget::Pod(_) | DenialTarget::Node(_) => {
            format!("it is {}", denied_by(denial))
        }
    }
}

#[cfg(test)]
mod tests;
