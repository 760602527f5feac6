//! What is known of agents: which are connected and what they reported, what is to be pushed to them, which node each is
//! on, and what a certificate of one is worth.

mod in_use;
mod leashes;
mod report;
mod rows;
mod sessions;
mod spread;

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_certs::{
    authority::AuthorityId, crl::CrlNumber, id::SpiffeId, tls::KeyExchange, verify::VerifiedSvid,
};
use tokio::sync::{oneshot, watch};

use self::{in_use::InUse, leashes::Leashes, rows::Rows, sessions::Sessions, spread::Spread};
pub(crate) use self::{
    report::{Affected, AgentStatus, Report},
    rows::AgentNode,
    sessions::Session,
};
use crate::{
    audit::{AuditAction, AuditEvent, AuditLog},
    authority::SpreadReports,
    store::{
        DenialTarget, Generation, Presented, PresentedCertificate, Revoked, Standing, Store, StoreError,
        Subject,
    },
};

/// The trust stream stays open so long to an agent whose certificate has expired: it is public what goes over it.
pub(crate) const STREAM_AFTER_END: Duration = Duration::from_secs(7 * 24 * 3600);
/// Trust streams of agents whose certificates do not count.
const GUESTS: usize = 1024;

/// The registry of agents.
pub(crate) struct Agents {
    store: Arc<dyn Store>,
    audit: AuditLog,
    sessions: Arc<Sessions>,
    /// Streams of those whose certificate does not count: they hear, and what they say moves nothing.
    guests: Arc<Sessions>,
    spread: Arc<Spread>,
    rows: Rows,
    in_use: InUse,
    connections: Leashes,
}

