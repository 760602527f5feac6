//! What is known of agents: which are connected and what they reported, what is to be pushed to them, which node each is
//! on, and which of its certificates is the newest.

mod newest;
mod report;
mod rows;
mod sessions;
mod spread;

use std::{sync::Arc, time::SystemTime};

use signet_certs::{id::SpiffeId, serial::SerialNumber};
use tokio::sync::watch;

use self::{newest::Newest, rows::Rows, sessions::Sessions};
pub(crate) use self::{
    report::{Affected, AgentStatus, Report},
    sessions::Session,
};
use crate::{
    authority::SpreadReports,
    store::{AgentRow, Store, StoreError},
};

/// The registry of agents.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    sessions: Arc<Sessions>,
    rows: Rows,
    newest: Newest,
}

impl Agents {
    /// Live agents and the sequences they reported, for whoever decides that a bundle has spread.
    #[must_use]
    pub(crate) fn spread(&self) -> watch::Receiver<SpreadReports> {
        self.sessions.spread()
    }

    /// Opens a session; an older one of the same agent ends (its [`Session::next_affected`] returns `None`).
    #[must_use]
    pub(crate) fn connect(&self, agent: &SpiffeId, cluster: &str, node_name: &str) -> Session {
        self.sessions.connect(agent, cluster, node_name)
    }

    /// Names a pod to the agent of its node.
    pub(crate) fn pod_affected(&self, cluster: &str, node_name: &str, pod_uid: &str) {
        self.sessions.pod_affected(cluster, node_name, pod_uid);
    }

    /// Every agent shall ask about every workload again: a denial was lifted, the rules changed.
    pub(crate) fn all_affected(&self) {
        self.sessions.all_affected();
    }

    /// What is recorded of an agent, from memory where it is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn row(
        &self,
        agent: &SpiffeId,
        store: &dyn Store,
    ) -> Result<Option<AgentRow>, StoreError> {
        self.rows.of(agent, store).await
    }

    /// Keeps what was just recorded of an agent.
    pub(crate) fn attested(&self, row: AgentRow) {
        self.rows.attested(row);
    }

    /// Notes that an agent uses a certificate; false once it has used a newer one. Serials begin with the time they
    /// were made, so a stolen older certificate is worthless from the first use of its successor on (design §4).
    #[must_use]
    pub(crate) fn is_newest(&self, agent: &SpiffeId, serial: SerialNumber) -> bool {
        self.newest.uses(agent, serial)
    }

    /// How many streams are open.
    #[must_use]
    pub(crate) fn connected(&self) -> usize {
        self.sessions.connected()
    }

    /// What is known of one agent.
    #[must_use]
    pub(crate) fn status(&self, agent: &SpiffeId) -> Option<AgentStatus> {
        self.sessions.status(agent)
    }

    /// Forgets agents whose stream has been broken for two minutes. Called about once a minute.
    pub(crate) fn forget_gone(&self, now: SystemTime) {
        self.sessions.forget_gone(now);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    fn agent(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/{name}")).unwrap()
    }

    fn report(sequence: u64) -> Report {
        Report {
            sequence,
            ..Report::default()
        }
    }

    #[test]
    fn a_broken_stream_holds_back_spread_for_two_minutes_then_is_forgotten() {
        let agents = Arc::new(Agents::default());
        let spread = agents.spread();
        let session = agents.connect(&agent("a"), "dev", "node-a");
        session.report(report(4));
        assert_eq!(spread.borrow().confirmed(4), 1);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        session.end(now);
        agents.forget_gone(now + Duration::from_secs(60));
        assert_eq!(spread.borrow().live(), 1);
        agents.forget_gone(now + Duration::from_secs(121));
        assert_eq!(spread.borrow().live(), 0);
    }

    #[tokio::test]
    async fn a_new_stream_of_an_agent_ends_the_old_one_and_keeps_its_own_reports() {
        let agents = Arc::new(Agents::default());
        let old = agents.connect(&agent("a"), "dev", "node-a");
        let new = agents.connect(&agent("a"), "dev", "node-a");
        assert_eq!(old.next_affected().await, None);
        new.report(report(9));
        old.report(report(3));
        drop(old);
        assert_eq!(agents.status(&agent("a")).unwrap().report.sequence, 9);
    }

    #[tokio::test]
    async fn affected_pods_reach_only_the_agent_of_their_node() {
        let agents = Arc::new(Agents::default());
        let a = agents.connect(&agent("a"), "dev", "node-a");
        let b = agents.connect(&agent("b"), "dev", "node-b");
        agents.pod_affected("dev", "node-a", "uid-1");
        assert_eq!(
            a.next_affected().await,
            Some(Affected::Pods(HashSet::from(["uid-1".to_owned()])))
        );
        agents.all_affected();
        assert_eq!(b.next_affected().await, Some(Affected::All));
    }
}
