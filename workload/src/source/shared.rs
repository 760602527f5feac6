//! What the sources have in common: a task that writes, and what it writes for everyone else.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::tls::{SharedRoots, TrustSource};
use signet_certs::verify::{TrustRoots, VerifiedSvid, VerifyError};
use signet_runtime::clock::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::SourceError;
use super::state::{SourceState, X509Context};
use crate::presented::Presented;

/// What the task writes and everyone else reads.
pub(crate) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) presented: Arc<Presented>,
    roots: SharedRoots,
    state: watch::Sender<SourceState>,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            presented: Arc::new(Presented::new(clock.clone())),
            clock,
            roots: SharedRoots::default(),
            state: watch::Sender::new(SourceState::default()),
        }
    }

    /// Puts whom to trust in force: for new handshakes first, then for whoever watches.
    pub(super) fn trust(&self, roots: &Arc<TrustRoots>) {
        self.roots.store(roots.clone());
        self.state.send_modify(|state| {
            state.roots = Some(roots.clone());
            if let Some(context) = &mut state.context {
                context.roots = roots.clone();
            }
        });
    }

    /// All of a message is in use: whom to trust already, and now who we are.
    pub(super) fn publish(&self, context: Option<X509Context>) {
        self.state.send_modify(|state| {
            state.problem = None;
            if context.is_some() {
                state.context = context;
            }
        });
    }

    pub(super) fn context(&self) -> Option<X509Context> {
        self.state.borrow().context.clone()
    }

    /// Nobody writes any more.
    pub(super) fn ended(&self) {
        let is_final = |problem: &Arc<SourceError>| problem.is_final();
        if !self.state.borrow().problem.as_ref().is_some_and(is_final) {
            self.trouble(SourceError::Ended);
        }
    }

    pub(super) fn trouble(&self, problem: SourceError) {
        self.state
            .send_modify(|state| state.problem = Some(Arc::new(problem)));
    }
}

/// A source of either kind. The task ends with it.
pub(crate) struct Core {
    pub(super) shared: Arc<Shared>,
    wait: Option<Duration>,
    task: Option<JoinHandle<()>>,
}

impl Core {
    pub(super) fn new(
        shared: Arc<Shared>,
        wait: Option<Duration>,
        task: Option<JoinHandle<()>>,
    ) -> Arc<Self> {
        Arc::new(Self { shared, wait, task })
    }

    pub(crate) fn changes(&self) -> watch::Receiver<SourceState> {
        self.shared.state.subscribe()
    }

    pub(super) fn state(&self) -> watch::Ref<'_, SourceState> {
        self.shared.state.borrow()
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.shared.clock.now()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    pub(crate) fn presented(&self) -> Arc<Presented> {
        self.shared.presented.clone()
    }

    pub(crate) fn recheck(&self, peer: &VerifiedSvid) -> Result<(), VerifyError> {
        peer.recheck(&self.roots(), self.now())
    }

    /// Waits until the state has what is wanted, or is known not to get it.
    pub(super) async fn ready(&self, has: impl Fn(&SourceState) -> bool) -> Result<(), Arc<SourceError>> {
        let settled = |state: &SourceState| {
            let verdict = state
                .problem
                .as_ref()
                .is_some_and(|problem| problem.ends_waiting());
            has(state) || verdict
        };
        let mut changes = self.changes();
        let waiting = changes.wait_for(settled);
        let found = match self.wait {
            None => waiting.await.ok(),
            Some(wait) => timeout(wait, waiting).await.map_err(|_| self.late(wait))?.ok(),
        };
        let state = found.ok_or_else(|| Arc::new(SourceError::Ended))?;
        match &state.problem {
            Some(problem) if !has(&state) => Err(problem.clone()),
            _ => Ok(()),
        }
    }

    fn late(&self, waited: Duration) -> Arc<SourceError> {
        let last = self.state().problem.clone();
        Arc::new(SourceError::NotInTime { waited, last })
    }
}

impl TrustSource for Core {
    fn roots(&self) -> Arc<TrustRoots> {
        self.shared.roots.load()
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source")
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
