//! What a revocation did, and what it could not do yet.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, or_dash, when, when_text};

/// Certificates that are named on a terminal, where more were revoked.
const NAMED: usize = 20;
/// Agents that are named on a line of progress.
const STRAGGLERS: usize = 5;

/// `agents` are those whose own certificates are among the revoked.
pub(in crate::cli::admin) fn revoked(
    response: &wire::RevokeResponse,
    agents: &[wire::AgentRecord],
) -> Answer {
    let mut text = certificates(response, "revoked");
    if !response.denial_id.is_empty() {
        text.push_str(&format!(
            "denied     {}, from now on; lift with: signet-server allow {}\n",
            or_dash(&response.denies),
            response.denial_id
        ));
    }
    for agent in agents
        .iter()
        .take(NAMED)
        .filter(|_| response.denial_id.is_empty())
    {
        text.push_str(&format!(
            "agent      {node} takes another key with its pod's next token, within 48 minutes; at once when its pod is \
             deleted:\n           kubectl delete pod --namespace signet-system --selector \
             app.kubernetes.io/name=signet-agent --field-selector spec.nodeName={node}\n",
            node = agent.node_name,
        ));
    }
    for crl in &response.crls {
        text.push_str(&format!(
            "published  CRL {} of authority {}\n",
            crl.number, crl.authority_id
        ));
    }
    let problems = [
        (!response.not_published.is_empty()).then(|| response.not_published.clone()),
        unlisted(response),
    ];
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    let json = as_json(response, problem.is_none());
    Answer { json, text, problem }
}

/// Nothing was done, so nothing is wrong with it.
pub(in crate::cli::admin) fn would_revoke(response: &wire::RevokeResponse) -> Answer {
    let mut text = certificates(response, "would hit");
    if !response.denies.is_empty() {
        let already = match response.denial_id.as_str() {
            "" => String::new(),
            id => format!("; {id} denies it already"),
        };
        text.push_str(&format!("would deny {}{already}\n", response.denies));
    }
    if let Some(unlisted) = unlisted(response) {
        text.push_str(&format!("no room    {unlisted}\n"));
    }
    let mut json = as_json(response, false);
    if let Some(members) = json.as_object_mut() {
        members.insert("dry_run".to_owned(), Value::Bool(true));
    }
    Answer::new(json, text)
}

/// With what came of waiting for the agents: the rest has been read meanwhile.
pub(in crate::cli::admin) fn and_reported(
    mut answer: Answer,
    reported: anyhow::Result<wire::SpreadProgress>,
) -> Answer {
    match reported {
        Ok(_) => answer.text = "every agent has reported the lists\n".to_owned(),
        Err(error) => {
            answer.text = String::new();
            let why = format!(
                "nobody knows which agents have reported the lists: {error}; they get them all the same"
            );
            answer.problem = Some(
                answer
                    .problem
                    .map_or_else(|| why.clone(), |other| format!("{other}; {why}")),
            );
        }
    }
    answer
}

/// Where the answer named no list that anybody could report.
pub(in crate::cli::admin) fn nothing_to_report(mut answer: Answer) -> Answer {
    answer.text = match answer.problem {
        None => "no list names anything of it, so no agent has to report one\n".to_owned(),
        Some(_) => String::new(),
    };
    answer
}

/// Who is waited for, on a line.
pub(in crate::cli::admin) fn spread(step: &wire::SpreadProgress) -> String {
    let named = step.awaited.iter().take(STRAGGLERS).map(|agent| {
        let away = if agent.connected { "" } else { ", not connected" };
        let why = if agent.why.is_empty() {
            String::new()
        } else {
            format!(", {}", agent.why)
        };
        format!("{} ({}{away}{why})", or_dash(&agent.node_name), agent.spiffe_id)
    });
    let mut named: Vec<String> = named.collect();
    let more = (step.awaited_total as usize).saturating_sub(named.len());
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let waits = if named.is_empty() {
        String::new()
    } else {
        format!("; waiting for {}", named.join(", "))
    };
    format!(
        "reported by {} of {} agents{waits}",
        step.agents_reported, step.agents
    )
}

