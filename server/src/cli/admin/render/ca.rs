//! Authorities: where each stands, how it came there, and what is under way.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, or_dash, when, when_text};
use signet_runtime::output::Narration;

use super::{authorities, authority_json};

/// The table, then how each authority came to stand where it does and what happens next, what is under way, and what has left.
pub(in crate::cli::admin) fn shown_authorities(shown: &wire::ShowAuthoritiesResponse) -> Answer {
    let mut text = authorities(&shown.authorities).text;
    for authority in &shown.authorities {
        text.push_str(&timeline(authority, shown.now_unix_ms));
    }
    let (ended, running): (Vec<_>, Vec<_>) = shown.operations.iter().partition(|one| one.done);
    for operation in running {
        text.push_str(&format!(
            "\n{} {}, since {} by {}:\n  {}\n",
            operation.operation_id,
            operation.verb,
            when_text(operation.begun_unix_ms),
            or_dash(&operation.author),
            line(operation)
        ));
    }
    for operation in ended {
        text.push_str(&format!(
            "\n{} {}, {} to {} by {}:\n  {}, reported by {} of {} agents\n",
            operation.operation_id,
            operation.verb,
            when_text(operation.begun_unix_ms),
            when_text(operation.ended_unix_ms),
            or_dash(&operation.author),
            line(operation),
            operation.agents_reported,
            operation.agents
        ));
    }
    for left in &shown.departed {
        let key = if left.has_key {
            "; its key is destroyed once the time is settled"
        } else {
            ""
        };
        text.push_str(&format!(
            "\n{} {} has left for good: {} {} by {}{key}\n",
            left.kind,
            left.authority_id,
            left.how,
            when_text(left.left_unix_ms),
            or_dash(&left.author)
        ));
    }
    let json = json!({
        "authorities": shown.authorities.iter().map(shown_json).collect::<Vec<_>>(),
        "operations": shown.operations.iter().map(operation_json).collect::<Vec<_>>(),
        "departed": shown.departed.iter().map(departed_json).collect::<Vec<_>>(),
    });
    Answer::new(json, text)
}

fn timeline(authority: &wire::Authority, now: i64) -> String {
    if authority.history.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{} {}\n", authority.kind, authority.authority_id);
    for turn in &authority.history {
        let age = span(now.saturating_sub(turn.at_unix_ms));
        text.push_str(&format!(
            "  {}  {}, {age} ago\n",
            when_text(turn.at_unix_ms),
            turn.state
        ));
    }
    if !authority.next.is_empty() {
        let left = authority.next_unix_ms.saturating_sub(now);
        let when = match authority.next_unix_ms {
            0 => String::new(),
            _ if left <= 0 => ", now".to_owned(),
            _ => format!(", in {}", span(left)),
        };
        text.push_str(&format!(
            "  {:<20}  {}{when}\n",
            when_text(authority.next_unix_ms),
            authority.next
        ));
    }
    text
}

