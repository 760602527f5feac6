//! Bounds of the workload sockets.

use std::time::Duration;

use signet_runtime::bucket::Rate;
use signet_runtime::limits::{self, Limit};
use signet_runtime::places::{Bounds, Loses};
use signet_runtime::quota::Division;

use super::counts::METRIC;

/// Most connections of all pods, and of all users, where nobody says how many there is room for.
const CONNECTIONS_OF_ALL: usize = 10_000;

/// Most connections of one pod, over all its volumes, or of one user.
const CONNECTIONS: usize = 64;

/// Most open calls of one pod or one user.
const CALLS: usize = 512;

/// Bytes of requests under way and of messages that are not taken. The longest message is 4 MiB.
const BYTES: Division = Division {
    share: 256 * 1024,
    cap: 8 * 1024 * 1024,
    pool: 40 * 1024 * 1024,
};

/// A fetch over a new connection costs about 15, and 20 more for the connection.
const WORK: Rate = Rate {
    per_second: 1000.0,
    burst: 4000.0,
};

/// Calls that subscribe: as many at once as may be open.
const ATTACHES: Rate = Rate {
    per_second: 32.0,
    burst: 512.0,
};

/// How long a connection may bring more than its caller may send.
const OVER_LIMIT: Duration = Duration::from_secs(60);

/// What a connection costs of it, before it has sent anything.
pub(super) const CONNECT: u32 = 20;

/// Bounds of the workload sockets.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections to the sockets of volumes. An idle one with one watch stream takes about 35 KiB.
    pub connections_of_pods: usize,
    /// Connections to shared sockets; each is two files.
    pub connections_of_users: usize,
    /// Connections of one pod, over all its volumes, or of one user id on the shared socket.
    pub max_connections_per_caller: usize,
    /// Open calls of one pod, or of one user id on the shared socket.
    pub max_streams_per_caller: usize,
    /// Bytes of requests under way and of messages that were sent and not taken. The cap is at least the longest message.
    pub bytes: Division,
    /// Frames of HTTP/2, and headers by the 64 bytes.
    pub work: Rate,
    /// Calls of the Workload API.
    pub attaches: Rate,
    /// How long a connection may go on bringing more frames than its caller may send.
    pub over_limit: Duration,
    /// How long a new connection has to show that it speaks HTTP/2.
    pub handshake_limit: Duration,
    /// How often a silent client is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long it may take to give one.
    pub keep_alive_limit: Duration,
    /// How long a client may take nothing of what it is sent.
    pub stuck_limit: Duration,
    /// How long connections have to finish when a socket is closed.
    pub drain_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_of_pods: CONNECTIONS_OF_ALL,
            connections_of_users: CONNECTIONS_OF_ALL,
            max_connections_per_caller: CONNECTIONS,
            max_streams_per_caller: CALLS,
            bytes: BYTES,
            work: WORK,
            attaches: ATTACHES,
            over_limit: OVER_LIMIT,
            handshake_limit: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(60),
            keep_alive_limit: Duration::from_secs(20),
            stuck_limit: Duration::from_secs(20),
            drain_limit: Duration::from_secs(5),
        }
    }
}

impl Settings {
    pub(super) const fn places(&self, total: usize) -> Bounds {
        Bounds {
            total,
            cap: self.max_connections_per_caller,
            // Whoever connected first has used it the longest, as watch streams do.
            loses: Loses::Newest,
        }
    }
}

/// Rows of the table of limits.
pub(crate) fn limits() -> Vec<Limit> {
    let row = |who, what, share: String, cap: String| Limit {
        who,
        what,
        share,
        cap,
        counted: "agent::sockets::budget",
        metric: METRIC,
    };
    let bytes = |bytes: usize| limits::bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
    let rate = |rate: Rate| format!("{} at once, then {} each second", rate.burst, rate.per_second);
    let equal = |whose: &str| format!("an equal part of what the limit of open files leaves for {whose}");
    vec![
        row("a pod", "connections", equal("pods"), CONNECTIONS.to_string()),
        row(
            "a user of the shared socket",
            "connections",
            equal("users"),
            CONNECTIONS.to_string(),
        ),
        row(
            "a pod, a user of the shared socket",
            "open calls",
            CALLS.to_string(),
            CALLS.to_string(),
        ),
        row(
            "a pod, a user of the shared socket",
            "bytes of requests under way, of names that streams keep, and of messages not taken",
            bytes(BYTES.share),
            bytes(BYTES.cap),
        ),
        row(
            "a pod, a user of the shared socket",
            "work: a frame of HTTP/2 is 1, 64 bytes of headers 1, a request of secret discovery 2, a secret made for it 10; what is beyond waits",
            rate(WORK),
            rate(WORK),
        ),
        row(
            "a connection of a pod or a user",
            "time in which it brings more frames than may be sent",
            limits::time(OVER_LIMIT),
            limits::time(OVER_LIMIT),
        ),
        row(
            "a pod, a user of the shared socket",
            "calls of the Workload API and of secret discovery, and explanations",
            rate(ATTACHES),
            rate(ATTACHES),
        ),
    ]
}
