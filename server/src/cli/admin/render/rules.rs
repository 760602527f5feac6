//! Rules in force, and those that wait.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, when, when_text};
use signet_runtime::table::Table;

use super::table_or;

pub(in crate::cli::admin) fn rules(listed: &wire::ListRulesResponse) -> Answer {
    let standing = listed.standing.clone().unwrap_or_default();
    let mut text = table(&listed.rules);
    text.push_str(&format!("\nin force       revision {}\n", standing.revision));
    text.push_str(&lines(&standing));
    if let Some(waiting) = &standing.waiting {
        text.push_str(&format!("\n{}", table(&listed.waiting)));
        text.push_str(&withdrawn(waiting));
    }
    let mut json = standing_json(&standing);
    json["rules"] = listed.rules.iter().map(record_json).collect();
    if !json["waiting"].is_null() {
        json["waiting"]["rules"] = listed.waiting.iter().map(record_json).collect();
    }
    Answer::new(json, text)
}

pub(in crate::cli::admin) fn confirmed_rules(confirmed: &wire::ConfirmRulesResponse) -> Answer {
    let json = json!({ "revision": confirmed.revision, "withdrawn": confirmed.withdrawn });
    let text = format!(
        "revision {} is in force; {} live identities are withdrawn\n",
        confirmed.revision, confirmed.withdrawn
    );
    Answer::new(json, text)
}

/// What of the configuration file is not in force, a line for each reason.
pub(super) fn lines(standing: &wire::RulesStanding) -> String {
    let mut text = String::new();
    if !standing.problem.is_empty() {
        text.push_str(&format!(
            "rules          those of the file are not in force: {}\n",
            standing.problem
        ));
    }
    if let Some(waiting) = &standing.waiting {
        text.push_str(&format!(
            "rules wait     {} live identities would be withdrawn, since {}; confirm with `signet-server rule confirm {}`\n",
            waiting.withdrawn,
            when_text(waiting.since_unix_ms),
            waiting.revision
        ));
    }
    if standing.put_off {
        text.push_str(
            "rules          the file was changed often: it is looked at again within ten seconds\n",
        );
    }
    if !standing.restart_for.is_empty() {
        let keys = standing.restart_for.join(", ");
        text.push_str(&format!("needs restart  {keys}\n"));
    }
    text
}

pub(super) fn standing_json(standing: &wire::RulesStanding) -> Value {
    let waiting = standing.waiting.as_ref().map(waiting_json);
    json!({
        "revision": standing.revision,
        "count": standing.count,
        "problem": standing.problem,
        "waiting": waiting,
        "restart_for": standing.restart_for,
        "put_off": standing.put_off,
    })
}

pub(super) fn waiting_json(waiting: &wire::WaitingRules) -> Value {
    json!({
        "revision": waiting.revision,
        "since": when(waiting.since_unix_ms),
        "withdrawn": waiting.withdrawn,
        "examples": some_json(&waiting.examples),
    })
}

/// The rule as it is written.
fn written(record: &wire::RuleRecord) -> Value {
    serde_json::from_str(&record.rule).unwrap_or_default()
}

/// The rule as it is written, and where it comes from.
fn record_json(record: &wire::RuleRecord) -> Value {
    let mut rule = written(record);
    rule["source"] = json!(record.source);
    if !record.set_by.is_empty() {
        rule["set_by"] = json!(record.set_by);
        rule["set_at"] = when(record.set_unix_ms);
    }
    rule
}

fn table(records: &[wire::RuleRecord]) -> String {
    let mut table = Table::new(&["RULE", "SOURCE", "GIVES", "MATCHES"]);
    for record in records {
        let rule = written(record);
        let gives = match (&rule["deny"], &rule["spiffe_id"]) {
            (Value::Bool(true), _) => "nothing: it denies".to_owned(),
            (_, Value::String(template)) => template.clone(),
            _ => "-".to_owned(),
        };
        let matches = match &rule["match"] {
            Value::Object(criteria) if !criteria.is_empty() => {
                let criterion = |(key, value): (&String, &Value)| format!("{key} {value}");
                criteria.iter().map(criterion).collect::<Vec<_>>().join(", ")
            }
            _ => "every attested pod".to_owned(),
        };
        let source = match record.set_by.as_str() {
            "" => record.source.clone(),
            by => format!("{} {by}", record.source),
        };
        table.row([record.name.clone(), source, gives, matches]);
    }
    table_or(table, records.len(), "no rules: nobody gets an identity")
}

