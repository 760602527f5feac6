//! The agents that are connected now: what they reported, and what is to be pushed to them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_certs::{authority::AuthorityId, crl::CrlNumber, id::SpiffeId, serial::SerialNumber};
use signet_runtime::sync::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::{
    authority::SpreadReports,
    store::{AgentRow, Store, StoreError},
};

/// An agent counts as live, and so holds back a new authority, this long after its stream broke: it is restarting, not gone.
const LIVE_AFTER_DISCONNECT: Duration = Duration::from_secs(120);
/// More affected pods than this are told as "all".
const MAX_AFFECTED: usize = 1024;
/// A clock that is further off than this is worth a warning.
const SKEW_WARNING: Duration = Duration::from_secs(60);

/// What an agent says it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sequence number of its bundle.
    pub sequence: u64,
    /// CRLs by authority.
    pub crls: Vec<(AuthorityId, CrlNumber, [u8; 32])>,
    /// Current SVIDs by the authority that signed them.
    pub in_use: Vec<(AuthorityId, u32)>,
    /// Pods with a volume on its node.
    pub pod_uids: HashSet<String>,
    /// Its clock minus ours, in milliseconds.
    pub clock_skew_ms: i64,
}

/// Which workloads an agent shall ask about again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affected {
    /// None.
    #[default]
    Nothing,
    /// These pods.
    Pods(HashSet<String>),
    /// Every one.
    All,
}

impl Affected {
    fn add(&mut self, pod_uid: &str) {
        match self {
            Self::All => {}
            Self::Nothing => *self = Self::Pods(HashSet::from([pod_uid.to_owned()])),
            Self::Pods(pods) if pods.len() >= MAX_AFFECTED => *self = Self::All,
            Self::Pods(pods) => {
                pods.insert(pod_uid.to_owned());
            }
        }
    }
}

/// One agent as an admin sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Whether its trust stream is open.
    pub connected: bool,
    /// Its last report.
    pub report: Report,
}

/// Registry of trust streams.
#[derive(Debug)]
pub struct Agents {
    state: Mutex<State>,
    spread: watch::Sender<SpreadReports>,
}

#[derive(Debug, Default)]
struct State {
    next_session: u64,
    agents: HashMap<SpiffeId, Entry>,
    rows: HashMap<SpiffeId, AgentRow>,
    /// Newest certificate that each agent has used.
    used: HashMap<SpiffeId, SerialNumber>,
}

#[derive(Debug)]
struct Entry {
    session: u64,
    node_name: String,
    cluster: String,
    report: Report,
    affected: Affected,
    wake: Arc<Notify>,
    /// Set when the stream broke.
    gone_at: Option<SystemTime>,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            spread: watch::Sender::new(SpreadReports::default()),
        }
    }
}

impl Agents {
    /// Live agents and the sequences they reported, for whoever decides that a bundle has spread.
    #[must_use]
    pub fn spread(&self) -> watch::Receiver<SpreadReports> {
        self.spread.subscribe()
    }

    /// Opens a session; an older one of the same agent ends (its [`Session::next_affected`] returns `None`).
    #[must_use]
    pub fn connect(self: &Arc<Self>, agent: &SpiffeId, cluster: &str, node_name: &str) -> Session {
        let mut state = self.lock();
        state.next_session += 1;
        let session = state.next_session;
        let wake = Arc::new(Notify::new());
        let entry = Entry {
            session,
            node_name: node_name.to_owned(),
            cluster: cluster.to_owned(),
            report: Report::default(),
            affected: Affected::Nothing,
            wake: wake.clone(),
            gone_at: None,
        };
        if let Some(old) = state.agents.insert(agent.clone(), entry) {
            old.wake.notify_one();
        }
        self.publish(&state);
        Session {
            agents: self.clone(),
            agent: agent.clone(),
            session,
            wake,
        }
    }

    /// Names a pod to the agent of its node.
    pub fn pod_affected(&self, cluster: &str, node_name: &str, pod_uid: &str) {
        let mut state = self.lock();
        for entry in state
            .agents
            .values_mut()
            .filter(|e| e.cluster == cluster && e.node_name == node_name)
        {
            entry.affected.add(pod_uid);
            entry.wake.notify_one();
        }
    }

    /// Every agent shall ask about every workload again: a denial was lifted, the rules changed.
    pub fn all_affected(&self) {
        for entry in self.lock().agents.values_mut() {
            entry.affected = Affected::All;
            entry.wake.notify_one();
        }
    }

