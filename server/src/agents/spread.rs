//! What the live agents hold, for whoever decides that a bundle has spread. Who is live is the store's to say, connected or
//! not, before a restart and after it: "nobody has spoken" is not "everybody agreed".

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use signet_certs::id::SpiffeId;
use signet_runtime::sync::Mutex;
use tokio::sync::watch;

use crate::authority::{Holds, InUse, SpreadReports};
use crate::store::{LiveAgent, Store, StoreError};

/// A pod that attested so short a time ago may be one that its cluster's watch does not show yet.
const SHOWN_AFTER: Duration = Duration::from_secs(60);

/// Whether a synced watch of this cluster shows no pod with this UID.
type IsGone = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// The reports as last published, and those that are not stored yet.
pub(super) struct Spread {
    published: watch::Sender<SpreadReports>,
    unsaved: Mutex<HashMap<SpiffeId, u64>>,
    /// What agents have said since this process started of the authorities that their workloads' certificates are of. It stays true while
    /// one is away: nobody gives it others of an authority that signs no more.
    in_use: Mutex<Said>,
    /// Counts what has happened that may change who is waited for.
    happened: AtomicU64,
    /// The same, when it was last looked; what is published is of then.
    looked: AtomicU64,
    is_gone: OnceLock<IsGone>,
}

/// Reports of what is in use, each with the round of looks at the store in which it came.
#[derive(Default)]
struct Said {
    round: u64,
    of: HashMap<SpiffeId, (u64, InUse)>,
}

impl Said {
    /// Forgets those of agents that are not wanted, and none that came since this round began: the store was asked before.
    fn retain(&mut self, round: u64, wanted: impl Fn(&SpiffeId) -> bool) {
        self.of.retain(|agent, (said, _)| *said >= round || wanted(agent));
    }
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            published: watch::Sender::new(SpreadReports::default()),
            unsaved: Mutex::default(),
            in_use: Mutex::default(),
            happened: AtomicU64::new(1),
            looked: AtomicU64::new(0),
            is_gone: OnceLock::new(),
        }
    }
}

impl Spread {
    pub(super) fn subscribe(&self) -> watch::Receiver<SpreadReports> {
        self.published.subscribe()
    }

    /// From now on pods are looked for: an agent whose own is gone is waited for no longer.
    pub(super) fn watch_pods(&self, is_gone: IsGone) {
        // A second watch would be a second attestor: there is one.
        drop(self.is_gone.set(is_gone));
        self.touch();
    }

    /// An agent says that it holds the bundle of this sequence. What is stored and published already changes nothing, unless
    /// something has happened since that may.
    pub(super) fn reported(&self, agent: &SpiffeId, sequence: u64) {
        if !self.is_dirty() && self.published.borrow().reported(agent) == Some(sequence) {
            return;
        }
        self.unsaved.lock().insert(agent.clone(), sequence);
        self.touch();
    }

    /// What an agent's workloads use, as of the bundle that it has reported; nothing while it does not know.
    pub(super) fn uses(&self, agent: &SpiffeId, in_use: Option<InUse>) {
        let mut known = self.in_use.lock();
        let round = known.round;
        let before = match in_use.clone() {
            Some(in_use) => known.of.insert(agent.clone(), (round, in_use)),
            None => known.of.remove(agent),
        };
        if before.map(|(_, before)| before) != in_use {
            self.touch();
        }
    }

    /// Agents came, went, or lost what they had.
    pub(super) fn touch(&self) {
        self.happened.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether anything has happened since the last refresh.
    pub(super) fn is_dirty(&self) -> bool {
        self.happened.load(Ordering::SeqCst) != self.looked.load(Ordering::SeqCst)
    }

    /// Stores what was reported, all in one go, and publishes who is live with what each holds.
    pub(super) async fn refresh(
        &self,
        store: &dyn Store,
        open: impl Fn() -> HashSet<SpiffeId>,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let happened = self.happened.load(Ordering::SeqCst);
        self.try_refresh(store, open, now).await?;
        self.looked.store(happened, Ordering::SeqCst);
        Ok(())
    }

    async fn try_refresh(
        &self,
        store: &dyn Store,
        open: impl Fn() -> HashSet<SpiffeId>,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let unsaved: Vec<_> = self.unsaved.lock().drain().collect();
        if !unsaved.is_empty()
            && let Err(error) = store.record_reports(unsaved.clone()).await
        {
            let mut waiting = self.unsaved.lock();
            for (agent, sequence) in unsaved {
                waiting.entry(agent).or_insert(sequence);
            }
            return Err(error);
        }
        let round = self.next_round();
        let live = store.live_agents(now).await?;
        let open = open();
        let next = self.sorted(live, round, &open, now);
        self.published.send_if_modified(|current| {
            let changed = *current != next;
            if changed {
                *current = next;
            }
            changed
        });
        Ok(())
    }

    /// What is reported from now on is not in what the store is asked for next.
    pub(super) fn next_round(&self) -> u64 {
        let mut in_use = self.in_use.lock();
        in_use.round += 1;
        in_use.round
    }

    #[cfg(test)]
    pub(super) fn known_uses(&self) -> Vec<SpiffeId> {
        self.in_use.lock().of.keys().cloned().collect()
    }

    /// Who is waited for, and whose workloads go on without anybody who could hear: while an agent is replaced they use what they have.
    pub(super) fn sorted(
        &self,
        live: Vec<LiveAgent>,
        round: u64,
        open: &HashSet<SpiffeId>,
        now: SystemTime,
    ) -> SpreadReports {
        let mut in_use = self.in_use.lock();
        let (mut present, mut leaving) = (HashMap::new(), HashMap::new());
        for agent in live {
            let is_gone = self.is_gone(&agent, now);
            let said = in_use.of.get(&agent.spiffe_id);
            let holds = Holds {
                reported: agent.reported,
                own: agent.authority,
                in_use: said.map(|(_, in_use)| in_use.clone()),
                connected: open.contains(&agent.spiffe_id),
            };
            let side = if is_gone { &mut leaving } else { &mut present };
            side.insert(agent.spiffe_id, holds);
        }
        in_use.retain(round, |agent| {
            present.contains_key(agent) || leaving.contains_key(agent)
        });
        present.into_iter().collect::<SpreadReports>().leaving(leaving)
    }

    fn is_gone(&self, agent: &LiveAgent, now: SystemTime) -> bool {
        let shown = now
            .duration_since(agent.attested_at)
            .is_ok_and(|age| age >= SHOWN_AFTER);
        let is_gone = self.is_gone.get();
        shown
            && !agent.pod_uid.is_empty()
            && is_gone.is_some_and(|is_gone| is_gone(&agent.cluster, &agent.pod_uid))
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spread").finish_non_exhaustive()
    }
}
