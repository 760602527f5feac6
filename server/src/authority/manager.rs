//! The authority manager: a handle that anyone may clone. Behind it one task owns the authorities of all kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::rand::SystemRandom;
use signet_certs::authority::AuthorityKind;
use signet_certs::id::TrustDomain;
use signet_runtime::drain::Drain;
use tokio::sync::{mpsc, oneshot, watch};

use super::command::{Command, OrderRequest};
use super::lifecycle::{Lifecycle, LifecycleError, Tools};
use super::policy::LifePolicy;
use super::reports::{OperationReport, OperationSteps};
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

/// Why an order was not taken. The authorities stand as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// It would break something, or contradicts what is under way.
    #[error(transparent)]
    Refused(Refused),
    /// The step failed: most often the journal could not be written.
    #[error("nothing has changed")]
    Failed(#[source] LifecycleError),
    /// The server goes down.
    #[error("the server is stopping: ask again once it is back")]
    Stopping,
}

impl From<LifecycleError> for OrderError {
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
    reports: watch::Receiver<Arc<[OperationReport]>>,
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
        let (told, operations) = watch::channel(Arc::from([]));
        let mut worker = Worker {
            kinds,
            tools,
            clock_state: parts.clock.state(),
            clock: parts.clock,
            view: view_sender,
            snapshots: parts.snapshots,
            reports: parts.reports,
            told,
            unheard: false,
        };
        worker.start().await?;
        let (commands, receiver) = mpsc::channel(COMMAND_CAPACITY);
        let drain = parts.drain.clone();
        parts
            .drain
            .spawn_vital("authorities", async move { worker.run(receiver, drain).await });
        Ok(Self {
            commands,
            view,
            reports: operations,
        })
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

    /// Takes an order, or joins what is under way for the same. Returns once it is journalled; it then goes on whoever listens.
    ///
    /// # Errors
    /// [`OrderError`]; then nothing has changed.
    pub(crate) async fn order(&self, request: OrderRequest) -> Result<OperationSteps, OrderError> {
        let (reply, answer) = oneshot::channel();
        let kind = request.kind;
        let command = Command::Order {
            request,
            reply,
            story: tracing::Span::current(),
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| OrderError::Stopping)?;
        let number = answer.await.map_err(|_| OrderError::Stopping)??;
        Ok(self.follow(kind, number))
    }

    /// Follows an operation that is remembered; of any other nothing comes.
    pub(crate) fn follow(&self, kind: AuthorityKind, number: u64) -> OperationSteps {
        OperationSteps::new(self.reports.clone(), kind, number)
    }

    /// The operations under way, and the last that have ended.
    pub(crate) fn operations(&self) -> Arc<[OperationReport]> {
        self.reports.borrow().clone()
    }
}

#[cfg(test)]
mod tests;