fn withdrawn(waiting: &wire::WaitingRules) -> String {
    let table = some_of(
        ["WOULD BE WITHDRAWN", "FROM"],
        &waiting.examples,
        waiting.withdrawn,
    );
    format!("\n{table}")
}

/// Identities and who has them, of so many.
pub(super) fn some_of(heads: [&str; 2], some: &[wire::WithdrawnIdentity], all: u64) -> String {
    let mut table = Table::new(&heads);
    for one in some {
        table.row([one.spiffe_id.clone(), one.holder.clone()]);
    }
    let more = all.saturating_sub(some.len() as u64);
    let more = if more > 0 {
        format!("and {more} more\n")
    } else {
        String::new()
    };
    format!("{}{more}", table.render())
}

/// Identities and who has them.
pub(super) fn some_json(some: &[wire::WithdrawnIdentity]) -> Value {
    some.iter()
        .map(|one| json!({ "spiffe_id": one.spiffe_id, "holder": one.holder }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rule: Value) -> wire::RuleRecord {
        wire::RuleRecord {
            name: rule["name"].as_str().unwrap_or_default().to_owned(),
            rule: rule.to_string(),
            source: "admin".to_owned(),
            set_by: "uid:7".to_owned(),
            set_unix_ms: 1_800_000_000_000,
        }
    }

    #[test]
    fn what_waits_is_shown_with_what_it_takes_and_how_to_confirm_it() {
        let listed = wire::ListRulesResponse {
            standing: Some(wire::RulesStanding {
                revision: "0000000000000001".to_owned(),
                count: 2,
                restart_for: vec!["svid.ttl".to_owned()],
                put_off: true,
                waiting: Some(wire::WaitingRules {
                    revision: "0000000000000002".to_owned(),
                    since_unix_ms: 1_800_000_000_000,
                    withdrawn: 12,
                    examples: vec![wire::WithdrawnIdentity {
                        spiffe_id: "spiffe://example.org/ns/shop/sa/web".to_owned(),
                        holder: "pod shop/web-0".to_owned(),
                    }],
                }),
                ..wire::RulesStanding::default()
            }),
            rules: vec![
                record(
                    json!({ "name": "shop", "match": { "namespaces": ["shop"] }, "spiffe_id": "/shop", "deny": false }),
                ),
                record(json!({ "name": "builtin", "match": {}, "spiffe_id": "/x", "deny": false })),
            ],
            waiting: vec![record(
                json!({ "name": "none", "match": { "namespaces": ["shop"] }, "deny": true }),
            )],
        };
        let answer = rules(&listed);
        for text in [
            "shop     admin uid:7  /shop  namespaces [\"shop\"]",
            "builtin  admin uid:7  /x     every attested pod",
            "in force       revision 0000000000000001",
            "none  admin uid:7  nothing: it denies",
            "rules wait     12 live identities would be withdrawn, since 2027-01-15T08:00:00Z; confirm with `signet-server rule confirm 0000000000000002`",
            "needs restart  svid.ttl",
            "looked at again within ten seconds",
            "spiffe://example.org/ns/shop/sa/web  pod shop/web-0",
            "and 11 more",
        ] {
            assert!(answer.text.contains(text), "{text:?} in\n{}", answer.text);
        }
        assert_eq!(answer.json["waiting"]["withdrawn"], 12);
        assert_eq!(answer.json["waiting"]["rules"][0]["name"], "none");
        assert_eq!(answer.json["rules"][1]["spiffe_id"], "/x");
    }
}
