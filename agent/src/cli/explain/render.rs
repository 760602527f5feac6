//! The story for people and for programs.

use serde_json::{Value, json};
use signet_certs::time::rfc3339;
use signet_proto::explain as wire;
use signet_runtime::cli::{Answer, when};
use signet_runtime::error::one_line;
use signet_runtime::table::Table;

use super::judge::{Fetched, Seen};
use super::story::{State, Step, Story};

/// A step that fails is the answer's problem.
pub(super) fn answer(address: Option<&str>, story: &Story, seen: Option<&Seen>) -> Answer {
    let fails = story.fails();
    Answer {
        problem: fails.map(|step| format!("{}: {}", step.name, one_line(&step.says))),
        ..Answer::new(to_json(address, story, seen), to_text(story))
    }
}

fn to_text(story: &Story) -> String {
    let mut table = Table::new(&["", "STEP", "TOOK", "FOUND"]);
    for step in &story.steps {
        let state = match step.state {
            State::Fine => "ok",
            State::Fails => "FAILS",
            State::Note => "note",
        };
        table.row([state, step.name, took(step).as_str(), step.says.as_str()]);
    }
    let mut text = table.render();
    match story.fails() {
        Some(step) => text.push_str(&format!(
            "\nno usable identity: {} is what fails first\n",
            step.name
        )),
        None => text.push_str("\nnothing stands in the way\n"),
    }
    let mut remedies: Vec<_> = story
        .steps
        .iter()
        .filter(|step| !step.remedy.is_empty())
        .collect();
    remedies.sort_by_key(|step| step.state != State::Fails);
    if !remedies.is_empty() {
        text.push_str("\nwhat to do\n");
    }
    for step in remedies {
        text.push_str(&format!("  {}: {}\n", step.name, one_line(&step.remedy)));
    }
    text
}

fn took(step: &Step) -> String {
    step.took.map_or_else(
        || "-".to_owned(),
        |took| format!("{:.1} ms", took.as_secs_f64() * 1000.0),
    )
}

fn to_json(address: Option<&str>, story: &Story, seen: Option<&Seen>) -> Value {
    let step = |step: &Step| {
        json!({
            "step": step.name,
            "state": step.state.name(),
            "at": rfc3339(step.at),
            "took_ms": step.took.map(|took| took.as_secs_f64() * 1000.0),
            "says": step.says,
            "remedy": step.remedy,
        })
    };
    let said = seen.and_then(Seen::said);
    json!({
        "socket": address,
        "usable": story.fails().is_none(),
        "fails": story.fails().map(|step| step.name),
        "steps": story.steps.iter().map(step).collect::<Vec<_>>(),
        "spiffe_ids": ids(seen),
        "caller": said.and_then(|said| said.caller.as_ref()).map(caller),
        "server": said.and_then(|said| said.server.as_ref()).map(server),
        "answer": said.and_then(|said| said.answer.as_ref()).map(|answer| json!({
            "state": answer.state, "message": answer.message, "streams": answer.streams,
        })),
        "svids": said.map(|said| said.svids.iter().map(svid).collect::<Vec<_>>()),
        "authorities": said.map(|said| said.authorities.iter().map(authority).collect::<Vec<_>>()),
    })
}

fn ids(seen: Option<&Seen>) -> Vec<String> {
    match seen.map(|seen| &seen.fetched) {
        Some(Fetched::Context(context)) => {
            let ids = context
                .svids
                .iter()
                .map(|granted| granted.svid.spiffe_id().to_string());
            ids.collect()
        }
        _ => Vec::new(),
    }
}

fn caller(caller: &wire::Caller) -> Value {
    json!({
        "kind": caller.kind,
        "pod": caller.pod,
        "pod_uid": caller.pod_uid,
        "process": caller.process.as_ref().map(|process| json!({
            "uid": process.uid, "gid": process.gid, "path": process.path, "sha256": process.sha256,
        })),
        "problem": caller.problem,
        "token_expires": when(caller.token_expires_unix_ms),
    })
}

fn server(server: &wire::Server) -> Value {
    json!({
        "connected": server.connected,
        "since": when(server.since_unix_ms),
        "problem": server.problem,
        "agent_not_after": when(server.agent_expires_unix_ms),
        "cluster_unreachable_since": when(server.cluster_unreachable_since_unix_ms),
        "not_issuing": server.not_issuing,
    })
}

fn svid(svid: &wire::Svid) -> Value {
    json!({
        "spiffe_id": svid.spiffe_id,
        "serial": svid.serial,
        "not_before": when(svid.not_before_unix_ms),
        "not_after": when(svid.not_after_unix_ms),
        "renew_at": when(svid.renew_unix_ms),
        "problem": svid.problem,
    })
}

fn authority(authority: &wire::Authority) -> Value {
    json!({
        "authority_id": authority.authority_id,
        "not_after": when(authority.not_after_unix_ms),
        "crl_number": authority.crl_number,
        "crl_next_update": when(authority.crl_next_update_unix_ms),
        "crl_entries": authority.crl_entries,
    })
}
