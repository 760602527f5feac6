//! The budget as docs/limits.md prints it.

use signet_runtime::limits::{Limit, time};

use super::queue::PODS_PER_NODE;
use super::{LONGEST_TURN, NODES_WAITING, WAITING};

/// What nodes may have of the calls to their cluster's API server, where those are so many each second.
pub(crate) fn limits(per_second: u32) -> Vec<Limit> {
    let row = |who, what, share: String, cap: String| Limit {
        who,
        what,
        share,
        cap,
        counted: "server::kubernetes::budget",
        metric: "signet_server_refused_total",
    };
    let (parts, of) = (PODS_PER_NODE, PODS_PER_NODE + 1);
    let calls = |who, parts: u8| {
        let share = format!(
            "an equal part of {parts} in {of} of {per_second} each second (`attestation.calls_per_second`)"
        );
        let cap = "what the others leave".to_owned();
        row(who, "calls to its cluster's API server", share, cap)
    };
    vec![
        calls("a node, for its pods", parts),
        calls("a node, for itself", 1),
        row(
            "a node, for its pods or itself",
            "such calls that wait for their turn",
            format!("an equal part of {WAITING}"),
            format!("{NODES_WAITING}, each {} long", time(LONGEST_TURN)),
        ),
    ]
}
