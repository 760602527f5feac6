//! What came of a rule that was set, deleted or tried.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::{cli::Answer, table::Table};

use super::rules::{some_json, some_of, waiting_json};

pub(in crate::cli::admin) fn rule_change(change: &wire::RuleChange) -> Answer {
    let json = json!({
        "revision": change.revision,
        "withdrawn": change.withdrawn,
        "waiting": change.waits.as_ref().map(waiting_json),
        "warnings": change.warnings,
    });
    let mut text = warnings(&change.warnings);
    let Some(waits) = &change.waits else {
        text.push_str(&format!(
            "revision {} is in force; {} live identities are withdrawn\n",
            change.revision, change.withdrawn
        ));
        return Answer::new(json, text);
    };
    text.push_str(&some_of(
        ["WOULD BE WITHDRAWN", "FROM"],
        &waits.examples,
        waits.withdrawn,
    ));
    text.push_str(&format!("\nin force       revision {}\n", change.revision));
    let problem = format!(
        "it is kept and waits, for {} live identities would be withdrawn: confirm it with `signet-server rule confirm {}`, or take it back",
        waits.withdrawn, waits.revision
    );
    Answer {
        json,
        text,
        problem: Some(problem),
    }
}

fn warnings(warnings: &[String]) -> String {
    warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect()
}

/// Whether what the pod would get is not known.
pub(in crate::cli::admin) fn is_open(tested: &wire::TestRuleResponse) -> bool {
    let pod = tested.pod.as_ref();
    let last = pod.and_then(|pod| pod.with_rule.as_ref().or(pod.now.as_ref()));
    last.is_some_and(|verdict| verdict.verdict == "undecided")
}

pub(in crate::cli::admin) fn tested_rule(tested: &wire::TestRuleResponse) -> Answer {
    let mut text = String::new();
    let mut problem = None;
    if let Some(pod) = &tested.pod {
        let mut table = Table::new(&["RULES", "POD GETS", "BY RULE"]);
        let (now, with_rule) = (pod.now.as_ref(), pod.with_rule.as_ref());
        rows(&mut table, "in force", now);
        rows(&mut table, "with this rule", with_rule);
        text.push_str(&format!(
            "pod {}/{} of {}\n{}",
            pod.namespace,
            pod.name,
            pod.cluster,
            table.render()
        ));
        let last = with_rule.or(now);
        if last.is_none_or(|verdict| verdict.identities.is_empty()) {
            let pod = format!("{}/{}", pod.namespace, pod.name);
            problem = Some(match is_open(tested) {
                true => {
                    format!("what the pod {pod} would get is not known: it hangs on labels of its namespace")
                }
                false => format!("the pod {pod} would get no identity"),
            });
        }
    }
    if let Some(effect) = &tested.effect {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&effect_text(effect));
    }
    let json = json!({
        "pod": tested.pod.as_ref().map(pod_json),
        "effect": tested.effect.as_ref().map(effect_json),
    });
    Answer { json, text, problem }
}

fn rows(table: &mut Table, of: &str, verdict: Option<&wire::TestedVerdict>) {
    let Some(verdict) = verdict else {
        return;
    };
    for given in &verdict.identities {
        table.row([of.to_owned(), given.spiffe_id.clone(), given.rule.clone()]);
    }
    let (nothing, rule) = match verdict.verdict.as_str() {
        "identities" => return,
        "denied" => ("nothing: it is denied", verdict.denied_by.as_str()),
        "undecided" => ("not known: it hangs on labels of its namespace", "-"),
        _ => ("nothing: no rule matches it", "-"),
    };
    table.row([of.to_owned(), nothing.to_owned(), rule.to_owned()]);
}

fn effect_text(effect: &wire::RuleEffect) -> String {
    let mut text = warnings(&effect.warnings);
    for (heads, some, all) in [
        (["WOULD BE GIVEN", "TO"], &effect.given_examples, effect.given),
        (
            ["WOULD BE WITHDRAWN", "FROM"],
            &effect.withdrawn_examples,
            effect.withdrawn,
        ),
    ] {
        if all > 0 {
            text.push_str(&format!("{}\n", some_of(heads, some, all)));
        }
    }
    let more = if effect.truncated {
        " or more, for not all pods are known"
    } else {
        ""
    };
    text.push_str(&format!(
        "it would give {}{more} and withdraw {} live identities; nothing has changed\n",
        effect.given, effect.withdrawn
    ));
    if effect.waits {
        text.push_str("set, it would wait for `signet-server rule confirm`\n");
    }
    text
}

fn pod_json(pod: &wire::TestedPod) -> Value {
    let verdict = |verdict: &wire::TestedVerdict| {
        let given = verdict.identities.iter();
        let given = given.map(|given| json!({ "spiffe_id": given.spiffe_id, "rule": given.rule }));
        json!({
            "verdict": verdict.verdict,
            "identities": given.collect::<Vec<_>>(),
            "denied_by": if verdict.denied_by.is_empty() { Value::Null } else { json!(verdict.denied_by) },
        })
    };
    json!({
        "cluster": pod.cluster,
        "namespace": pod.namespace,
        "name": pod.name,
        "now": pod.now.as_ref().map(verdict),
        "with_rule": pod.with_rule.as_ref().map(verdict),
    })
}

fn effect_json(effect: &wire::RuleEffect) -> Value {
    json!({
        "revision": effect.revision,
        "given": effect.given,
        "given_examples": some_json(&effect.given_examples),
        "withdrawn": effect.withdrawn,
        "withdrawn_examples": some_json(&effect.withdrawn_examples),
        "waits": effect.waits,
        "truncated": effect.truncated,
        "warnings": effect.warnings,
    })
}