/// One by one where they are few, else some of them and how many there are of each.
fn certificates(response: &wire::RevokeResponse, done: &str) -> String {
    let mut text = String::new();
    for svid in response.revoked.iter().take(NAMED) {
        let waits = if svid.waits {
            format!("  on no list; ends {}", when_text(svid.not_after_unix_ms))
        } else {
            String::new()
        };
        let id = or_dash(&svid.spiffe_id);
        text.push_str(&format!("{done:<10} {} {id}{waits}\n", svid.serial));
    }
    if response.revoked.is_empty() {
        text.push_str(&format!("{done:<10} nothing: no live certificate matches\n"));
    }
    if response.revoked_total > NAMED as u64 {
        let more = response.revoked_total - NAMED as u64;
        text.push_str(&format!(
            "{done:<10} and {more} more: {} in all\n",
            response.revoked_total
        ));
        for group in &response.groups {
            let of = if group.kind == "authority" {
                "by authority "
            } else {
                ""
            };
            text.push_str(&format!("           {} {of}{}\n", group.certificates, group.name));
        }
    }
    text
}

fn as_json(response: &wire::RevokeResponse, published: bool) -> Value {
    json!({
        "revoked": response.revoked.iter().map(|svid| json!({
            "serial": svid.serial, "authority_id": svid.authority_id, "spiffe_id": svid.spiffe_id,
            "listed": !svid.waits, "not_after": when(svid.not_after_unix_ms),
        })).collect::<Vec<_>>(),
        "revoked_total": response.revoked_total,
        "truncated": response.revoked_total > response.revoked.len() as u64,
        "waiting_total": response.waiting_total,
        "groups": response.groups.iter().map(|group| json!({
            "kind": group.kind, "name": group.name, "certificates": group.certificates,
        })).collect::<Vec<_>>(),
        "denial_id": if response.denial_id.is_empty() { Value::Null } else { json!(response.denial_id) },
        "denies": if response.denies.is_empty() { Value::Null } else { json!(response.denies) },
        "crls": response.crls.iter().map(|crl| json!({
            "authority_id": crl.authority_id, "number": crl.number,
        })).collect::<Vec<_>>(),
        "published": published,
    })
}

