//! Answers as JSON and as tables.

mod clusters;
mod proofs;
mod revoked;

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, Health, NotReady, or_dash, when, when_text};
use signet_runtime::table::Table;

use self::clusters::{cluster_json, cluster_state};
use self::proofs::{proof_json, proof_text};
pub(super) use self::revoked::revoked;

/// `table`, or `empty` in words.
fn table_or(table: Table, rows: usize, empty: &str) -> String {
    if rows == 0 {
        format!("{empty}\n")
    } else {
        table.render()
    }
}

pub(super) fn health(status: &wire::StatusResponse) -> Health {
    let not_ready = |one: &wire::NotReady| NotReady {
        reason: one.reason.clone(),
        detail: one.detail.clone(),
        serves: one.serves,
    };
    Health {
        ready: status.ready,
        ready_issue: status.ready_issue,
        not_ready: status.not_ready.iter().map(not_ready).collect(),
    }
}

pub(super) fn status(status: &wire::StatusResponse) -> Answer {
    let clusters: Vec<Value> = status.clusters.iter().map(cluster_json).collect();
    let json = json!({
        "trust_domain": status.trust_domain,
        "version": status.version,
        "ready": status.ready,
        "ready_issue": status.ready_issue,
        "not_ready": health(status).reasons_json(),
        "started": when(status.started_unix_ms),
        "clock": { "state": status.clock_state, "reason": status.clock_reason },
        "sequence_number": status.sequence_number,
        "policy_revision": status.policy_revision,
        "svids_issued": status.svids_issued,
        "svids_live": status.svids_live,
        "agents_connected": status.agents_connected,
        "agents_awaited": status.agents_awaited,
        "clusters": clusters,
        "authorities": status.authorities.iter().map(authority_json).collect::<Vec<_>>(),
        "lists": status.lists.iter().map(list_json).collect::<Vec<_>>(),
        "list_proofs": status.list_proofs.iter().map(proof_json).collect::<Vec<_>>(),
    });
    let mut text = format!(
        "trust domain   {}\nserves         {}\nissues         {}\nstarted        {}\nversion        {}\nbundle         sequence {}\nlive SVIDs     {}\nissued         {} since start\nagents         {} connected\n",
        status.trust_domain,
        yes_no(status.ready),
        yes_no(status.ready_issue),
        when_text(status.started_unix_ms),
        status.version,
        status.sequence_number,
        status.svids_live,
        status.svids_issued,
        status.agents_connected,
    );
    for line in health(status).lines() {
        text.push_str(&format!("not ready      {line}\n"));
    }
    if !status.clock_reason.is_empty() {
        text.push_str(&format!("clock          {}\n", status.clock_reason));
    }
    if !status.agents_awaited.is_empty() {
        let awaited = status.agents_awaited.join("\n               ");
        text.push_str(&format!("waiting for    {awaited}\n"));
    }
    for cluster in &status.clusters {
        text.push_str(&format!(
            "cluster        {}: {}\n",
            cluster.name,
            cluster_state(cluster)
        ));
    }
    for room in status.lists.iter().filter(|room| room.alarming) {
        text.push_str(&format!(
            "{:<14} {} of {} entries, {} more wait for room\n",
            format!("{} lists", room.kind),
            room.entries,
            room.capacity,
            room.waiting
        ));
    }
    for proof in &status.list_proofs {
        text.push_str(&format!("store lacks    {}\n", proof_text(proof)));
    }
    text.push('\n');
    text.push_str(&authorities(&status.authorities).text);
    Answer::new(json, text)
}

const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn list_json(room: &wire::ListRoom) -> Value {
    json!({
        "kind": room.kind,
        "entries": room.entries,
        "capacity": room.capacity,
        "waiting": room.waiting,
        "alarming": room.alarming,
    })
}

fn authority_json(authority: &wire::Authority) -> Value {
    json!({
        "authority_id": authority.authority_id,
        "kind": authority.kind,
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

pub(super) fn authorities(authorities: &[wire::Authority]) -> Answer {
    let mut table = Table::new(&[
        "AUTHORITY",
        "KIND",
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
            format!("{} {}", authority.next, when_text(authority.next_unix_ms))
        };
        table.row([
            authority.authority_id.clone(),
            authority.kind.clone(),
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

pub(super) fn step(step: &wire::RotateProgress) -> String {
    match step.step.as_str() {
        "prepared" => format!("prepared    {} is in the bundle", step.authority_id),
        "spreading" => {
            format!(
                "spreading   reported by {} of {} agents{}",
                step.agents_reported,
                step.agents,
                suffix(&step.message)
            )
        }
        "activated" => format!(
            "activated   {} signs; {} stays trusted",
            step.authority_id,
            or_dash(&step.old_authority_id)
        ),
        other => format!("{other}{}", suffix(&step.message)),
    }
}

fn suffix(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(", {message}")
    }
}

pub(super) fn rotated(step: &wire::RotateProgress) -> Answer {
    let json = json!({
        "step": step.step,
        "authority_id": step.authority_id,
        "old_authority_id": step.old_authority_id,
        "agents": step.agents,
        "agents_reported": step.agents_reported,
    });
    Answer::new(json, String::new())
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

pub(super) fn denials(denials: &[wire::Denial]) -> Answer {
    let mut table = Table::new(&["DENIAL", "TARGET", "SINCE", "ENDS", "LIFTED", "BY", "COMMENT"]);
    for denial in denials {
        table.row([
            denial.id.clone(),
            denial.target.clone(),
            when_text(denial.created_unix_ms),
            when_text(denial.expires_unix_ms),
            when_text(denial.lifted_unix_ms),
            or_dash(&denial.author).to_owned(),
            or_dash(&denial.comment).to_owned(),
        ]);
    }
    let json = json!({ "denials": denials.iter().map(|denial| json!({
        "id": denial.id, "kind": denial.kind, "target": denial.target, "author": denial.author, "comment": denial.comment,
        "created": when(denial.created_unix_ms), "expires": when(denial.expires_unix_ms), "lifted": when(denial.lifted_unix_ms),
    })).collect::<Vec<_>>() });
    Answer::new(json, table_or(table, denials.len(), "nothing is denied"))
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
            text.push_str(&format!(
                "  {} {} {}\n",
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
        "problem": agent.problem,
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
