//! Trust streams: one session for each agent, a newer one ends the older. What one agent says is behind a lock of its own; the
//! lock over all is taken when a stream begins or ends, and by whoever looks for one.

mod session;
mod unheard;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_certs::{authority::AuthorityId, crl::CrlNumber, id::SpiffeId, tls::KeyExchange};
use signet_runtime::sync::Mutex;
use tokio::sync::Notify;

use super::{
    report::{Affected, AgentStatus, Report},
    rows::AgentNode,
    spread::Spread,
};
pub(crate) use session::Session;
use unheard::Unheard;

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
    agents: HashMap<SpiffeId, Arc<Entry>>,
    unheard: Unheard,
    /// Who is on a node, by its cluster and name.
    nodes: HashMap<(String, String), Vec<SpiffeId>>,
    /// How many streams are open.
    connected: usize,
}

/// One session. Whoever holds the lock over all may take this one, never the other way round.
#[derive(Debug)]
struct Entry {
    node: (String, String),
    said: Mutex<Said>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Said {
    report: Report,
    key_exchange: Option<KeyExchange>,
    affected: Affected,
    /// Set when the stream broke.
    gone_at: Option<SystemTime>,
    /// A newer session has taken over, or the agent may have none.
    is_over: bool,
}

impl Entry {
    fn affect(&self, affected: impl FnOnce(&mut Affected)) {
        affected(&mut self.said.lock().affected);
        self.wake.notify_one();
    }

    /// Ends it; what it has not been told yet, and whether its stream was open.
    fn take_over(&self) -> (Affected, bool) {
        let mut said = self.said.lock();
        said.is_over = true;
        self.wake.notify_one();
        (std::mem::take(&mut said.affected), said.gone_at.is_none())
    }
}

impl State {
    fn enter(&mut self, agent: &SpiffeId, entry: Arc<Entry>) {
        if !entry.node.1.is_empty() {
            let on_node = self.nodes.entry(entry.node.clone()).or_default();
            on_node.push(agent.clone());
        }
        self.agents.insert(agent.clone(), entry);
        self.connected += 1;
    }

    fn leave(&mut self, agent: &SpiffeId) -> Affected {
        let Some(entry) = self.agents.remove(agent) else {
            return Affected::Nothing;
        };
        if let Some(on_node) = self.nodes.get_mut(&entry.node) {
            on_node.retain(|other| other != agent);
            if on_node.is_empty() {
                self.nodes.remove(&entry.node);
            }
        }
        let (unheard, was_open) = entry.take_over();
        self.connected -= usize::from(was_open);
        unheard
    }

    /// Ends the session of an agent; what it has not heard waits for its next one.
    fn send_away(&mut self, agent: &SpiffeId) {
        if !self.agents.contains_key(agent) {
            return;
        }
        let unheard = self.leave(agent);
        self.unheard.left(agent, unheard);
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
        let unheard = state.leave(&node.spiffe_id);
        let affected = state.unheard.returned(&node.spiffe_id, unheard);
        let entry = Arc::new(Entry {
            node: (node.cluster.clone(), node.node_name.clone()),
            said: Mutex::new(Said {
                affected,
                ..Said::default()
            }),
            wake: Notify::new(),
        });
        state.enter(&node.spiffe_id, entry.clone());
        self.touch();
        Session {
            sessions: self.clone(),
            agent: node.spiffe_id.clone(),
            entry,
        }
    }

    /// Who is connected has changed.
    fn touch(&self) {
        if let Some(spread) = &self.spread {
            spread.touch();
        }
    }

    pub(super) fn pod_affected(&self, cluster: &str, node_name: &str, pod_uid: &str) {
        let mut state = self.state.lock();
        state.unheard.named();
        let on_node = state.nodes.get(&(cluster.to_owned(), node_name.to_owned()));
        let entries = on_node.into_iter().flatten();
        entries
            .filter_map(|agent| state.agents.get(agent))
            .for_each(|entry| entry.affect(|affected| affected.add(pod_uid)));
    }

