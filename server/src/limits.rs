//! What each caller may use of the server, as docs/limits.md prints it. The rows stand beside the constants that they tell.

use signet_runtime::{limits::Limit, telemetry};

use crate::{
    api::{agent, allowance, listener},
    app, attest, audit,
    config::MAX_LIVE,
    issuer, publisher, store,
};

/// Every row, in the order of the page.
pub(crate) fn table() -> Vec<Limit> {
    let mut rows = store::limits(MAX_LIVE);
    rows.push(publisher::limit());
    rows.extend(attest::limits());
    rows.extend(allowance::limits());
    rows.extend(listener::limits());
    rows.extend(app::limits());
    rows.extend(agent::limits());
    rows.extend(issuer::limits());
    rows.push(audit::limit());
    rows.push(audit::kept());
    rows.push(telemetry::limit("signet_server_log_lines_lost_total"));
    rows
}
