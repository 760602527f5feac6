//! Why a pod gets what it gets, and who could have an identity.

use serde_json::{Map, Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, or_dash, when, when_text};
use signet_runtime::error::one_line;
use signet_runtime::table::Table;

use super::{agents, denials, svids};

pub(in crate::cli::admin) fn explained_pod(explained: &wire::ExplainPodResponse) -> Answer {
    let mut text = format!(
        "{}\n\n{}",
        one_line(&explained.verdict),
        findings(&explained.findings)
    );
    if !explained.rules.is_empty() {
        text.push_str(&format!("\n{}", rules(explained)));
    }
    let json = json!({
        "verdict": explained.verdict,
        "granted": explained.granted,
        "now": when(explained.now_unix_ms),
        "cluster": explained.cluster,
        "findings": findings_json(&explained.findings),
        "pod": explained.pod.as_ref().map(pod_json),
        "agent": explained.agent.as_ref().map(|agent| agents(std::slice::from_ref(agent)).json["agents"][0].clone()),
        "rules": explained.rules.iter().map(rule_json).collect::<Vec<_>>(),
        "rules_left_out": explained.rules_left_out,
        "denials": denials(&explained.denials).json["denials"],
        "svids": svids_json(&explained.svids),
        "refusals": explained.refusals.iter().map(|refused| json!({
            "at": when(refused.at_unix_ms), "kind": refused.kind, "reason": refused.reason,
        })).collect::<Vec<_>>(),
    });
    judged(json, text, (!explained.granted).then_some(&explained.verdict))
}

/// A no is the answer's problem.
fn judged(json: Value, text: String, no: Option<&String>) -> Answer {
    Answer {
        problem: no.map(|verdict| one_line(verdict)),
        ..Answer::new(json, text)
    }
}

pub(in crate::cli::admin) fn explained_id(explained: &wire::ExplainIdResponse) -> Answer {
    let mut text = format!(
        "{}\n\n{}",
        one_line(&explained.verdict),
        findings(&explained.findings)
    );
    if !explained.rules.is_empty() {
        text.push_str(&format!("\n{}", could(&explained.rules)));
    }
    if !explained.pods.is_empty() {
        text.push_str(&format!("\n{}", holders(&explained.pods)));
    }
    if explained.pods_truncated {
        text.push_str("there may be more pods: not all were looked at\n");
    }
    if !explained.svids.is_empty() {
        text.push_str(&format!("\n{}", issued(&explained.svids)));
    }
    let json = json!({
        "spiffe_id": explained.spiffe_id,
        "verdict": explained.verdict,
        "now": when(explained.now_unix_ms),
        "findings": findings_json(&explained.findings),
        "rules": explained.rules.iter().map(could_json).collect::<Vec<_>>(),
        "pods": explained.pods.iter().map(|pod| json!({
            "cluster": pod.cluster, "namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "node_name": pod.node_name,
            "rule": pod.rule, "is_default": pod.is_default,
        })).collect::<Vec<_>>(),
        "pods_truncated": explained.pods_truncated,
        "denials": denials(&explained.denials).json["denials"],
        "svids": svids_json(&explained.svids),
    });
    let fails = explained.findings.iter().any(|one| one.state == "fails");
    judged(json, text, fails.then_some(&explained.verdict))
}

/// What was looked at, and below it what to do about what fails or is not known.
fn findings(all: &[wire::Finding]) -> String {
    let mut table = Table::new(&["", "LOOKED AT", "FOUND"]);
    for one in all {
        let state = if one.state == "fails" {
            "FAILS"
        } else {
            one.state.as_str()
        };
        table.row([state, one.about.as_str(), one.says.as_str()]);
    }
    let mut text = table.render();
    let mut remedies: Vec<_> = all.iter().filter(|one| !one.remedy.is_empty()).collect();
    remedies.sort_by_key(|one| one.state != "fails");
    if !remedies.is_empty() {
        text.push_str("\nwhat to do\n");
    }
    for one in remedies {
        text.push_str(&format!(
            "  {}: {}\n",
            one_line(&one.about),
            one_line(&one.remedy)
        ));
    }
    text
}

fn findings_json(all: &[wire::Finding]) -> Value {
    let one = |one: &wire::Finding| json!({ "about": one.about, "state": one.state, "says": one.says, "remedy": one.remedy });
    all.iter().map(one).collect()
}

