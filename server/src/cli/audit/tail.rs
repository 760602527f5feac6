//! `audit tail`: the log as it is written.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use signet_runtime::{
    cli::Output,
    output::{complain, is_unread, print},
    signal::end_of_session,
    spans::spawn_blocking,
};

use super::super::{
    admin::{AdminClient, AuditQuestion, AuditTold},
    args::AuditTailArgs,
};

/// How often it is seen whether anybody reads what is printed.
const LOOK: Duration = Duration::from_secs(1);

/// Prints until there are no more lines, it is told to end, or nobody reads.
///
/// # Errors
/// What the server answered, or that the answer is not taken.
pub(in crate::cli) async fn tail(args: AuditTailArgs) -> anyhow::Result<()> {
    let output = args.admin.answer.output;
    let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
    let question = AuditQuestion {
        spiffe_id: args.spiffe_id,
        pod: args.pod,
        serial: args.serial,
        author: args.author,
        follow: args.follow,
        last: args.last,
    };
    let mut lines = client.tail(question).await?;
    let end = end_of_session();
    tokio::pin!(end);
    loop {
        let line = tokio::select! {
            _ = &mut end => return Ok(()),
            line = lines.next() => line?,
            () = tokio::time::sleep(LOOK) => {
                if is_unread() {
                    return Ok(());
                }
                continue;
            }
        };
        let text = match (line, output) {
            (None, _) => return Ok(()),
            (Some(AuditTold::Note(note)), _) => {
                complain(&format!("signet-server: {note}\n"));
                continue;
            }
            (Some(AuditTold::Line(line)), Output::Json) => format!("{line}\n"),
            (Some(AuditTold::Line(line)), Output::Table) => one_line(&line),
        };
        // Its reader may rest, with a pipe that is full; the end does not wait for that.
        let printed = spawn_blocking(move || print(&text));
        tokio::select! {
            _ = &mut end => return Ok(()),
            printed = printed => printed?.context("the line cannot be written")?,
        }
        if is_unread() {
            return Ok(());
        }
    }
}

/// Members that say where a line stands and not what happened.
const PLACE: &[&str] = &[
    "server",
    "boot",
    "sequence",
    "previous",
    "time",
    "event",
    "hash",
    "signature",
    "key",
];

/// When, the place, what, and the other members that say something.
fn one_line(line: &str) -> String {
    let Ok(Value::Object(members)) = serde_json::from_str::<Value>(line) else {
        return format!("{line}\n");
    };
    let text = |member: &str| match members.get(member) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let said = members.iter().filter(|(name, value)| {
        let is_empty = value.is_null() || **value == "" || value.as_array().is_some_and(Vec::is_empty);
        !is_empty && !PLACE.contains(&name.as_str())
    });
    let said = said.map(|(name, value)| match value {
        Value::String(text) if !text.contains(char::is_whitespace) => format!(" {name}={text}"),
        other => format!(" {name}={other}"),
    });
    let said: String = said.collect();
    let line = format!("{} {:>6} {}{said}", text("time"), text("sequence"), text("event"));
    line.replace(char::is_control, "?") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_for_people_and_says_what_happened() {
        let line = r#"{"server":"s","boot":1,"sequence":7,"previous":"00","time":"2027-01-15T08:00:00Z","event":"revoked","target":"spiffe://x/a","author":"uid:0","comment":"a\nb","denial":null,"serials":[{"serial":"01"}]}"#;
        assert_eq!(
            one_line(line),
            concat!(
                "2027-01-15T08:00:00Z      7 revoked author=uid:0 comment=\"a\\nb\" ",
                "serials=[{\"serial\":\"01\"}] target=spiffe://x/a\n"
            )
        );
        assert_eq!(one_line("no json"), "no json\n");
    }
}
