//! Who is denied.

use serde_json::json;
use signet_proto::admin as wire;
use signet_runtime::cli::{Answer, or_dash, when, when_text};
use signet_runtime::table::Table;

use super::table_or;

pub(in crate::cli::admin) fn denials(denials: &[wire::Denial]) -> Answer {
    let mut table = Table::new(&[
        "DENIAL", "KIND", "TARGET", "SINCE", "ENDS", "LIFTED", "BY", "COMMENT",
    ]);
    for denial in denials {
        table.row([
            denial.id.clone(),
            denial.kind.clone(),
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
