//! Trust streams: one session for each agent, a newer one ends the older.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_certs::id::SpiffeId;
use signet_runtime::sync::Mutex;
use tokio::sync::Notify;

use super::{
    report::{Affected, AgentStatus, Report},
    rows::AgentNode,
    spread::Spread,
};

/// An agent's last report is shown so long after its stream broke: it is restarting, not gone.
const SHOWN_AFTER_DISCONNECT: Duration = Duration::from_secs(120);

/// The agents with a stream, or with one that broke a moment ago.
#[derive(Debug)]
pub(super) struct Sessions {
    state: Mutex<State>,
    /// Where reports go; what is said over sessions without is not taken in.
    spread: Option<Arc<Spread>>,
}

#[derive(Debug, Default)]
struct State {
    last_session: u64,
    /// Some revoked certificates are on no list.
    lists_lack: bool,
    agents: HashMap<SpiffeId, Entry>,
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

impl State {
    /// The entry of an agent, as long as this session is its newest.
    fn of_session(&mut self, agent: &SpiffeId, session: u64) -> Option<&mut Entry> {
        self.agents
            .get_mut(agent)
            .filter(|entry| entry.session == session)
    }
}

impl Sessions {
    pub(super) fn new(spread: Option<Arc<Spread>>) -> Self {
        Self {
            state: Mutex::default(),
            spread,
        }
    }

    pub(super) fn connect(self: &Arc<Self>, node: &AgentNode) -> Session {
        let mut state = self.state.lock();
        state.last_session += 1;
        let session = state.last_session;
        let wake = Arc::new(Notify::new());
        // What was named to a broken stream was not heard, and what is on no list nothing else tells.
        let unheard = state.agents.get_mut(&node.spiffe_id);
        let unheard = unheard
            .map(|old| std::mem::take(&mut old.affected))
            .unwrap_or_default();
        let affected = if state.lists_lack { Affected::All } else { unheard };
        let entry = Entry {
            session,
            node_name: node.node_name.clone(),
            cluster: node.cluster.clone(),
            report: Report::default(),
            affected,
            wake: wake.clone(),
            gone_at: None,
        };
        if let Some(old) = state.agents.insert(node.spiffe_id.clone(), entry) {
            old.wake.notify_one();
        }
        Session {
            sessions: self.clone(),
            agent: node.spiffe_id.clone(),
            session,
            wake,
        }
    }

    pub(super) fn pod_affected(&self, cluster: &str, node_name: &str, pod_uid: &str) {
        let mut state = self.state.lock();
        for entry in state
            .agents
            .values_mut()
            .filter(|e| e.cluster == cluster && e.node_name == node_name)
        {
            entry.affected.add(pod_uid);
            entry.wake.notify_one();
        }
    }

    pub(super) fn agent_affected(&self, agent: &str) {
        let mut state = self.state.lock();
        let entry = state.agents.iter_mut().find(|(id, _)| id.as_str() == agent);
        if let Some((_, entry)) = entry {
            entry.affected = Affected::All;
            entry.wake.notify_one();
        }
    }

    pub(super) fn lists_lack(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().lists_lack, true)
    }

    pub(super) fn all_affected(&self) {
        for entry in self.state.lock().agents.values_mut() {
            entry.affected = Affected::All;
            entry.wake.notify_one();
        }
    }

    /// Ends the session of an agent.
    pub(super) fn end(&self, agent: &SpiffeId) {
        let mut state = self.state.lock();
        if let Some(ended) = state.agents.remove(agent) {
            ended.wake.notify_one();
        }
    }

    pub(super) fn connected(&self) -> usize {
        self.state
            .lock()
            .agents
            .values()
            .filter(|entry| entry.gone_at.is_none())
            .count()
    }

    pub(super) fn status(&self, agent: &SpiffeId) -> Option<AgentStatus> {
        let state = self.state.lock();
        let entry = state.agents.get(agent)?;
        Some(AgentStatus {
            connected: entry.gone_at.is_none(),
            report: entry.report.clone(),
        })
    }

    pub(super) fn forget_gone(&self, now: SystemTime) {
        let mut state = self.state.lock();
        let live_since = now.checked_sub(SHOWN_AFTER_DISCONNECT);
        state.agents.retain(|_, entry| {
            entry
                .gone_at
                .is_none_or(|gone| live_since.is_none_or(|since| gone > since))
        });
    }
}

/// One open trust stream.
#[derive(Debug)]
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    agent: SpiffeId,
    session: u64,
    wake: Arc<Notify>,
}

impl Session {
    /// Takes a report in.
    pub(crate) fn report(&self, report: Report) {
        let Some(spread) = &self.sessions.spread else {
            return;
        };
        let mut state = self.sessions.state.lock();
        if let Some(entry) = state.of_session(&self.agent, self.session) {
            if report.clock_is_off() && !entry.report.clock_is_off() {
                tracing::warn!(agent = %self.agent, skew_ms = report.clock_skew_ms, "an agent's clock is off");
            }
            // Under the lock, so that reports are kept in the order in which they came.
            spread.reported(&self.agent, report.confirmed);
            entry.report = report;
        }
    }

    /// Shows that the agent reports a list that it does not prove.
    pub(crate) fn unproven(&self, alarm: &str) {
        let mut state = self.sessions.state.lock();
        if let Some(entry) = state.of_session(&self.agent, self.session) {
            alarm.clone_into(&mut entry.report.unproven);
        }
    }

    /// Waits for workloads to ask about again; `None` once a newer stream or certificate of the same agent has taken over, or
    /// it was revoked.
    pub(crate) async fn next_affected(&self) -> Option<Affected> {
        loop {
            {
                let mut state = self.sessions.state.lock();
                let entry = state.of_session(&self.agent, self.session)?;
                let affected = std::mem::take(&mut entry.affected);
                if affected != Affected::Nothing {
                    return Some(affected);
                }
            }
            self.wake.notified().await;
        }
    }

    /// Marks the stream as broken at `now`. Without it, dropping forgets the agent at once.
    pub(crate) fn end(self, now: SystemTime) {
        let mut state = self.sessions.state.lock();
        if let Some(entry) = state.of_session(&self.agent, self.session) {
            entry.gone_at = Some(now);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.sessions.state.lock();
        let mine = state
            .agents
            .get(&self.agent)
            .is_some_and(|entry| entry.session == self.session && entry.gone_at.is_none());
        if mine {
            state.agents.remove(&self.agent);
        }
    }
}
