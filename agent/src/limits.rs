//! What each caller may use of the agent, as docs/limits.md prints it. The rows stand beside the constants that they tell.

use signet_runtime::limits::Limit;
use signet_runtime::telemetry;

use crate::{csi, manager, sockets, streams, unix};

/// Every row, in the order of the page.
pub(crate) fn table() -> Vec<Limit> {
    let mut rows = sockets::settings::limits();
    rows.push(streams::limit());
    rows.extend(unix::limits());
    rows.push(manager::limit());
    rows.extend(csi::limits());
    rows.push(telemetry::limit("signet_agent_log_lines_lost_total"));
    rows
}