fn rules(explained: &wire::ExplainPodResponse) -> String {
    let mut table = Table::new(&["RULE", "PLACE", "OUTCOME", "GIVES OR LACKS"]);
    for rule in &explained.rules {
        let what = match rule.outcome.as_str() {
            "grants" => rule.spiffe_id.clone(),
            "differs" => {
                let differs = rule.mismatches.iter().map(mismatch);
                differs.collect::<Vec<_>>().join("; ")
            }
            _ => or_dash(&rule.problem).to_owned(),
        };
        table.row([
            rule.name.clone(),
            rule.place.to_string(),
            rule.outcome.clone(),
            what,
        ]);
    }
    let mut text = table.render();
    if explained.rules_left_out > 0 {
        text.push_str(&format!(
            "and {} more that do not match\n",
            explained.rules_left_out
        ));
    }
    text
}

fn mismatch(one: &wire::Mismatch) -> String {
    format!("{} wants {}, found {}", one.criterion, one.wanted, one.found)
}

fn mismatch_json(one: &wire::Mismatch) -> Value {
    json!({ "criterion": one.criterion, "wanted": one.wanted, "found": one.found })
}

fn rule_json(rule: &wire::ExplainedRule) -> Value {
    json!({
        "name": rule.name,
        "place": rule.place,
        "outcome": rule.outcome,
        "spiffe_id": if rule.spiffe_id.is_empty() { Value::Null } else { json!(rule.spiffe_id) },
        "ttl_seconds": if rule.ttl_seconds == 0 { Value::Null } else { json!(rule.ttl_seconds) },
        "problem": rule.problem,
        "mismatches": rule.mismatches.iter().map(mismatch_json).collect::<Vec<_>>(),
    })
}

fn pod_json(pod: &wire::ExplainedPod) -> Value {
    let labels = |labels: &std::collections::HashMap<String, String>| {
        let labels = labels.iter().map(|(key, value)| (key.clone(), json!(value)));
        Value::Object(labels.collect::<Map<_, _>>())
    };
    json!({
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
        "phase": pod.phase,
        "node_name": pod.node_name,
        "service_account": pod.service_account,
        "labels": labels(&pod.labels),
        "namespace_labels": pod.namespace_labels.as_ref().map(|found| labels(&found.labels)),
        "terminating": pod.terminating,
        "seen_by": pod.seen_by,
    })
}

fn svids_json(rows: &[wire::SvidRecord]) -> Value {
    let listed = wire::ListSvidsResponse {
        svids: rows.to_vec(),
        truncated: false,
    };
    svids(&listed).json["svids"].clone()
}

fn could(rules: &[wire::CouldGive]) -> String {
    let mut table = Table::new(&["RULE", "PLACE", "WHERE", "BUT"]);
    for rule in rules {
        let pinned = rule
            .pinned
            .iter()
            .map(|pinned| format!("{} = {}", pinned.placeholder, pinned.value));
        let never = rule
            .never
            .as_ref()
            .map(|never| format!("{} wants {}", never.criterion, never.wanted));
        table.row([
            rule.rule.clone(),
            rule.place.to_string(),
            or_dash(&pinned.collect::<Vec<_>>().join(", ")).to_owned(),
            never.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.render()
}

fn could_json(rule: &wire::CouldGive) -> Value {
    let pinned = rule
        .pinned
        .iter()
        .map(|pinned| (pinned.placeholder.clone(), json!(pinned.value)));
    json!({
        "name": rule.rule,
        "place": rule.place,
        "pinned": pinned.collect::<Map<_, _>>(),
        "never": rule.never.as_ref().map(mismatch_json),
    })
}

fn holders(pods: &[wire::Holder]) -> String {
    let mut table = Table::new(&["POD", "CLUSTER", "NODE", "RULE", "DEFAULT"]);
    for pod in pods {
        table.row([
            format!("{}/{}", pod.namespace, pod.name),
            pod.cluster.clone(),
            or_dash(&pod.node_name).to_owned(),
            pod.rule.clone(),
            if pod.is_default { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.render()
}

fn issued(rows: &[wire::SvidRecord]) -> String {
    let mut table = Table::new(&["ISSUED", "SERIAL", "POD", "ENDS", "REVOKED"]);
    for row in rows {
        let pod = match row.pod_name.as_str() {
            "" => "-".to_owned(),
            name => format!("{}/{name}", row.pod_namespace),
        };
        table.row([
            when_text(row.not_before_unix_ms),
            row.serial.clone(),
            pod,
            when_text(row.not_after_unix_ms),
            when_text(row.revoked_unix_ms),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests;
