//! Answers as JSON and as tables.

mod ca;
mod clusters;
mod denials;
mod explain;
mod proofs;
mod revoked;
mod rules;
mod status;
mod tried;

use serde_json::{Value, json};
use signet_certs::pem;
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, or_dash, when, when_text};
use signet_runtime::table::Table;

pub(super) use self::ca::{ordered, recorded, shown_authorities, tell};
pub(super) use self::denials::denials;
pub(super) use self::explain::{explained_id, explained_pod};
pub(super) use self::revoked::{and_reported, nothing_to_report, revoked, spread, would_revoke};
pub(super) use self::rules::{confirmed_rules, rules};
pub(super) use self::status::{health, status};
pub(super) use self::tried::{is_open, rule_change, tested_rule};

#[cfg(test)]
mod tests;

/// `table`, or `empty` in words.
fn table_or(table: Table, rows: usize, empty: &str) -> String {
    if rows == 0 {
        format!("{empty}\n")
    } else {
        table.render()
    }
}

fn authority_json(authority: &wire::Authority) -> Value {
    json!({
        "authority_id": authority.authority_id,
        "kind": authority.kind,
        "algorithm": authority.algorithm,
        "state": authority.state,
        "subject": authority.subject,
        "not_before": when(authority.not_before_unix_ms),
        "not_after": when(authority.not_after_unix_ms),
        "live_svids": authority.live_svids,
        "crl_number": authority.crl_number,
        "next": if authority.next.is_empty() { Value::Null } else { json!(authority.next) },
        "next_at": when(authority.next_unix_ms),
    })
}

fn authorities(authorities: &[wire::Authority]) -> Answer {
    let mut table = Table::new(&[
        "AUTHORITY",
        "KIND",
        "ALGORITHM",
        "STATE",
        "EXPIRES",
        "LIVE SVIDS",
        "CRL NUMBER",
        "NEXT",
    ]);
    for authority in authorities {
        let next = if authority.next.is_empty() {
            "-".to_owned()
        } else {
            let at = when(authority.next_unix_ms);
            let at = at.as_str().map(|at| format!(" {at}")).unwrap_or_default();
            format!("{}{at}", authority.next)
        };
        table.row([
            authority.authority_id.clone(),
            authority.kind.clone(),
            or_dash(&authority.algorithm).to_owned(),
            authority.state.clone(),
            when_text(authority.not_after_unix_ms),
            authority.live_svids.to_string(),
            authority.crl_number.to_string(),
            next,
        ]);
    }
    let json = json!({ "authorities": authorities.iter().map(authority_json).collect::<Vec<_>>() });
    Answer::new(json, table_or(table, authorities.len(), "no authority yet"))
}

/// Those by which agents recognise the server.
pub(super) fn anchors(shown: &wire::ShowAuthoritiesResponse) -> Answer {
    let control = shown
        .authorities
        .iter()
        .filter(|authority| authority.kind == "control");
    let pem: Vec<String> = control
        .map(|authority| pem::encode("CERTIFICATE", &authority.certificate))
        .collect();
    Answer::new(
        json!({ "anchors": pem, "file": shown.anchors }),
        shown.anchors.clone(),
    )
}

pub(super) fn svids(list: &wire::ListSvidsResponse) -> Answer {
    let mut table = Table::new(&["SERIAL", "SPIFFE ID", "POD", "NODE", "EXPIRES", "REVOKED"]);
    for svid in &list.svids {
        let pod = if svid.pod_name.is_empty() {
            "-".to_owned()
        } else {
            format!("{}/{}", svid.pod_namespace, svid.pod_name)
        };
        let revoked = if svid.revoked_unix_ms == 0 {
            "-".to_owned()
        } else {
            format!("{} {}", when_text(svid.revoked_unix_ms), svid.revocation_reason)
        };
        table.row([
            svid.serial.clone(),
            svid.spiffe_id.clone(),
            pod,
            or_dash(&svid.node_name).to_owned(),
            when_text(svid.not_after_unix_ms),
            revoked,
        ]);
    }
    let mut text = table_or(table, list.svids.len(), "no certificate matches");
    if list.truncated {
        text.push_str("there are more: narrow the search or raise --limit\n");
    }
    let json =
        json!({ "svids": list.svids.iter().map(svid_json).collect::<Vec<_>>(), "truncated": list.truncated });
    Answer::new(json, text)
}

