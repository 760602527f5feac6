//! The newest verified state of the Workload API, followed by a task of its own.

mod call;
mod follow;
mod once;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::svid::X509Svid;
use signet_certs::tls::{RotatingIdentity, SharedRoots, TrustSource};
use signet_certs::verify::{TrustRoots, VerifiedSvid, VerifyError};
use signet_runtime::clock::{Clock, SystemClock};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::endpoint::{Endpoint, EndpointError};
use crate::message::{GrantedSvid, MessageError};

/// Why there is no newer state.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The address is wrong or nobody answers there.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The agent sent something that does not verify; what was verified before stays in use.
    #[error("a message of the agent is not used: {0}")]
    Message(#[from] MessageError),
    /// The agent ended the stream. Unless [`is_final`](SourceError::is_final), it is called again.
    #[error("the agent ended the stream with {code:?}: {message}")]
    Stream {
        /// gRPC's code.
        code: Code,
        /// The agent's words.
        message: String,
    },
    /// The source was dropped by everyone else.
    #[error("the source has ended")]
    Ended,
}

impl SourceError {
    /// Whether trying again is useless, so that the source has stopped: the agent says that our call is wrong or that it
    /// has no such call, or the address is one that is never called.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Stream { code, .. } => matches!(code, Code::InvalidArgument | Code::Unimplemented),
            Self::Endpoint(error) => matches!(error, EndpointError::Tcp(_)),
            Self::Message(_) => false,
            Self::Ended => true,
        }
    }

    /// Whether the agent has only not answered yet: it is away, it starts, or it has nothing for us so far. Anything else
    /// is a verdict, for whoever asks once.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Stream { code, .. } => matches!(code, Code::Unavailable | Code::Ok),
            Self::Endpoint(error) => {
                matches!(
                    error,
                    EndpointError::Unreachable(_) | EndpointError::Transport { .. }
                )
            }
            Self::Message(_) | Self::Ended => false,
        }
    }
}

/// How a source is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the Workload API is.
    pub endpoint: Endpoint,
    /// Presents the SVID with this hint. Without one the first SVID is presented, which the agent means as the default.
    pub hint: Option<String>,
    /// The wall time by which certificates and CRLs are judged.
    pub clock: Arc<dyn Clock>,
    /// First and longest wait before the agent is called again. Each wait is drawn between half of it and all of it.
    pub backoff: (Duration, Duration),
}

impl Options {
    /// The usual setup: system time, waits from 500 ms to 30 s.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            hint: None,
            clock: Arc::new(SystemClock),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
        }
    }
}

/// One verified state: who we are and whom to trust.
#[derive(Clone, Debug)]
pub struct X509Context {
    /// Our identities, the default first; never empty.
    pub svids: Arc<[GrantedSvid]>,
    /// Authorities and their CRLs, by trust domain.
    pub roots: Arc<TrustRoots>,
}

impl X509Context {
    /// The identity that the agent means as the default.
    #[must_use]
    pub fn default_svid(&self) -> Option<&Arc<X509Svid>> {
        self.svids.first().map(|granted| &granted.svid)
    }
}

/// What a source has, and what keeps it from having more.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// The newest verified state; none before the first.
    pub context: Option<X509Context>,
    /// The latest trouble, until a message is taken again.
    pub problem: Option<Arc<SourceError>>,
}

/// Follows the Workload API. Clones are the same source; it ends with the last of them, and every configuration,
/// acceptor, connector and peer made by it holds one.
#[derive(Clone)]
pub struct X509Source(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// What the task writes and everyone else reads.
struct Shared {
    clock: Arc<dyn Clock>,
    roots: SharedRoots,
    presented: Arc<RotatingIdentity>,
    state: watch::Sender<SourceState>,
}

impl X509Source {
    /// Follows the Workload API that `SPIFFE_ENDPOINT_SOCKET` names, and waits for the first identity.
    ///
    /// # Errors
    /// When the variable is missing or wrong, or the agent says that it will never answer. An agent that is away, still
    /// starting or has nothing for us yet is waited for without end: bound it with a timeout if you need one.
    pub async fn from_env() -> Result<Self, Arc<SourceError>> {
        let endpoint = Endpoint::from_env().map_err(|error| Arc::new(error.into()))?;
        let source = Self::start(Options::new(endpoint));
        source.ready().await?;
        Ok(source)
    }

    /// Begins to follow without waiting. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let shared = Arc::new(Shared::new(options.clock.clone()));
        let task = tokio::spawn(follow::follow(options, shared.clone()));
        Self(Arc::new(Inner {
            shared,
            task: Some(task),
        }))
    }

    /// Waits until there is a verified state.
    ///
    /// # Errors
    /// When there is none and never will be.
    pub async fn ready(&self) -> Result<(), Arc<SourceError>> {
        let settled = |state: &SourceState| {
            state.context.is_some() || state.problem.as_ref().is_some_and(|problem| problem.is_final())
        };
        let mut changes = self.changes();
        let state = changes
            .wait_for(settled)
            .await
            .map_err(|_| Arc::new(SourceError::Ended))?;
        match (&state.context, &state.problem) {
            (None, Some(problem)) => Err(problem.clone()),
            _ => Ok(()),
        }
    }

    /// The newest verified state.
    #[must_use]
    pub fn context(&self) -> Option<X509Context> {
        self.0.shared.state.borrow().context.clone()
    }

    /// Hears of every change, and sees the newest state only.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<SourceState> {
        self.0.shared.state.subscribe()
    }

    /// Whether a peer verified before would still be accepted: not revoked, its authority still trusted, its CRL
    /// current, not expired. Cheap enough for every request.
    ///
    /// # Errors
    /// The reason why not.
    pub fn recheck(&self, peer: &VerifiedSvid) -> Result<(), VerifyError> {
        peer.recheck(&self.0.shared.roots.load(), self.now())
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.0.shared.clock.now()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.0.shared.clock.clone()
    }

    pub(crate) fn presented(&self) -> Arc<RotatingIdentity> {
        self.0.shared.presented.clone()
    }
}

impl TrustSource for X509Source {
    fn roots(&self) -> Arc<TrustRoots> {
        self.0.shared.roots.load()
    }
}

impl fmt::Debug for X509Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X509Source")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Shared {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            roots: SharedRoots::default(),
            presented: Arc::new(RotatingIdentity::new()),
            state: watch::Sender::new(SourceState::default()),
        }
    }

    /// Puts whom to trust in force: for new handshakes first, then for whoever watches.
    fn trust(&self, roots: &Arc<TrustRoots>) {
        self.roots.store(roots.clone());
        self.state.send_modify(|state| {
            if let Some(context) = &mut state.context {
                context.roots = roots.clone();
            }
        });
    }

    fn publish(&self, context: X509Context) {
        self.state.send_replace(SourceState {
            context: Some(context),
            problem: None,
        });
    }

    fn trouble(&self, problem: SourceError) {
        self.state
            .send_modify(|state| state.problem = Some(Arc::new(problem)));
    }
}

#[cfg(test)]
impl X509Source {
    /// A source that nothing feeds, with these roots.
    pub(crate) fn unfed(clock: Arc<dyn Clock>, roots: TrustRoots) -> Self {
        let shared = Shared::new(clock);
        shared.roots.store(roots);
        Self(Arc::new(Inner {
            shared: Arc::new(shared),
            task: None,
        }))
    }

    /// Replaces the roots as a message would.
    pub(crate) fn put_in_force(&self, roots: TrustRoots) {
        self.0.shared.trust(&Arc::new(roots));
    }
}