/// What an admin has to know of those that no list has room for.
fn unlisted(response: &wire::RevokeResponse) -> Option<String> {
    if response.waiting_total == 0 {
        return None;
    }
    let last = match response.waiting_last_end_unix_ms {
        0 => "with its authority".to_owned(),
        last => format!("at {}", when_text(last)),
    };
    Some(format!(
        "for {} of these certificates the lists have no room, the last of them ends {last}. Until then, or until others on the lists have \
         ended, whoever holds their keys is believed; what is revoked by its serial enters first",
        response.waiting_total
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svid(serial: &str, waits: bool, not_after_unix_ms: i64) -> wire::RevokedSvid {
        wire::RevokedSvid {
            serial: serial.to_owned(),
            waits,
            not_after_unix_ms,
            ..wire::RevokedSvid::default()
        }
    }

    #[test]
    fn what_no_list_has_room_for_is_named_with_its_end() {
        let response = wire::RevokeResponse {
            revoked: vec![
                svid("01", false, 1_800_000_000_000),
                svid("02", true, 1_800_000_060_000),
            ],
            revoked_total: 2,
            waiting_total: 1,
            waiting_last_end_unix_ms: 1_800_000_060_000,
            denial_id: "d1-1".to_owned(),
            ..wire::RevokeResponse::default()
        };
        let answer = revoked(&response, &[]);
        let (text, problem) = (answer.text, answer.problem.unwrap());
        assert!(
            text.contains("02 -  on no list; ends 2027-01-15T08:01:00Z\n"),
            "{text}"
        );
        assert!(text.contains("01 -\n") && text.contains("denied "), "{text}");
        assert!(
            problem.contains("for 1 of these certificates")
                && problem.contains("ends at 2027-01-15T08:01:00Z"),
            "{problem}"
        );
        let listed: Vec<_> = answer.json["revoked"]
            .as_array()
            .unwrap()
            .iter()
            .map(|svid| svid["listed"].clone())
            .collect();
        assert_eq!(listed, [true, false]);
        assert_eq!(answer.json["published"], false);
        let all_listed = wire::RevokeResponse {
            revoked: vec![svid("01", false, 1_800_000_000_000)],
            ..wire::RevokeResponse::default()
        };
        assert_eq!(revoked(&all_listed, &[]).problem, None);
    }

    #[test]
    fn whose_agent_it_is_reads_how_it_gets_another_key() {
        let response = wire::RevokeResponse {
            revoked: vec![svid("01", false, 0)],
            ..wire::RevokeResponse::default()
        };
        let agent = wire::AgentRecord {
            node_name: "node-a".to_owned(),
            ..wire::AgentRecord::default()
        };
        let text = revoked(&response, std::slice::from_ref(&agent)).text;
        assert!(
            text.contains("kubectl delete pod") && text.contains("spec.nodeName=node-a"),
            "{text}"
        );
        let denied = wire::RevokeResponse {
            denial_id: "d-1".to_owned(),
            ..response
        };
        assert!(!revoked(&denied, &[agent]).text.contains("kubectl"));
    }

    #[test]
    fn many_are_summed_up_for_people_and_named_for_programs() {
        let serials: Vec<String> = (0..500).map(|n| format!("{n:04x}")).collect();
        let group = |kind: &str, name: &str, certificates| wire::RevokedGroup {
            kind: kind.to_owned(),
            name: name.to_owned(),
            certificates,
        };
        let response = wire::RevokeResponse {
            revoked: serials.iter().map(|serial| svid(serial, false, 0)).collect(),
            revoked_total: 120_000,
            groups: vec![
                group("authority", "a1", 120_000),
                group("spiffe-id", "spiffe://e/x", 7),
            ],
            denies: "prefix spiffe://e/ns".to_owned(),
            ..wire::RevokeResponse::default()
        };
        let answer = revoked(&response, &[]);
        assert!(answer.text.lines().count() < 30, "{}", answer.text);
        assert!(
            answer.text.contains("and 119980 more: 120000 in all"),
            "{}",
            answer.text
        );
        assert!(answer.text.contains("120000 by authority a1") && answer.text.contains("7 spiffe://e/x"));
        assert_eq!(answer.json["revoked"].as_array().unwrap().len(), 500);
        assert_eq!(answer.json["revoked_total"], 120_000);
        assert_eq!(answer.json["truncated"], true);
        let would = would_revoke(&response);
        assert!(
            would.text.contains("would deny prefix spiffe://e/ns\n"),
            "{}",
            would.text
        );
        assert_eq!(would.json["dry_run"], true);
        assert_eq!(would.problem, None);
    }

    #[test]
    fn who_has_not_reported_is_named_by_node() {
        let behind = |n: usize| wire::Straggler {
            spiffe_id: format!("spiffe://e/signet/agent/c/{n}"),
            node_name: format!("node-{n}"),
            connected: n == 0,
            ..wire::Straggler::default()
        };
        let step = wire::SpreadProgress {
            agents: 30,
            agents_reported: 23,
            awaited: (0..7).map(behind).collect(),
            awaited_total: 7,
            done: false,
        };
        let line = spread(&step);
        assert!(line.starts_with(
            "reported by 23 of 30 agents; waiting for node-0 (spiffe://e/signet/agent/c/0), node-1 "
        ));
        assert!(
            line.contains("not connected") && line.ends_with("2 more"),
            "{line}"
        );
    }
}
