//! What the whole server says of itself.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, Health, NotReady, when, when_text};

use super::clusters::{cluster_json, cluster_state};
use super::proofs::{proof_json, proof_text};
use super::rules::{lines, standing_json};
use super::{authorities, authority_json};

pub(in crate::cli::admin) fn health(status: &wire::StatusResponse) -> Health {
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

pub(in crate::cli::admin) fn status(status: &wire::StatusResponse) -> Answer {
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
        "rules": standing_json(&status.rules.clone().unwrap_or_default()),
        "svids_issued": status.svids_issued,
        "svids_live": status.svids_live,
        "agents_connected": status.agents_connected,
        "key_exchanges": key_exchanges_json(status),
        "agents_awaited": status.agents_awaited,
        "clusters": clusters,
        "authorities": status.authorities.iter().map(authority_json).collect::<Vec<_>>(),
        "lists": status.lists.iter().map(list_json).collect::<Vec<_>>(),
        "list_proofs": status.list_proofs.iter().map(proof_json).collect::<Vec<_>>(),
        "advice": status.advice,
        "denials": status.denials,
        "first_denial_ends": when(status.first_denial_ends_unix_ms),
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
    if !status.key_exchanges.is_empty() {
        let counts = status.key_exchanges.iter();
        let counts: Vec<_> = counts
            .map(|used| format!("{} of {}", used.group, used.agents))
            .collect();
        text.push_str(&format!("key exchange   {}\n", counts.join(", ")));
    }
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
    text.push_str(&denials(status));
    text.push_str(&lines(&status.rules.clone().unwrap_or_default()));
    text.push_str(&clusters_and_lists(status));
    text.push('\n');
    text.push_str(&authorities(&status.authorities).text);
    Answer::new(json, text)
}

/// Whoever gets nothing may be among them.
fn denials(status: &wire::StatusResponse) -> String {
    let ends = match (status.denials, status.first_denial_ends_unix_ms) {
        (0, _) => return String::new(),
        (_, 0) => "none ends by itself".to_owned(),
        (_, first) => format!("the first ends {}", when_text(first)),
    };
    format!(
        "denials        {} in force, {ends}: `denials` lists them\n",
        status.denials
    )
}

/// What `status` says of clusters, of lists that are nearly full, of lists that the store lacks, and of the configuration.
fn clusters_and_lists(status: &wire::StatusResponse) -> String {
    let mut text = String::new();
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
    for advice in &status.advice {
        text.push_str(&format!("advice         {advice}\n"));
    }
    text
}

fn key_exchanges_json(status: &wire::StatusResponse) -> Value {
    let counts = status.key_exchanges.iter();
    Value::Object(
        counts
            .map(|used| (used.group.clone(), json!(used.agents)))
            .collect(),
    )
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
