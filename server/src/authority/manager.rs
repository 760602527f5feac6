//! The authority manager: a handle that anyone may clone. Behind it one task owns the authorities of all kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::rand::SystemRandom;
use signet_certs::authority::AuthorityKind;
use signet_certs::id::TrustDomain;
use signet_runtime::drain::Drain;
use tokio::sync::{mpsc, oneshot, watch};

use super::command::{Command, RotateRequest};
use super::lifecycle::{Lifecycle, LifecycleError, Tools};
use super::policy::LifePolicy;
use super::rotation::{PROGRESS_CAPACITY, RotationProgress};
use super::source::AuthoritySource;
use super::spread::SpreadReports;
use super::state::Refused;
use super::view::AuthorityView;
use super::worker::Worker;
use crate::clock::TrustedClock;
use crate::key_manager::KeyManager;
use crate::store::Store;
use crate::trust::TrustSnapshot;

/// Commands that may wait for the worker.
const COMMAND_CAPACITY: usize = 16;

/// What the manager is built from.
pub(crate) struct AuthorityManagerParts {
    /// The trust domain of all authorities.
    pub trust_domain: TrustDomain,
    /// The kinds of authority there are, with their settings.
    pub kinds: BTreeMap<AuthorityKind, LifePolicy>,
    /// Keeps journal, sealed keys, ledger.
    pub store: Arc<dyn Store>,
    /// Where their keys live.
    pub keys: Arc<dyn KeyManager>,
    /// Who signs their certificates.
    pub source: Arc<dyn AuthoritySource>,
    /// Wall time.
    pub clock: Arc<TrustedClock>,
    /// What the publisher has published.
    pub snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    /// What agents report.
    pub reports: watch::Receiver<SpreadReports>,
    /// Ends the worker.
    pub drain: Drain,
}

/// Why a rotation did not begin. The authorities stand as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// It would break something, or contradicts what is under way.
    #[error(transparent)]
    Refused(Refused),
    /// The step failed: most often the journal could not be written.
    #[error("no authority was rotated")]
    Failed(#[source] LifecycleError),
    /// The server goes down.
    #[error("the server is stopping: ask again once it is back")]
    Stopping,
}

impl From<LifecycleError> for RotateError {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::Refused(refused) => Self::Refused(refused),
            error => Self::Failed(error),
        }
    }
}

/// Handle of the worker. Clones share it; the worker ends with its drain, not with its handles.
#[derive(Clone, Debug)]
pub(crate) struct AuthorityManager {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<AuthorityView>>,
}

impl AuthorityManager {
    /// Reads the journals, makes what is missing, and starts the worker. Authorities become active once the publisher
    /// has published them: see [`ready`](Self::ready).
    ///
    /// # Errors
    /// A store that cannot be read or written, a journal of a later version, a missing key. All are fatal.
    pub(crate) async fn start(parts: AuthorityManagerParts) -> Result<Self, LifecycleError> {
        let tools = Tools {
            trust_domain: parts.trust_domain,
            store: parts.store,
            keys: parts.keys,
            source: parts.source,
            random: SystemRandom::new(),
        };
        let mut kinds = BTreeMap::new();
        for (kind, policy) in parts.kinds {
            kinds.insert(kind, Lifecycle::load(kind, policy, &tools).await?);
        }
        let (view_sender, view) = watch::channel(Arc::new(AuthorityView::default()));
        let mut worker = Worker {
            kinds,
            tools,
            clock_state: parts.clock.state(),
            clock: parts.clock,
            view: view_sender,
            snapshots: parts.snapshots,
            reports: parts.reports,
            watchers: Vec::new(),
            unheard: false,
        };
        worker.start().await?;
        let (commands, receiver) = mpsc::channel(COMMAND_CAPACITY);
        let drain = parts.drain.clone();
        parts
            .drain
            .spawn_vital("authorities", async move { worker.run(receiver, drain).await });
        Ok(Self { commands, view })
    }

    /// The authorities as they are now, and every change.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<AuthorityView>> {
        self.view.clone()
    }

    /// Resolves once every kind has an authority that signs; for a new store that is after the first publication.
    /// False: the server is stopping.
    pub(crate) async fn ready(&self) -> bool {
        self.view
            .clone()
            .wait_for(|view| view.is_complete())
            .await
            .is_ok()
    }

    /// Prepares a successor, lets it spread, and has it take over. Joins a rotation that is under way. Returns once the
    /// wish is journalled; the rotation then goes on whoever listens.
    ///
    /// # Errors
    /// [`RotateError`]; then nothing has changed.
    pub(crate) async fn rotate(
        &self,
        request: RotateRequest,
    ) -> Result<mpsc::Receiver<RotationProgress>, RotateError> {
        let (progress, steps) = mpsc::channel(PROGRESS_CAPACITY);
        let (reply, answer) = oneshot::channel();
        let command = Command::Rotate {
            request,
            progress,
            reply,
            story: tracing::Span::current(),
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| RotateError::Stopping)?;
        answer.await.map_err(|_| RotateError::Stopping)??;
        Ok(steps)
    }
}

#[cfg(test)]
mod tests;
