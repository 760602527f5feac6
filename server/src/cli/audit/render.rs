//! What `audit verify` says.

use serde_json::json;
use signet_runtime::cli::Answer;

use crate::audit::verify::{ServerLog, Verdict};

/// `is_pinned`: somebody has said whose heads count.
pub(super) fn verdict(verdict: &Verdict, is_pinned: bool) -> Answer {
    let count = verdict.faults.count();
    let mut text = String::new();
    for fault in verdict.faults.told() {
        text.push_str(&format!("{fault}\n"));
    }
    let told = verdict.faults.told().len() as u64;
    if told < count {
        text.push_str(&format!("and {} more\n", count - told));
    }
    for half in &verdict.halves {
        text.push_str(&format!(
            "{half}: half a line: the server was killed while it wrote it, and wrote all of it again if it has run since\n"
        ));
    }
    for server in &verdict.servers {
        text.push_str(&log(server));
    }
    if !is_pinned && !verdict.servers.is_empty() {
        text.push_str(
            "The key is the one that the heads themselves name. That it is the server's, --server or --key shows; see `audit key`.\n",
        );
    }
    text.push_str(if count == 0 { "whole\n" } else { "not whole\n" });
    let json = json!({
        "whole": count == 0,
        "key_pinned": is_pinned,
        "servers": verdict.servers,
        "half_lines": verdict.halves,
        "faults": verdict.faults.told(),
        "fault_count": count,
    });
    let problem = match count {
        0 => None,
        1 => Some("the audit log is not whole: 1 fault".to_owned()),
        _ => Some(format!("the audit log is not whole: {count} faults")),
    };
    Answer { json, text, problem }
}

fn log(log: &ServerLog) -> String {
    let repeated = match log.repeated {
        0 => String::new(),
        repeated => format!(", and {repeated} of them again"),
    };
    let unsigned = log.last.saturating_sub(log.vouched_to.unwrap_or_default());
    let vouched = match log.vouched_to {
        None => "for nothing".to_owned(),
        Some(_) if unsigned == 0 => "for all of it".to_owned(),
        Some(to) => format!("up to sequence {to}, not for the {unsigned} after it"),
    };
    let before = match log.first {
        0 | 1 => "",
        _ => "; what came before is in none of these files",
    };
    let mut text = format!(
        "server  {}\n  lines {}, sequences {} to {}{repeated}{before}\n  time  {} to {}, boots {} to {}\n  heads {}, which vouch {vouched}\n",
        log.server,
        log.lines,
        log.first,
        log.last,
        log.first_time,
        log.last_time,
        log.first_boot,
        log.last_boot,
        log.heads
    );
    for key in &log.keys {
        text.push_str(&format!("  key   {key}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use signet_testkit::golden;

    use super::*;
    use crate::audit::verify::sample;

    /// docs/operating.md shows the same texts.
    #[test]
    fn verdicts_are_as_people_have_read_them_and_as_the_documents_show_them() {
        let documents = include_str!("../../../../docs/operating.md");
        for (name, found, is_pinned) in [
            ("audit_verify", sample::whole(), true),
            ("audit_verify_not_whole", sample::edited(), false),
        ] {
            let text = verdict(&found, is_pinned).text;
            golden(env!("CARGO_MANIFEST_DIR"), name, &text);
            assert!(
                documents.contains(&text),
                "docs/operating.md does not show\n{text}"
            );
        }
    }
}
