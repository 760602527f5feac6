//! Domain types to `signet.admin.v1`.

use signet_certs::time::unix_millis;
use signet_proto::admin as wire;

use super::{Seen, rows};
use crate::{
    attest::{Found, FoundPod},
    issuer::RefusedOnce,
    rules::{Could, Fate, Mismatch, RuleAccount},
};

pub(super) fn pod(
    seen: &Seen,
    findings: Vec<wire::Finding>,
    verdict: String,
    granted: bool,
) -> wire::ExplainPodResponse {
    let account = seen.account.as_ref();
    wire::ExplainPodResponse {
        findings,
        pod: match &seen.found {
            Found::There(found) => Some(found_pod(found)),
            Found::Nowhere | Found::Unknown(_) => None,
        },
        agent: seen.agent.clone().map(|(row, status)| rows::agent(&row, status)),
        rules: account
            .iter()
            .flat_map(|account| &account.rules)
            .map(rule)
            .collect(),
        rules_left_out: account.map_or(0, |account| u32::try_from(account.left_out).unwrap_or(u32::MAX)),
        denials: seen.denials.iter().map(rows::denial).collect(),
        svids: seen.svids.iter().map(rows::svid).collect(),
        refusals: seen.refusals.iter().map(refused).collect(),
        verdict,
        granted,
        cluster: seen.cluster.name.clone(),
        now_unix_ms: unix_millis(seen.now),
    }
}

fn found_pod(found: &FoundPod) -> wire::ExplainedPod {
    let pod = &found.pod;
    let labels = |labels: &std::collections::BTreeMap<String, String>| labels.clone().into_iter().collect();
    wire::ExplainedPod {
        namespace: pod.namespace.clone(),
        name: pod.pod_name.clone(),
        uid: pod.pod_uid.clone(),
        phase: found.phase.to_owned(),
        node_name: pod.node_name.clone(),
        service_account: pod.service_account.clone(),
        labels: labels(&pod.labels),
        namespace_labels: pod.namespace_labels.as_ref().map(|found| wire::NamespaceLabels {
            labels: labels(found),
        }),
        terminating: pod.terminating,
        seen_by: if found.from_api { "api" } else { "watch" }.to_owned(),
    }
}

fn rule(account: &RuleAccount) -> wire::ExplainedRule {
    let mut rule = wire::ExplainedRule {
        name: account.rule.clone(),
        place: place(account.place),
        ..wire::ExplainedRule::default()
    };
    let outcome = match &account.fate {
        Fate::Grants(identity) => {
            rule.spiffe_id = identity.spiffe_id.to_string();
            rule.ttl_seconds = identity.ttl.map_or(0, |ttl| ttl.as_secs());
            "grants"
        }
        Fate::Denies => "denies",
        Fate::Unusable(problem) => {
            rule.problem.clone_from(problem);
            "unusable"
        }
        Fate::Open => {
            "the labels of its namespace are not known".clone_into(&mut rule.problem);
            "open"
        }
        Fate::Differs(mismatches) => {
            rule.mismatches = mismatches.iter().map(mismatch).collect();
            "differs"
        }
    };
    outcome.clone_into(&mut rule.outcome);
    rule
}

fn mismatch(mismatch: &Mismatch) -> wire::Mismatch {
    wire::Mismatch {
        criterion: mismatch.criterion.to_owned(),
        wanted: mismatch.wanted.clone(),
        found: mismatch.found.clone(),
    }
}

fn refused(refused: &RefusedOnce) -> wire::RefusedBefore {
    wire::RefusedBefore {
        at_unix_ms: unix_millis(refused.at),
        kind: refused.kind.to_owned(),
        reason: refused.message.clone(),
    }
}

pub(super) fn could(could: &Could) -> wire::CouldGive {
    let pinned = |(placeholder, value): &(String, String)| wire::Pinned {
        placeholder: placeholder.clone(),
        value: value.clone(),
    };
    wire::CouldGive {
        rule: could.rule.clone(),
        place: place(could.place),
        pinned: could.pinned.iter().map(pinned).collect(),
        never: could.never.as_ref().map(mismatch),
    }
}

fn place(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
