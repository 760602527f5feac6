//! What one caller has at the doors of gRPC, as rows of the table of limits.

use signet_runtime::{
    bucket::Rate,
    limits::{self, Limit},
    quota::Division,
};

use super::{
    ADMINS_BYTES, AGENTS_BYTES, ALL_READERS, CALLERS_READERS, GUESTS_BYTES, STRANGERS_BYTES, STREAMS,
    line::{AGENTS_CALLS, GUESTS_CALLS, OTHERS_RATE, STRANGERS_CALLS},
};

/// What all of this is to each caller.
pub(crate) fn limits() -> [Limit; 10] {
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
    let begun = |who, what, rate: Rate| {
        let rate = format!("{} at once, then {} each second", rate.burst, rate.per_second);
        row(who, what, rate.clone(), rate)
    };
    let readers = format!("{CALLERS_READERS} of {ALL_READERS}");
    [
        under_way("an agent", AGENTS_BYTES),
        under_way("an agent, by a certificate that does not count", GUESTS_BYTES),
        under_way("strangers of one source", STRANGERS_BYTES),
        under_way("all admins", ADMINS_BYTES),
        calls("an agent", AGENTS_CALLS),
        calls("an agent, by a certificate that does not count", GUESTS_CALLS),
        calls("a stranger", STRANGERS_CALLS),
        begun(
            "whoever has no certificate that counts",
            "calls on one connection",
            OTHERS_RATE,
        ),
        begun("an agent", "trust streams opened", STREAMS),
        row(
            "a caller",
            "answers to GetTrust under way",
            "an equal part".to_owned(),
            readers,
        ),
    ]
}
