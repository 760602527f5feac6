//! What one caller has at the doors of gRPC, as rows of the table of limits.

use signet_runtime::{
    limits::{self, Limit},
    quota::Division,
};

use super::{
    ADMINS_BYTES, AGENTS_BYTES, AGENTS_CALLS, ALL_READERS, CALLERS_READERS, OTHERS_BYTES, OTHERS_CALLS,
    STREAMS,
};

/// What all of this is to each caller.
pub(crate) fn limits() -> [Limit; 7] {
    let row = |who, what, share: String, cap: String| Limit {
        who,
        what,
        share,
        cap,
        counted: "server::api::allowance",
        metric: "signet_server_refused_total",
    };
    let size = |bytes: usize| limits::bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
    let under_way = |who, division: Division| {
        let what = "bytes of requests and answers under way";
        row(who, what, size(division.share), size(division.cap))
    };
    let calls = |who, calls: usize| {
        row(
            who,
            "calls under way on one connection",
            calls.to_string(),
            calls.to_string(),
        )
    };
    let streams = format!(
        "{} at once, then {} each second",
        STREAMS.burst, STREAMS.per_second
    );
    let readers = format!("{CALLERS_READERS} of {ALL_READERS}");
    [
        under_way("an agent", AGENTS_BYTES),
        under_way("strangers of one source", OTHERS_BYTES),
        under_way("all admins", ADMINS_BYTES),
        calls("an agent", AGENTS_CALLS),
        calls("a stranger", OTHERS_CALLS),
        row("an agent", "trust streams opened", streams.clone(), streams),
        row(
            "a caller",
            "answers to GetTrust under way",
            "an equal part".to_owned(),
            readers,
        ),
    ]
}