    pub(super) fn agent_affected(&self, agent: &str) {
        let Ok(agent) = SpiffeId::parse(agent) else {
            return;
        };
        let mut state = self.state.lock();
        if let Some(entry) = state.agents.get(&agent) {
            entry.affect(|affected| *affected = Affected::All);
        } else {
            state.unheard.all_of(&agent);
        }
    }

    pub(super) fn lists_lack(&self) -> bool {
        self.state.lock().unheard.lists_lack()
    }

    pub(super) fn all_affected(&self) {
        let mut state = self.state.lock();
        state.unheard.named();
        for entry in state.agents.values() {
            entry.affect(|affected| *affected = Affected::All);
        }
    }

    pub(super) fn all_untold(&self) {
        self.state.lock().unheard.untold();
    }

    /// Ends the session of an agent.
    pub(super) fn end(&self, agent: &SpiffeId) {
        self.state.lock().send_away(agent);
    }

    /// The agents with a stream, or with one that broke a moment ago, of which this is so by ID and name of the node.
    pub(super) fn agents(&self, wanted: impl Fn(&SpiffeId, &str) -> bool) -> Vec<SpiffeId> {
        let state = self.state.lock();
        let agents = state.agents.iter();
        let wanted = agents.filter(|(agent, entry)| wanted(agent, &entry.node.1));
        wanted.map(|(agent, _)| agent.clone()).collect()
    }

    /// The agents whose streams are open.
    pub(super) fn open(&self) -> HashSet<SpiffeId> {
        let state = self.state.lock();
        let agents = state.agents.iter();
        let open = agents.filter(|(_, entry)| entry.said.lock().gone_at.is_none());
        open.map(|(agent, _)| agent.clone()).collect()
    }

    pub(super) fn connected(&self) -> usize {
        self.state.lock().connected
    }

    pub(super) fn status(&self, agent: &SpiffeId) -> Option<AgentStatus> {
        let entry = self.entry(agent)?;
        let said = entry.said.lock();
        Some(AgentStatus {
            connected: said.gone_at.is_none(),
            key_exchange: said.key_exchange.filter(|_| said.gone_at.is_none()),
            report: said.report.clone(),
        })
    }

    pub(super) fn holds(&self, agent: &SpiffeId, lists: &[(AuthorityId, CrlNumber)]) -> bool {
        let Some(entry) = self.entry(agent) else {
            return lists.is_empty();
        };
        let said = entry.said.lock();
        lists.iter().all(|(authority, number)| {
            let mut held = said.report.crls.iter();
            held.any(|(of, held, _)| of == authority && held >= number)
        })
    }

    /// How many of the streams that are open are over each.
    pub(super) fn key_exchanges(&self) -> [(KeyExchange, usize); 4] {
        let state = self.state.lock();
        let open = state.agents.values().filter_map(|entry| {
            let said = entry.said.lock();
            said.key_exchange.filter(|_| said.gone_at.is_none())
        });
        let mut counts = KeyExchange::ALL.map(|group| (group, 0));
        for had in open {
            let mut counts = counts.iter_mut();
            if let Some((_, count)) = counts.find(|(group, _)| *group == had) {
                *count += 1;
            }
        }
        counts
    }

    pub(super) fn forget_gone(&self, now: SystemTime) {
        let live_since = now.checked_sub(SHOWN_AFTER_DISCONNECT);
        let is_forgotten = |entry: &Entry| {
            let gone_at = entry.said.lock().gone_at;
            gone_at.is_some_and(|gone| live_since.is_some_and(|since| gone <= since))
        };
        let mut state = self.state.lock();
        let agents = state.agents.iter();
        let forgotten: Vec<_> = agents
            .filter(|(_, entry)| is_forgotten(entry))
            .map(|(agent, _)| agent.clone())
            .collect();
        for agent in forgotten {
            state.send_away(&agent);
        }
        state.unheard.forget(now);
    }

    fn entry(&self, agent: &SpiffeId) -> Option<Arc<Entry>> {
        self.state.lock().agents.get(agent).cloned()
    }
}
