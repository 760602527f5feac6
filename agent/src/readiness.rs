//! What keeps the agent from being ready. While its sockets serve, workloads have what they were given, whatever happens
//! to the server; so only the start and the end take away `/ready`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::time::rfc3339;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::ready::{Condition, Readiness};
use tokio::sync::watch;
use tokio::time::interval;

use crate::node::NodeState;
use crate::server_client::sync::Connection;
use crate::server_client::trust::TrustState;

signet_runtime::reasons! {
    STARTING = Serve "starting", "the sockets of workloads are not open yet";
    STOPPING = Serve "stopping", "the agent was told to end, or a part of it has; the log says which";
    TRUST_NOT_BELIEVED = Issue "trust_not_believed",
        "nothing is believed of the trust domain yet, or for a minute the server's last bundle is not; what was believed before stays in force";
    NODE_NOT_ATTESTED = Issue "node_not_attested",
        "the agent has no valid certificate of its own: its token, the server, or a denial; the detail says which";
    SERVER_AWAY = Issue "server_away",
        "no trust stream to the server is open: workloads keep what they have, new ones wait; lists arrive late if the server answers, else not";
    SERVER_NOT_ISSUING = Issue "server_not_issuing",
        "the server says that it cannot issue: its table says what its reasons mean; workloads keep what they have, new ones wait";
}

/// How often the agent's own certificate is held against the clock.
const LOOK: Duration = Duration::from_secs(5);

/// What is looked at.
pub(crate) struct Watched {
    /// Tells whether the certificate has ended.
    pub clock: Arc<dyn Clock>,
    /// The agent's own certificate.
    pub node: watch::Receiver<NodeState>,
    /// What is believed.
    pub trust: watch::Receiver<Option<Arc<TrustState>>>,
    /// How it stands with the server.
    pub connection: watch::Receiver<Connection>,
}

/// Keeps the conditions as what is watched is, until the drain starts. What stands now stands when this returns.
pub(crate) fn start(watched: Watched, readiness: &Readiness, drain: &Drain) {
    let look = Look {
        watched,
        trust: readiness.condition(TRUST_NOT_BELIEVED),
        node: readiness.condition(NODE_NOT_ATTESTED),
        server: readiness.condition(SERVER_AWAY),
        not_issuing: readiness.condition(SERVER_NOT_ISSUING),
    };
    look.all();
    drain.spawn_vital("readiness", look.run(drain.clone()));
}

struct Look {
    watched: Watched,
    trust: Condition,
    node: Condition,
    server: Condition,
    not_issuing: Condition,
}

impl Look {
    async fn run(mut self, drain: Drain) {
        let mut tick = interval(LOOK);
        loop {
            tokio::select! {
                () = drain.signalled() => return,
                _ = tick.tick() => {}
                Ok(()) = self.watched.node.changed() => {}
                Ok(()) = self.watched.trust.changed() => {}
                Ok(()) = self.watched.connection.changed() => {}
            }
            self.all();
        }
    }

    fn all(&self) {
        let believed = self.watched.trust.borrow().is_some();
        self.trust.set((!believed).then(String::new));
        let connection = self.watched.connection.borrow().clone();
        self.node.set(not_attested(
            &self.watched.node.borrow(),
            self.watched.clock.now(),
        ));
        let reasons = connection.not_issuing.join(", ");
        self.not_issuing.set((!reasons.is_empty()).then_some(reasons));
        self.server
            .set((!connection.connected).then_some(connection.problem));
    }
}

/// A failed renewal is none of it while the certificate is valid.
fn not_attested(node: &NodeState, now: SystemTime) -> Option<String> {
    let ended = match &node.identity {
        None => String::new(),
        Some(identity) if identity.not_after < now => {
            format!("its certificate ended at {}", rfc3339(identity.not_after))
        }
        Some(_) => return None,
    };
    let parts = [ended, node.problem.clone()];
    Some(
        parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": "),
    )
}

#[cfg(test)]
mod tests;