fn svid_json(svid: &wire::SvidRecord) -> Value {
    json!({
        "serial": svid.serial,
        "authority_id": svid.authority_id,
        "spiffe_id": svid.spiffe_id,
        "cluster": svid.cluster,
        "pod_namespace": svid.pod_namespace,
        "pod_name": svid.pod_name,
        "pod_uid": svid.pod_uid,
        "node_name": svid.node_name,
        "node_uid": svid.node_uid,
        "agent_id": svid.agent_id,
        "evidence": svid.evidence,
        "not_before": when(svid.not_before_unix_ms),
        "not_after": when(svid.not_after_unix_ms),
        "revoked": when(svid.revoked_unix_ms),
        "revocation_reason": if svid.revocation_reason.is_empty() { Value::Null } else { json!(svid.revocation_reason) },
    })
}

pub(super) fn crls(crls: &[wire::Crl]) -> Answer {
    let mut text = String::new();
    for crl in crls {
        text.push_str(&format!(
            "authority {} ({})\n  number {}, {} entries, this update {}, next update {}\n",
            crl.authority_id,
            crl.kind,
            crl.number,
            crl.entries.len(),
            when_text(crl.this_update_unix_ms),
            when_text(crl.next_update_unix_ms)
        ));
        for entry in &crl.entries {
            let since = match entry.invalid_from_unix_ms {
                0 => String::new(),
                since => format!(", invalid since {}", when_text(since)),
            };
            text.push_str(&format!(
                "  {} {} {}{since}\n",
                entry.serial,
                when_text(entry.revoked_unix_ms),
                entry.reason
            ));
        }
    }
    let json = json!({ "crls": crls.iter().map(|crl| json!({
        "authority_id": crl.authority_id, "kind": crl.kind, "number": crl.number, "path": crl.url,
        "this_update": when(crl.this_update_unix_ms), "next_update": when(crl.next_update_unix_ms),
        "entries": crl.entries.iter().map(|entry| json!({
            "serial": entry.serial, "revoked": when(entry.revoked_unix_ms), "reason": entry.reason,
            "invalid_since": when(entry.invalid_from_unix_ms),
        })).collect::<Vec<_>>(),
    })).collect::<Vec<_>>() });
    Answer::new(
        json,
        if crls.is_empty() {
            "no list yet\n".to_owned()
        } else {
            text
        },
    )
}

pub(super) fn agents(agents: &[wire::AgentRecord]) -> Answer {
    let mut table = Table::new(&[
        "AGENT",
        "NODE",
        "CONNECTED",
        "KEY EXCHANGE",
        "ATTESTED",
        "EXPIRES",
        "PODS",
        "BUNDLE",
        "CLOCK SKEW",
        "BUNDLE REFUSED",
    ]);
    for agent in agents {
        table.row([
            agent.spiffe_id.clone(),
            agent.node_name.clone(),
            if agent.connected { "yes" } else { "no" }.to_owned(),
            or_dash(&agent.key_exchange).to_owned(),
            when_text(agent.attested_unix_ms),
            when_text(agent.expires_unix_ms),
            agent.pods.to_string(),
            agent.sequence_number.to_string(),
            format!("{} ms", agent.clock_skew_ms),
            or_dash(&agent.problem).to_owned(),
        ]);
    }
    let json = json!({ "agents": agents.iter().map(|agent| json!({
        "spiffe_id": agent.spiffe_id, "cluster": agent.cluster, "node_name": agent.node_name, "node_uid": agent.node_uid,
        "serial": agent.serial, "attested": when(agent.attested_unix_ms), "expires": when(agent.expires_unix_ms),
        "connected": agent.connected, "sequence_number": agent.sequence_number, "clock_skew_ms": agent.clock_skew_ms, "pods": agent.pods,
        "problem": agent.problem, "key_exchange": if agent.key_exchange.is_empty() { Value::Null } else { json!(agent.key_exchange) },
    })).collect::<Vec<_>>() });
    Answer::new(json, table_or(table, agents.len(), "no agent has attested yet"))
}

pub(super) fn clock(clock: &wire::Clock) -> Answer {
    let mut text = format!(
        "state    {}\nwall     {}\nsteady   {}\n",
        clock.state,
        when_text(clock.wall_unix_ms),
        when_text(clock.steady_unix_ms)
    );
    for server in &clock.api_servers {
        text.push_str(&format!(
            "cluster  {} says {}, {} ms ago\n",
            server.cluster,
            when_text(server.date_unix_ms),
            server.age_ms
        ));
    }
    if !clock.reason.is_empty() {
        text.push_str(&format!("\n{}\n", clock.reason));
    }
    let json = json!({
        "state": clock.state, "wall": when(clock.wall_unix_ms), "steady": when(clock.steady_unix_ms),
        "mark": when(clock.mark_unix_ms), "reason": clock.reason, "contradicted": clock.contradicted,
        "api_servers": clock.api_servers.iter().map(|server| json!({
            "cluster": server.cluster, "date": when(server.date_unix_ms), "age_ms": server.age_ms,
        })).collect::<Vec<_>>(),
    });
    Answer::new(json, text)
}
