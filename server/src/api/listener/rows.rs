//! What one caller has at the agents' door, as rows of the table of limits.

use signet_runtime::{bucket::Rate, limits::Limit};

use super::{
    handshakes,
    places::{CONNECTIONS_PER_AGENT, CONNECTIONS_PER_GUEST},
};
use crate::api::allowance::STRANGERS_PER_SOURCE;

fn rate(rate: Rate) -> String {
    format!("{} at once, then {} each second", rate.burst, rate.per_second)
}

/// What all of this is to each caller.
pub(crate) fn limits() -> [Limit; 7] {
    let row = |who, what, counted, share: String, cap: String| Limit {
        who,
        what,
        share,
        cap,
        counted,
        metric: "signet_server_refused_total",
    };
    let open = |who, counted, cap: usize| {
        let what = "open connections at the agents' door";
        row(who, what, counted, "an equal part".to_owned(), cap.to_string())
    };
    let begun = |who, what, rate: Rate| {
        row(
            who,
            what,
            "server::api::listener::handshakes",
            self::rate(rate),
            self::rate(rate),
        )
    };
    [
        open("an agent", "server::api::listener::places", CONNECTIONS_PER_AGENT),
        open(
            "an agent, by a certificate that does not count",
            "server::api::listener::places",
            CONNECTIONS_PER_GUEST,
        ),
        open(
            "strangers of one source",
            "server::api::listener::places",
            STRANGERS_PER_SOURCE,
        ),
        row(
            "strangers of one source",
            "handshakes without an agent's certificate",
            "server::api::listener::handshakes",
            rate(handshakes::UNPROVEN),
            format!(
                "{}; beyond that {} wait",
                rate(handshakes::UNPROVEN),
                handshakes::WAITING
            ),
        ),
        begun("an agent", "connections opened", handshakes::CONNECTS),
        row(
            "a source at which agents have proved themselves",
            "handshakes under way once its strangers have used up theirs",
            "server::api::listener::handshakes",
            "an equal part".to_owned(),
            handshakes::RESERVE_PER_SOURCE.to_string(),
        ),
        begun(
            "a source at which agents have proved themselves",
            "handshakes of that reserve; beyond that they wait",
            handshakes::RESERVED,
        ),
    ]
}
