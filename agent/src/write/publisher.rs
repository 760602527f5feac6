//! Writes what the source has, whenever that is another set than the one in place.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::time::rfc3339;
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::drain::Drain;
use signet_runtime::error::chain;
use signet_runtime::files::FileError;
use signet_runtime::pace::random_unit;
use signet_runtime::signal::Reread;
use signet_runtime::spans::spawn_blocking;
use signet_workload::{SourceError, SourceState, TrustedAuthority, X509Source, X509Svid};
use tokio::time::{Instant, sleep_until};

use super::Plan;
use super::observed::Observed;
use super::standing::Standing;
use super::teller::Published;

/// Waits after a set that could not be written.
const BACKOFF: Backoff = Backoff::between(Duration::from_millis(500), Duration::from_secs(15)).jittered(0.5);
/// How often the clock is looked at: it tells nobody that it was set.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is said that the certificate has ended.
const SAID_EVERY: Duration = Duration::from_secs(300);

pub(super) struct Publisher {
    plan: Arc<Plan>,
    source: X509Source,
    observed: Observed,
    standing: Arc<Standing>,
    published: Published,
    /// What readers find.
    in_place: Option<InPlace>,
    backoff: Backoff,
    said: Option<Instant>,
}

/// The set that was written last.
struct InPlace {
    digest: [u8; 32],
    not_after: SystemTime,
}

/// What is to be written.
struct Wanted {
    svid: Arc<X509Svid>,
    bundle: Vec<TrustedAuthority>,
}

impl Publisher {
    pub(super) fn new(
        plan: Arc<Plan>,
        source: X509Source,
        observed: Observed,
        standing: Arc<Standing>,
        published: Published,
    ) -> Self {
        Self {
            plan,
            source,
            observed,
            standing,
            published,
            in_place: None,
            backoff: BACKOFF,
            said: None,
        }
    }

    /// Works until the drain starts, or until the agent says that trying again is of no use. SIGHUP has the set written and its reader
    /// told once more.
    pub(super) async fn run(mut self, drain: Drain, mut reread: Reread) {
        let mut changes = self.source.changes();
        loop {
            let state = changes.borrow_and_update().clone();
            if self.is_over(&state) {
                self.published.no_more();
                return drain.signalled().await;
            }
            let retry = tokio::select! {
                retry = self.follow(&state) => retry,
                // A disk that hangs is not waited for.
                () = drain.signalled() => return,
            };
            self.look(SystemClock.now());
            let next = Instant::now() + retry.unwrap_or(LOOK);
            tokio::select! {
                () = drain.signalled() => return,
                () = sleep_until(next) => {}
                () = reread.told() => self.in_place = None,
                // The source outlives the loop.
                _ = changes.changed() => {}
            }
        }
    }

    /// Whether waiting is of no use; what is done once takes a verdict for an answer.
    fn is_over(&self, state: &SourceState) -> bool {
        let Some(problem) = &state.problem else {
            return false;
        };
        let over = problem.is_final() || (self.plan.once.is_some() && !problem.may_pass());
        if over {
            self.standing.give_up(self.told(problem));
        }
        over
    }

    fn told(&self, problem: &SourceError) -> String {
        format!("{}: {}", self.plan.which, chain(problem))
    }

    /// Writes what is not in place; after how long to try again, where that failed.
    async fn follow(&mut self, state: &SourceState) -> Option<Duration> {
        self.say_of_agent(state);
        let wanted = wanted(state, &self.plan)?;
        let set = self.plan.layout.fill(&wanted.svid, &wanted.bundle);
        let digest = set.digest();
        if self.in_place.as_ref().is_some_and(|there| there.digest == digest) {
            return None;
        }
        let directory = self.plan.directory.clone();
        // A panic of the writer is one of its own.
        let written = spawn_blocking(move || set.write(&directory)).await.ok()?;
        match written {
            Ok(()) => {
                self.is_in_place(&wanted, digest);
                None
            }
            Err(error) => Some(self.is_not_in_place(&error)),
        }
    }

    fn is_in_place(&mut self, wanted: &Wanted, digest: [u8; 32]) {
        let Wanted { svid, bundle } = wanted;
        let lists = || bundle.iter().filter_map(|authority| authority.crl.as_ref());
        let not_after = svid.not_after();
        let ends = lists().map(|crl| crl.next_update()).min();
        self.observed.set_written(SystemClock.now(), not_after, ends);
        self.standing.written.set(None);
        let numbers: Vec<String> = lists().map(|crl| crl.number().to_string()).collect();
        tracing::info!(
            spiffe_id = %svid.spiffe_id(),
            serial = %svid.serial(),
            not_after = rfc3339(not_after),
            authorities = bundle.len(),
            crl_numbers = numbers.join(","),
            directory = %self.plan.directory.display(),
            "a set of files is written"
        );
        self.in_place = Some(InPlace { digest, not_after });
        self.backoff.reset();
        self.standing.identity.set(None);
        self.published.another();
    }

    fn is_not_in_place(&mut self, error: &FileError) -> Duration {
        let wait = self.backoff.next(random_unit());
        let said = chain(error);
        tracing::warn!(error = said, retry_in = ?wait, "the files cannot be written, those before stay");
        self.observed.publish_failures.inc();
        self.standing.written.set(Some(said));
        wait
    }

    /// A verdict takes readiness away: nobody will renew what is in the files. An agent that is away does not yet.
    fn say_of_agent(&self, state: &SourceState) {
        let problem = state.problem.as_deref();
        let away = problem.filter(|problem| problem.may_pass());
        let verdict = problem.filter(|problem| !problem.may_pass());
        self.standing.agent.set(away.map(|problem| self.told(problem)));
        match (verdict, &self.in_place) {
            (Some(problem), _) => self.standing.identity.set(Some(self.told(problem))),
            (None, Some(_)) => self.standing.identity.set(None),
            (None, None) => self.standing.identity.set(Some(String::new())),
        }
    }

    /// Says it as long as the files hold a certificate that has ended.
    fn look(&mut self, now: SystemTime) {
        let ended = self
            .in_place
            .as_ref()
            .map(|there| there.not_after)
            .filter(|end| now > *end);
        let Some(ended) = ended.map(rfc3339) else {
            self.standing.expired.set(None);
            self.said = None;
            return;
        };
        if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            tracing::error!(
                ended,
                "the certificate in the files has expired and no other has come; the files stay"
            );
            self.said = Some(Instant::now());
        }
        self.standing.expired.set(Some(format!("at {ended}")));
    }
}

/// The newest of both halves: whom to trust may be newer than who we are. A state that knows nothing of our own trust domain changes no
/// file.
fn wanted(state: &SourceState, plan: &Plan) -> Option<Wanted> {
    let svids = &state.context.as_ref()?.svids;
    let svid = plan.which.choose(svids)?.clone();
    let roots = state.roots.as_ref()?;
    let bundle = roots.authorities(&svid.spiffe_id().trust_domain()).to_vec();
    (!bundle.is_empty()).then_some(Wanted { svid, bundle })
}
