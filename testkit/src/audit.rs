//! Lines of the audit log, and that there are some of each kind.

use serde_json::Value;

/// The lines of this action in an audit log. Each action is provoked by a test that says so by this very call, with the name
/// as it stands there: a test of the architecture looks for it.
///
/// # Panics
/// When there is none.
pub fn provoked<'l>(action: &str, lines: &'l [Value]) -> Vec<&'l Value> {
    let of_it: Vec<&Value> = lines.iter().filter(|line| line["event"] == action).collect();
    assert!(
        !of_it.is_empty(),
        "no line of `{action}` among {} lines",
        lines.len()
    );
    of_it
}
