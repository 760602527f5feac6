//! Whose story a line of the log belongs to: spans of connections, calls and tasks, whose fields stand in front of each line that is
//! written within them. They are few and short, hold nothing secret, and what others chose is bounded.
//!
//! A task that is spawned leaves its span behind; [`spawn`], [`spawn_blocking`] and [`Drain`](crate::drain::Drain) take it along.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinHandle;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span, info_span};

/// The log shows them whatever lines `RUST_LOG` chooses.
pub(crate) const TARGET: &str = module_path!();
/// More of the name of a call tells nobody which it is.
const RPC_BYTES: usize = 64;

/// Connections and calls of this process so far.
static COUNTED: AtomicU64 = AtomicU64::new(0);

fn number() -> u64 {
    COUNTED.fetch_add(1, Ordering::Relaxed) + 1
}

/// The span of one connection: its door, a number of its own in this process, and who is at its other end, as that comes out. Clones are
/// the same; the services behind a door find it with each call.
#[derive(Clone, Debug)]
pub struct Connection(Span);

impl Connection {
    /// One more that has come in at this door.
    #[must_use]
    pub fn new(door: &'static str) -> Self {
        let (number, peer, agent, uid, pod) = (number(), Empty, Empty, Empty, Empty);
        Self(info_span!(parent: None, "connection", door, number, peer, agent, uid, pod))
    }

    /// One more that is made. It outlives what goes on at the moment, so it is no part of that.
    #[must_use]
    pub fn to(peer: impl Display) -> Self {
        Self(info_span!(parent: None, "connection", number = number(), peer = %peer))
    }

    /// Whose other end has this address.
    #[must_use]
    pub fn with(self, peer: impl Display) -> Self {
        self.0.record("peer", display(peer));
        self
    }

    /// Whose other end is of this user, as the system says it.
    #[must_use]
    pub fn of_user(self, uid: u32) -> Self {
        self.0.record("uid", uid);
        self
    }

    /// Whose socket is this pod's.
    #[must_use]
    pub fn of_pod(self, uid: &str) -> Self {
        self.0.record("pod", uid);
        self
    }

    /// The other end has proved to be this agent. Once.
    pub fn proved(&self, agent: impl Display) {
        self.0.record("agent", display(agent));
    }

    /// The span itself, for what is done for it beside its calls.
    #[must_use]
    pub fn span(&self) -> Span {
        self.0.clone()
    }

    /// The span of a call on it, by the call's path.
    #[must_use]
    pub fn call(&self, path: &str) -> Span {
        info_span!(parent: &self.0, "call", rpc = rpc(path), number = number())
    }
}

/// The name of a call; one that nobody could have given to a service of ours is not repeated.
fn rpc(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_name =
        !name.is_empty() && name.len() <= RPC_BYTES && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_name { name } else { "unknown" }
}

/// The span of a task that works for as long as the process does.
#[must_use]
pub fn worker(task: &'static str) -> Span {
    info_span!(parent: None, "worker", task)
}

/// The span of what is done for one cluster, in that of whoever calls.
#[must_use]
pub fn cluster(cluster: &str) -> Span {
    info_span!("attestation", cluster)
}

/// The span of what is done about the authorities of one kind, in that of whoever calls.
#[must_use]
pub fn authorities(kind: &str) -> Span {
    info_span!("authorities", kind)
}

/// The span of one request to the server, in that of whoever calls.
#[must_use]
pub fn request() -> Span {
    info_span!("request", number = number())
}

/// As [`tokio::spawn`], within the span of whoever calls.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task.in_current_span())
}

/// As [`tokio::task::spawn_blocking`], within the span of whoever calls.
pub fn spawn_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

#[cfg(test)]
mod tests {
    use tracing::dispatcher::{get_default, with_default};

    use super::*;
    use crate::drain::Drain;
    use crate::telemetry::captured::Captured;
    use crate::telemetry::{LogFormat, Rarely};

    /// Says something at every turn, and lets others speak in between.
    async fn talk(of: &'static str) {
        for turn in 0..2 {
            tracing::info!(target: "x", of, turn, "said");
            tokio::task::yield_now().await;
        }
    }

    async fn talk_elsewhere(of: &'static str) {
        spawn(talk(of)).await.unwrap();
        let log = get_default(Clone::clone);
        let blocked = move || with_default(&log, || tracing::info!(target: "x", of, "blocked"));
        spawn_blocking(blocked).await.unwrap();
    }

    /// Who, how many lines, and what stands before and behind the number of the story.
    const STORIES: [(&str, usize, &str, &str); 4] = [
        (
            "agent",
            3,
            "connection{door=\"agents\" number=",
            "peer=192.0.2.1:5 agent=spiffe://example.org/signet/agent/a/1}:call{rpc=\"AttestNode\" number=",
        ),
        (
            "admin",
            3,
            "connection{door=\"admin\" number=",
            "uid=7}:call{rpc=\"Revoke\" number=",
        ),
        (
            "pod",
            2,
            "connection{door=\"workload\" number=",
            "pod=\"dd4c\"}: x: ",
        ),
        ("worker", 2, "worker{task=\"publisher\"}", ": x: "),
    ];

    #[tokio::test]
    async fn what_goes_on_at_once_can_be_told_apart() {
        let log = Captured::new(LogFormat::Text, "", Rarely::default());
        let agent = Connection::new("agents").with("192.0.2.1:5");
        agent.proved("spiffe://example.org/signet/agent/a/1");
        let admin = Connection::new("admin").of_user(7);
        let pod = Connection::new("workload").of_pod("dd4c");
        let drain = Drain::new();
        let _ = tokio::join!(
            talk_elsewhere("agent").instrument(agent.call("/signet.agent.v1.Agent/AttestNode")),
            talk_elsewhere("admin").instrument(admin.call("/signet.admin.v1.Admin/Revoke")),
            drain.spawn(talk("pod").instrument(pod.span())),
            drain.spawn_worker("publisher", talk("worker")),
        );
        let lines = log.lines();
        let of = |who: &str| {
            lines
                .iter()
                .filter(|line| line.contains(&format!("of=\"{who}\"")))
                .collect::<Vec<_>>()
        };
        let mut numbers = std::collections::BTreeSet::new();
        for (who, count, begins, goes_on) in STORIES {
            let told = of(who);
            assert_eq!(told.len(), count, "{who}: {lines:#?}");
            for line in &told {
                let (_, story) = line.split_once(begins).unwrap_or_else(|| panic!("{who}: {line}"));
                let number = story.chars().take_while(char::is_ascii_digit).collect::<String>();
                assert!(
                    story[number.len()..].trim_start().starts_with(goes_on),
                    "{who}: {line}"
                );
                numbers.insert((who, number));
            }
        }
        let own: std::collections::BTreeSet<_> = numbers.iter().map(|(_, number)| number).collect();
        assert_eq!(
            (numbers.len(), own.len()),
            (4, 4),
            "each has a number of its own: {numbers:?}"
        );
        // The first words of all came before the second of any.
        let turns = lines
            .iter()
            .take(4)
            .filter(|line| line.contains("turn=0"))
            .count();
        assert_eq!(turns, 4, "{lines:#?}");
    }

    #[test]
    fn the_name_of_a_call_is_a_name() {
        assert_eq!(rpc("/signet.agent.v1.Agent/SyncTrust"), "SyncTrust");
        let long = format!("/x/{}", "y".repeat(65));
        for path in ["", "/", "/x/", "/x/a b", "/x/\n", "/x/ä", long.as_str()] {
            assert_eq!(rpc(path), "unknown", "{path:?}");
        }
    }
}
