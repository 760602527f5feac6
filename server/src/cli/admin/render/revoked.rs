//! What a revocation did, and what it could not do yet.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, or_dash, when, when_text};

/// `agents` are those whose own certificates are among the revoked.
pub(in crate::cli::admin) fn revoked(
    response: &wire::RevokeResponse,
    agents: &[wire::AgentRecord],
) -> Answer {
    let mut text = String::new();
    for svid in &response.revoked {
        let waits = if svid.waits {
            format!("  on no list; ends {}", when_text(svid.not_after_unix_ms))
        } else {
            String::new()
        };
        let id = or_dash(&svid.spiffe_id);
        text.push_str(&format!("revoked    {} {id}{waits}\n", svid.serial));
    }
    if response.revoked.is_empty() {
        text.push_str("revoked    nothing: no live certificate matches\n");
    }
    if !response.denial_id.is_empty() {
        text.push_str(&format!(
            "denied     from now on; lift with: signet-server allow {}\n",
            response.denial_id
        ));
    }
    for agent in agents.iter().filter(|_| response.denial_id.is_empty()) {
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
        unlisted(&response.revoked),
    ];
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    let json = json!({
        "revoked": response.revoked.iter().map(|svid| json!({
            "serial": svid.serial, "authority_id": svid.authority_id, "spiffe_id": svid.spiffe_id,
            "listed": !svid.waits, "not_after": when(svid.not_after_unix_ms),
        })).collect::<Vec<_>>(),
        "denial_id": if response.denial_id.is_empty() { Value::Null } else { json!(response.denial_id) },
        "crls": response.crls.iter().map(|crl| json!({
            "authority_id": crl.authority_id, "number": crl.number,
        })).collect::<Vec<_>>(),
        "published": problem.is_none(),
    });
    Answer { json, text, problem }
}

/// What an admin has to know of those that no list has room for.
fn unlisted(revoked: &[wire::RevokedSvid]) -> Option<String> {
    let waiting = revoked.iter().filter(|svid| svid.waits);
    let ends: Vec<i64> = waiting.map(|svid| svid.not_after_unix_ms).collect();
    let last = match ends.iter().max()? {
        _ if ends.contains(&0) => "with its authority".to_owned(),
        last => format!("at {}", when_text(*last)),
    };
    Some(format!(
        "for {} of these certificates the lists have no room, the last of them ends {last}. Until then, or until others on the lists have \
         ended, whoever holds their keys is believed; what is revoked by its serial enters first",
        ends.len()
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
}