/// The two largest units.
fn span(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn shown_json(authority: &wire::Authority) -> Value {
    let turn = |turn: &wire::AuthorityTurn| json!({ "state": turn.state, "at": when(turn.at_unix_ms) });
    let mut json = authority_json(authority);
    json["since"] = when(authority.state_since_unix_ms);
    json["author"] = json!(authority.author);
    json["operation_id"] = match authority.operation_id.as_str() {
        "" => Value::Null,
        id => json!(id),
    };
    json["history"] = authority.history.iter().map(turn).collect();
    json
}

fn departed_json(left: &wire::DepartedAuthority) -> Value {
    json!({
        "authority_id": left.authority_id,
        "kind": left.kind,
        "how": left.how,
        "at": when(left.left_unix_ms),
        "author": left.author,
        "forced": left.forced,
        "has_key": left.has_key,
    })
}

fn straggler_json(straggler: &wire::Straggler) -> Value {
    json!({
        "spiffe_id": straggler.spiffe_id,
        "cluster": straggler.cluster,
        "node_name": straggler.node_name,
        "connected": straggler.connected,
        "why": straggler.why,
    })
}

fn operation_json(step: &wire::AuthorityProgress) -> Value {
    json!({
        "step": step.step,
        "authority_id": step.authority_id,
        "old_authority_id": step.old_authority_id,
        "agents": step.agents,
        "agents_reported": step.agents_reported,
        "operation_id": step.operation_id,
        "verb": step.verb,
        "kind": step.kind,
        "author": step.author,
        "begun": when(step.begun_unix_ms),
        "ended": when(step.ended_unix_ms),
        "awaited": step.awaited.iter().map(straggler_json).collect::<Vec<_>>(),
        "awaited_total": step.awaited_total,
    })
}

/// One step, as it comes: what stays to be read, or how far it is.
pub(in crate::cli::admin) fn tell(step: &wire::AuthorityProgress, narration: &mut Narration) {
    let text = line(step);
    if step.done || step.step == "prepared" {
        narration.line(&text);
    } else {
        let words = format!(
            "{:<11} {} of {} agents",
            step.step, step.agents_reported, step.agents
        );
        let (done, all) = (step.agents_reported.into(), step.agents.into());
        narration.state(done, all, &words, parts(step), &text);
    }
}

/// What does not fit beside a bar: what is under way, until when, and whom it waits for.
fn parts(step: &wire::AuthorityProgress) -> Vec<String> {
    let what = match step.step.as_str() {
        "draining" | "leaving" => format!("{} takes over from {}", step.authority_id, step.old_authority_id),
        _ => step.authority_id.clone(),
    };
    let what = format!("{:<11} {what}", step.verb);
    let until = Some(step.message.clone()).filter(|message| !message.is_empty());
    let (named, more) = waiting(step);
    let rest = [what]
        .into_iter()
        .chain(until.map(|until| format!("{:<11} {until}", "")));
    let waits = named.into_iter().map(|one| format!("waits for   {one}"));
    let more = (more > 0).then(|| format!("waits for   {more} more"));
    rest.chain(waits).chain(more).collect()
}

pub(super) fn line(step: &wire::AuthorityProgress) -> String {
    let (id, old) = (&step.authority_id, or_dash(&step.old_authority_id));
    let figures = format!("{} of {} agents", step.agents_reported, step.agents);
    let what = match step.step.as_str() {
        "prepared" => format!("prepared    {id} is in the bundle"),
        "spreading" => format!("spreading   reported by {figures}"),
        "spread" => format!("spread      {id} may take over: `ca activate`"),
        "activated" => format!("activated   {id} signs; {old} stays trusted"),
        "draining" => format!("draining    {id} signs; {figures} use nothing of {old} any more"),
        "replacing" => {
            format!(
                "replacing   {id} signs; {figures} use nothing of {old} any more, which leaves whoever has reported"
            )
        }
        "attesting" if step.kind == "x509" => format!("leaving     {old} is in no bundle any more"),
        "attesting" => format!("attesting   {old} is in no bundle any more; {figures} have attested anew"),
        "replaced" => format!("replaced    {id} signs; {old} and all before it are in no bundle any more"),
        "leaving" => format!("leaving     {figures} have reported the bundle without {old}"),
        "retired" => format!("retired     {id} signs; {old} is in no bundle any more"),
        "tainting" => format!("tainting    reported by {figures}"),
        "tainted" => {
            format!("tainted     {id}: what it has signed is replaced; once nobody uses it, `ca revoke`")
        }
        "revoking" => format!("revoking    {figures} have reported the bundle without {id}"),
        "revoked" => format!("revoked     {id} is in no bundle any more"),
        other => other.to_owned(),
    };
    let said = match step.message.as_str() {
        "" => String::new(),
        message => format!(", {message}"),
    };
    format!("{what}{said}{}", waits_for(step))
}

fn waits_for(step: &wire::AuthorityProgress) -> String {
    if step.awaited.is_empty() {
        return String::new();
    }
    let (named, more) = waiting(step);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; waits for {}{more}", named.join(", "))
}

/// Those that are waited for by name, and how many more.
fn waiting(step: &wire::AuthorityProgress) -> (Vec<String>, usize) {
    let name = |one: &wire::Straggler| {
        let name = match one.node_name.as_str() {
            "" => &one.spiffe_id,
            node => node,
        };
        format!("{name} ({})", one.why)
    };
    let named: Vec<_> = step.awaited.iter().map(name).collect();
    let all = usize::try_from(step.awaited_total).unwrap_or_default();
    let more = all.saturating_sub(named.len());
    (named, more)
}

/// The answer of an order that has ended.
///
/// # Errors
/// Something else came of it.
pub(in crate::cli::admin) fn ordered(step: &wire::AuthorityProgress) -> anyhow::Result<Answer> {
    anyhow::ensure!(
        step.step != "superseded",
        "{} came to nothing: {}",
        step.operation_id,
        step.message
    );
    let unwritten = step.step == "replaced" && !step.message.is_empty();
    Ok(Answer {
        problem: unwritten.then(|| step.message.clone()),
        ..Answer::new(operation_json(step), String::new())
    })
}

/// The answer of an order that goes on by itself.
pub(in crate::cli::admin) fn recorded(step: &wire::AuthorityProgress) -> Answer {
    let text = format!(
        "{0} is recorded and goes on; `signet-server ca wait {0}` follows it\n",
        step.operation_id
    );
    Answer::new(operation_json(step), text)
}