    /// What is recorded of an agent, from memory where it is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn row(&self, agent: &SpiffeId, store: &dyn Store) -> Result<Option<AgentRow>, StoreError> {
        if let Some(row) = self.lock().rows.get(agent) {
            return Ok(Some(row.clone()));
        }
        let rows = store.agents().await?;
        let mut state = self.lock();
        for row in rows {
            state.rows.entry(row.spiffe_id.clone()).or_insert(row);
        }
        Ok(state.rows.get(agent).cloned())
    }

    /// Keeps what was just recorded of an agent.
    pub fn attested(&self, row: AgentRow) {
        self.lock().rows.insert(row.spiffe_id.clone(), row);
    }

    /// Notes that an agent uses a certificate; false once it has used a newer one. Serials begin with the time they
    /// were made, so a stolen older certificate is worthless from the first use of its successor on (design §4).
    #[must_use]
    pub fn is_newest(&self, agent: &SpiffeId, serial: SerialNumber) -> bool {
        let mut state = self.lock();
        match state.used.get_mut(agent) {
            Some(newest) if serial < *newest => false,
            Some(newest) => {
                *newest = serial;
                true
            }
            None => {
                state.used.insert(agent.clone(), serial);
                true
            }
        }
    }

    /// How many streams are open.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock()
            .agents
            .values()
            .filter(|entry| entry.gone_at.is_none())
            .count()
    }

    /// What is known of one agent.
    #[must_use]
    pub fn status(&self, agent: &SpiffeId) -> Option<AgentStatus> {
        let state = self.lock();
        let entry = state.agents.get(agent)?;
        Some(AgentStatus {
            connected: entry.gone_at.is_none(),
            report: entry.report.clone(),
        })
    }

    /// Forgets agents whose stream has been broken for two minutes. Called about once a minute.
    pub fn forget_gone(&self, now: SystemTime) {
        let mut state = self.lock();
        let live_since = now.checked_sub(LIVE_AFTER_DISCONNECT);
        state.agents.retain(|_, entry| {
            entry
                .gone_at
                .is_none_or(|gone| live_since.is_none_or(|since| gone > since))
        });
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        let agents: BTreeMap<String, u64> = state
            .agents
            .iter()
            .map(|(id, entry)| (id.to_string(), entry.report.sequence))
            .collect();
        self.spread.send_if_modified(|current| {
            let changed = current.agents != agents;
            if changed {
                *current = SpreadReports { agents };
            }
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// One open trust stream.
#[derive(Debug)]
pub struct Session {
    agents: Arc<Agents>,
    agent: SpiffeId,
    session: u64,
    wake: Arc<Notify>,
}

impl Session {
    /// Takes a report in.
    pub fn report(&self, report: Report) {
        let is_off = |report: &Report| report.clock_skew_ms.unsigned_abs() > SKEW_WARNING.as_millis() as u64;
        let mut state = self.agents.lock();
        if let Some(entry) = state
            .agents
            .get_mut(&self.agent)
            .filter(|entry| entry.session == self.session)
        {
            if is_off(&report) && !is_off(&entry.report) {
                tracing::warn!(agent = %self.agent, skew_ms = report.clock_skew_ms, "an agent's clock is off");
            }
            entry.report = report;
            self.agents.publish(&state);
        }
    }

    /// Waits for workloads to ask about again; `None` once a newer stream of the same agent has taken over.
    pub async fn next_affected(&self) -> Option<Affected> {
        loop {
            {
                let mut state = self.agents.lock();
                let entry = state
                    .agents
                    .get_mut(&self.agent)
                    .filter(|entry| entry.session == self.session)?;
                let affected = std::mem::take(&mut entry.affected);
                if affected != Affected::Nothing {
                    return Some(affected);
                }
            }
            self.wake.notified().await;
        }
    }

    /// Marks the stream as broken at `now`. Without it, dropping forgets the agent at once.
    pub fn end(self, now: SystemTime) {
        let mut state = self.agents.lock();
        if let Some(entry) = state
            .agents
            .get_mut(&self.agent)
            .filter(|entry| entry.session == self.session)
        {
            entry.gone_at = Some(now);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.agents.lock();
        let mine = state
            .agents
            .get(&self.agent)
            .is_some_and(|entry| entry.session == self.session && entry.gone_at.is_none());
        if mine {
            state.agents.remove(&self.agent);
            self.agents.publish(&state);
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn too_many_affected_pods_become_all() {
        let mut affected = Affected::default();
        for pod in 0..=MAX_AFFECTED {
            affected.add(&pod.to_string());
        }
        assert_eq!(affected, Affected::All);
    }
}
