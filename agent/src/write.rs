//! An identity kept as files for a program that knows nothing of SPIFFE: each set is published, then the program is told.
//!
//! Two tasks: [`publisher`] writes what the source has, [`teller`] has the hook done for the newest set, again and again until that succeeds. So
//! a hook that hangs holds up no file, and one that fails is not repeated for sets that nobody reads any more.

mod hook;
mod observed;
mod publisher;
mod standing;
mod teller;
mod which;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use signet_runtime::drain::Drain;
use signet_runtime::http::serve_telemetry;
use signet_runtime::notify::Notify;
use signet_runtime::ready::Readiness;
use signet_runtime::refusals::Refusals;
use signet_runtime::signal::Reread;
use signet_runtime::telemetry::Metrics;
use signet_workload::{CrlPolicy, Endpoint, Options, X509Source};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

pub(crate) use self::hook::{Command, Hook, Post, Target, parse_signal};
use self::observed::Observed;
use self::publisher::Publisher;
use self::standing::{NO_IDENTITY, REASONS, STOPPING, Standing};
use self::teller::Teller;
pub(crate) use self::which::Which;
use crate::files::Layout;

/// How long the end may take: a hook is cut, and a disk that hangs is not waited for.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// How long systemd is told of the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Connections of the telemetry listener.
const TELEMETRY_CONNECTIONS: usize = 16;
/// First and longest wait before the agent is called again: a socket that is not there yet is soon.
const CALLS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub endpoint: Endpoint,
    pub which: Which,
    pub directory: PathBuf,
    pub layout: Layout,
    pub hook: Option<Hook>,
    pub hook_timeout: Duration,
    pub telemetry: Option<SocketAddr>,
    /// To end once a set is written and its hook has succeeded, within this time.
    pub once: Option<Duration>,
}

/// What is about to work.
pub(crate) struct Writer {
    plan: Arc<Plan>,
    telemetry: Option<TcpListener>,
}

impl Writer {
    /// Takes the address of the listener, if there is to be one.
    ///
    /// # Errors
    /// When it is taken.
    pub(crate) async fn build(plan: Plan) -> anyhow::Result<Self> {
        let telemetry = match plan.telemetry {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.with_context(|| format!("--telemetry {address}: cannot listen there"))?)
            }
            None => None,
        };
        Ok(Self {
            plan: Arc::new(plan),
            telemetry,
        })
    }

    /// Keeps the files until the drain starts, or writes them once.
    ///
    /// # Errors
    /// Where nothing more is to be had: the agent says that the call is wrong, or what is done once was not done.
    pub(crate) async fn run(self, drain: Drain, reread: Reread, notify: Notify) -> anyhow::Result<()> {
        let plan = self.plan;
        let metrics = Metrics::new("signet_agent_write");
        let readiness = Readiness::new(REASONS);
        readiness.register(&metrics);
        // Before anybody looks whether anything stands in the way.
        let standing = Arc::new(Standing::new(&readiness));
        drain.spawn_worker("notify", tell(notify, readiness.clone(), drain.clone()));
        let observed = Observed::register(&metrics);
        let source = X509Source::start(Options {
            pick: plan.which.pick(),
            wait: None,
            // Whatever lists there are are written; whoever reads them judges.
            crls: CrlPolicy::Prefer,
            backoff: CALLS,
            ..Options::new(plan.endpoint.clone())
        });
        let teller = Teller::new(plan.clone(), observed.clone(), standing.clone());
        let mut progress = teller.progress();
        let publisher = Publisher::new(
            plan.clone(),
            source.changes(),
            observed,
            standing.clone(),
            teller.published(),
        );
        drain.spawn_vital("hook", teller.run(drain.clone()));
        drain.spawn_vital("publisher", publisher.run(drain.clone(), reread));
        if let Some(listener) = self.telemetry {
            let refusals = Refusals::untold("telemetry");
            let serving = serve_telemetry(
                listener,
                readiness,
                metrics,
                TELEMETRY_CONNECTIONS,
                refusals,
                drain.clone(),
            );
            drain.spawn_vital("telemetry", serving);
        }
        let once = plan.once;
        let over = progress.wait_for(|progress| progress.is_over(once.is_some()));
        let done = tokio::select! {
            ended = bounded(once, over) => told(ended, &plan, &standing),
            () = drain.signalled() => match once {
                Some(_) => Err(anyhow!("told to end before the set was written and the hook had succeeded")),
                None => Ok(()),
            },
        };
        if !drain.finish(DRAIN_LIMIT).await {
            tracing::warn!("something is still going on, and is cut: the disk may hang");
        }
        match drain.failure() {
            Some(task) => bail!("{task} has ended"),
            None => done,
        }
    }
}

/// Whether it ended within the limit, if there is one.
async fn bounded(limit: Option<Duration>, work: impl Future) -> bool {
    match limit {
        Some(limit) => timeout(limit, work).await.is_ok(),
        None => {
            work.await;
            true
        }
    }
}

/// What came of it.
fn told(in_time: bool, plan: &Plan, standing: &Standing) -> anyhow::Result<()> {
    if let Some(verdict) = standing.verdict() {
        bail!(verdict);
    }
    if in_time {
        return Ok(());
    }
    let limit = plan.once.unwrap_or_default().as_secs_f64();
    match standing.worst() {
        Some(worst) => bail!("not done within {limit} s: {worst}"),
        None => bail!("not done within {limit} s"),
    }
}

/// systemd hears what is waited for, that the program serves once there are files, for what comes after it reads them, and that it ends. It
/// may not listen.
async fn tell(notify: Notify, readiness: Readiness, drain: Drain) {
    let last_words = async {
        drain.signalled().await;
        let _stopping = readiness.hold(STOPPING);
        sleep(LAST_WORDS).await;
    };
    let telling = async {
        notify.follow_behind(readiness.clone(), NO_IDENTITY.name).await;
        // It may have nobody to tell.
        drain.signalled().await;
    };
    tokio::select! {
        () = last_words => {}
        () = telling => {}
    }
}
