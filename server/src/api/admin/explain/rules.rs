//! What the rules make of a pod, and what would have to be otherwise. Pure.

use signet_proto::admin as wire;

use super::{Seen, finding, ok};
use crate::rules::{Account, Fate, Mismatch, Verdict};

/// What to do where no rule is nearer than the others.
const SHOWN_BY: &str = "`signet-server rule list` shows what the rules want";

/// Nothing where there is no pod to look at.
pub(super) fn findings(seen: &Seen) -> Vec<wire::Finding> {
    let Some(account) = &seen.account else {
        return Vec::new();
    };
    let mut all = vec![verdict(seen, account)];
    if !seen.rules_apart.is_empty() {
        let says = seen.rules_apart.clone();
        all.push(finding(
            "rules",
            "note",
            says,
            "`signet-server rule list` shows both",
        ));
    }
    all
}

fn verdict(seen: &Seen, account: &Account) -> wire::Finding {
    match &account.verdict {
        Verdict::Identities(identities) => {
            let given = identities
                .iter()
                .map(|one| format!("rule {:?} gives {}", one.rule, one.spiffe_id));
            ok("rules", given.collect::<Vec<_>>().join(", "))
        }
        Verdict::Denied { rule } => finding(
            "rules",
            "fails",
            format!("rule {rule:?} denies it, whatever others give"),
            format!("if it should get an identity: narrow the `match` of rule {rule:?}, or remove the rule"),
        ),
        Verdict::Undecided => finding(
            "rules",
            "unknown",
            "it hangs on labels of its namespace, which are not known at the moment",
            "they are read when the pod asks; `signet-server status` says what is wrong with the watch of namespaces",
        ),
        Verdict::NoMatch => no_match(seen, account),
    }
}

fn no_match(seen: &Seen, account: &Account) -> wire::Finding {
    let fails = |says: String, remedy: String| finding("rules", "fails", says, remedy);
    let Some(nearest) = account.rules.first() else {
        return fails(
            "there are no rules".to_owned(),
            "write one, or switch the built-in rule on: `builtin_rule: true`".to_owned(),
        );
    };
    let rule = &nearest.rule;
    match &nearest.fate {
        Fate::Unusable(problem) => fails(
            format!("rule {rule:?} matches and gives nothing: {problem}"),
            format!("change the template of rule {rule:?}, or what the pod has for it"),
        ),
        Fate::Differs(mismatches) => {
            let differs: Vec<_> = mismatches.iter().map(wants).collect();
            let remedy = mismatches.first().map(|first| remedy(seen, rule, first));
            let remedy = remedy.unwrap_or_else(|| SHOWN_BY.to_owned());
            fails(
                format!(
                    "none of {} rules matches it; the nearest, {rule:?}, wants {}",
                    seen.rules,
                    differs.join(", and ")
                ),
                remedy,
            )
        }
        // No such rule leaves a verdict without a match.
        Fate::Grants(_) | Fate::Denies | Fate::Open => {
            fails("no rule gives it an identity".to_owned(), SHOWN_BY.to_owned())
        }
    }
}

fn wants(mismatch: &Mismatch) -> String {
    format!(
        "{} {} and found {}",
        mismatch.criterion, mismatch.wanted, mismatch.found
    )
}

fn remedy(seen: &Seen, rule: &str, mismatch: &Mismatch) -> String {
    let Mismatch {
        criterion,
        wanted,
        found,
    } = mismatch;
    let pod = match *criterion {
        "pod_labels" => format!("label the pod {wanted}, in its template"),
        "namespace_labels" => format!(
            "label the namespace: `kubectl label namespace {} {wanted}`",
            seen.namespace
        ),
        "service_accounts" => format!("run the pod as service account {wanted}"),
        "namespaces" => format!("run it in namespace {wanted}"),
        "clusters" => format!("run it in cluster {wanted}"),
        _ => return "write a rule for this pod: the nearest is for another kind of workload".to_owned(),
    };
    format!("{pod}, or let `{criterion}` of rule {rule:?} take {found}")
}