impl Agents {
    /// Of the agents that the store knows.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn Store>, audit: AuditLog) -> Self {
        let spread = Arc::new(Spread::default());
        Self {
            store,
            audit,
            sessions: Arc::new(Sessions::new(Some(spread.clone()))),
            guests: Arc::new(Sessions::new(None)),
            spread,
            rows: Rows::default(),
            in_use: InUse::default(),
            connections: Leashes::default(),
        }
    }

    /// Live agents and the sequences they reported, for whoever decides that a bundle has spread. Nobody is live before the
    /// first [`refresh_spread`](Self::refresh_spread): call it before anybody decides.
    #[must_use]
    pub(crate) fn spread(&self) -> watch::Receiver<SpreadReports> {
        self.spread.subscribe()
    }

    /// The agents that have not reported the bundle of this sequence, or a later one; nobody without one.
    #[must_use]
    pub(crate) fn awaited(&self, sequence: Option<u64>) -> Vec<String> {
        let spread = self.spread.subscribe();
        let reports = spread.borrow();
        let behind = sequence
            .into_iter()
            .flat_map(|sequence| reports.waited_for(sequence));
        let mut behind: Vec<String> = behind.map(ToString::to_string).collect();
        behind.sort_unstable();
        behind
    }

    /// From now on an agent whose own pod `is_gone` (by cluster and UID) is waited for no longer.
    pub(crate) fn watch_pods(&self, is_gone: impl Fn(&str, &str) -> bool + Send + Sync + 'static) {
        self.spread.watch_pods(Box::new(is_gone));
    }

    /// Whether anything has happened since that changes who is waited for.
    pub(crate) fn is_spread_stale(&self) -> bool {
        self.spread.is_dirty()
    }

    /// Stores what agents have reported, all in one go, and asks the store who is live at the earliest time it may be: a clock
    /// that is ahead takes nobody out of those who are waited for. Call it every few seconds, and within one of anything that
    /// happens.
    ///
    /// # Errors
    /// When the store cannot be asked: what was published stays.
    pub(crate) async fn refresh_spread(&self, earliest: SystemTime) -> Result<(), StoreError> {
        let open = || self.sessions.open();
        self.spread.refresh(self.store.as_ref(), open, earliest).await
    }

    /// Opens a session; an older one of the same agent ends (its [`Session::next_affected`] returns `None`).
    #[must_use]
    pub(crate) fn connect(&self, node: &AgentNode) -> Session {
        self.sessions.connect(node)
    }

    /// Opens the session of an agent whose certificate does not count: one for each, beside those that count, and `None` when
    /// there are too many. What it reports moves nothing.
    #[must_use]
    pub(crate) fn connect_guest(&self, agent: &SpiffeId) -> Option<Session> {
        let room = self.guests.connected() < GUESTS || self.guests.status(agent).is_some();
        room.then(|| self.guests.connect(&AgentNode::unknown(agent.clone())))
    }

    /// Names a pod to the agent of its node.
    pub(crate) fn pod_affected(&self, cluster: &str, node_name: &str, pod_uid: &str) {
        self.sessions.pod_affected(cluster, node_name, pod_uid);
    }

    /// An agent shall ask about every workload again.
    pub(crate) fn agent_affected(&self, agent: &str) {
        self.sessions.agent_affected(agent);
    }

    /// Revoked certificates are on no list: until this process ends, an agent that connects asks about every workload again, for it
    /// may hold one of them and have missed the word. True for the first time.
    pub(crate) fn lists_lack(&self) -> bool {
        self.sessions.lists_lack()
    }

    /// Every agent shall ask about every workload again: a denial was lifted, the rules changed.
    pub(crate) fn all_affected(&self) {
        self.sessions.all_affected();
    }

    /// Something concerns agents, and nobody knows which: each asks about every workload again when it connects for the first time.
    pub(crate) fn all_untold(&self) {
        self.sessions.all_untold();
    }

    /// The node of an agent, from memory where it is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn node(&self, agent: &SpiffeId) -> Result<Option<AgentNode>, StoreError> {
        self.rows.of(agent, self.store.as_ref()).await
    }

    /// Keeps what was just recorded of an agent.
    pub(crate) fn attested(&self, node: AgentNode) {
        self.rows.attested(node);
        self.spread.touch();
    }

    /// Asks the store what a certificate is worth that was presented; its end is the caller's to judge. The first use of a
    /// newer one is durable when this returns, and whatever is open by an older one ends. Denials end by the earliest time it
    /// may be.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub(crate) async fn present(
        &self,
        svid: &VerifiedSvid,
        now: SystemTime,
        earliest: SystemTime,
    ) -> Result<Presented, StoreError> {
        let agent = svid.spiffe_id();
        let certificate = PresentedCertificate {
            spiffe_id: agent.clone(),
            authority: svid.authority_id(),
            serial: svid.serial(),
            not_after: svid.not_after(),
            earliest,
        };
        let presented = self.store.present(certificate, now).await?;
        if presented.standing == Standing::Counts && svid.not_after() > now {
            self.in_use.counts(agent, svid.serial(), presented.generation);
        }
        if presented.supersedes {
            self.sessions.end(agent);
            self.superseded(agent, now);
        }
        Ok(presented)
    }

    /// The generation of a certificate that is the newest its agent uses, as far as is known without the store. Enough for a
    /// call that the store judges once more.
    #[must_use]
    pub(crate) fn in_use(&self, svid: &VerifiedSvid) -> Option<Generation> {
        self.in_use.generation(svid.spiffe_id(), svid.serial())
    }

    /// What ends a connection by a certificate of this agent, once the agent is revoked or denied. Take it before the certificate
    /// is judged: what is ordered in between ends the connection then.
    pub(crate) fn leash(&self, agent: &SpiffeId) -> oneshot::Receiver<()> {
        self.connections.add(agent)
    }

    fn superseded(&self, agent: &SpiffeId, now: SystemTime) {
        let Some(times) = self.in_use.superseded(agent, now) else {
            return;
        };
        tracing::warn!(
            %agent,
            times,
            "an agent takes one new certificate after the other: it restarts in a loop, or two processes are this agent"
        );
        let action = AuditAction::AgentSupersededOften {
            agent_id: agent.clone(),
            times: u64::try_from(times).unwrap_or(u64::MAX),
        };
        self.audit.record(AuditEvent::new(now, action));
    }

    /// Ends what agents have open by certificates that count no more after a revocation, whether a list names them or not: their
    /// streams at once, their connections within a second.
    pub(crate) fn after(&self, revoked: &Revoked) {
        let holders = revoked.svids.iter().filter_map(|svid| svid.spiffe_id.clone());
        let mut hit: BTreeSet<SpiffeId> = holders.filter(SpiffeId::is_agent).collect();
        if let Some(denial) = &revoked.denial {
            if let DenialTarget::Id(id) = &denial.target {
                hit.insert(id.clone());
            }
            // A cluster is known by its name here: one too many connects again, and that is all.
            let is_hit = |agent: &SpiffeId, node_name: &str| match &denial.target {
                DenialTarget::Node(node) if !node_name.is_empty() && node.name == node_name => true,
                target => target.hits(&Subject::of_agent(agent)),
            };
            hit.extend(self.sessions.agents(is_hit));
            hit.extend(self.guests.agents(is_hit));
            hit.extend(self.connections.agents(|agent| is_hit(agent, "")));
        }
        for agent in hit.iter().filter(|id| id.is_agent()) {
            self.spread.touch();
            self.in_use.forget(agent);
            self.sessions.end(agent);
            self.guests.end(agent);
            self.connections.cut(agent);
        }
    }

    /// How many streams are open.
    #[must_use]
    pub(crate) fn connected(&self) -> usize {
        self.sessions.connected()
    }

    /// How many of them are over each key exchange.
    #[must_use]
    pub(crate) fn key_exchanges(&self) -> [(KeyExchange, usize); 4] {
        self.sessions.key_exchanges()
    }

    /// What is known of one agent.
    #[must_use]
    pub(crate) fn status(&self, agent: &SpiffeId) -> Option<AgentStatus> {
        self.sessions.status(agent)
    }

    /// Whether it has reported each of these lists, or a later one. What it said before its stream broke counts: it keeps what it has.
    #[must_use]
    pub(crate) fn holds(&self, agent: &SpiffeId, lists: &[(AuthorityId, CrlNumber)]) -> bool {
        self.sessions.holds(agent, lists)
    }

    /// Forgets agents whose stream has been broken for two minutes, and what is known in memory of those that hold no
    /// certificate any more. Called about once a minute.
    pub(crate) fn forget_gone(&self, now: SystemTime) {
        self.sessions.forget_gone(now);
        self.guests.forget_gone(now);
        self.connections.forget_ended();
        let spread = self.spread.subscribe();
        let live = spread.borrow().clone();
        let is_live = |agent: &SpiffeId| live.reported(agent).is_some();
        self.rows.retain(is_live);
        self.in_use.retain(is_live);
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agents").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
