//! Writes what the source has, whenever that is another set than the one in place: the first at once, and of many that come one after the
//! other the newest only, so that neither the disk nor the program is kept busy with what nobody reads any more.

mod earlier;
mod pace;
mod wanted;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::time::rfc3339;
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::drain::Drain;
use signet_runtime::error::chain;
use signet_runtime::files::{FileError, LONGEST_TURN, Shown};
use signet_runtime::signal::Reread;
use signet_runtime::spans::spawn_blocking;
use signet_workload::{MessageError, SourceError, SourceState};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};

use self::pace::Pace;
use self::wanted::{Wanted, wanted};
use super::Plan;
use super::observed::Observed;
use super::standing::Standing;
use super::teller::Published;

/// How often the clock is looked at: it tells nobody that it was set.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is said that the certificate has ended.
const SAID_EVERY: Duration = Duration::from_secs(300);
/// After how long a set that is still being written is one that cannot be written. Who waits for other writers of the folder has given up
/// by then, and says so himself.
const HANGS: Duration = LONGEST_TURN.saturating_add(Duration::from_secs(15));

/// What came of writing a set; the outer error is a panic of the writer.
type Written = Result<Result<Shown, FileError>, JoinError>;

pub(super) struct Publisher {
    plan: Arc<Plan>,
    changes: watch::Receiver<SourceState>,
    observed: Observed,
    standing: Arc<Standing>,
    published: Published,
    state: SourceState,
    /// What readers find.
    in_place: Option<InPlace>,
    /// Whether some set was found by all of its names, be it an earlier run's.
    is_begun: bool,
    /// Whether what is in place may be another set than is wanted.
    is_due: bool,
    /// Whether the set is to be written even if it is the one in place.
    again: bool,
    pace: Pace,
    said: Option<Instant>,
}

/// The set that was written last.
struct InPlace {
    /// Nobody knows whether its reader was told of an earlier run's.
    digest: Option<[u8; 32]>,
    not_after: SystemTime,
    /// Whether nothing is left to do for it.
    whole: bool,
}

/// A set that is being written. There is one at most: what a disk that hangs holds does not add up.
struct Writing {
    wanted: Wanted,
    digest: [u8; 32],
    /// Whether its reader is told even if it is the one in place.
    again: bool,
    began: Instant,
    /// Whether it was said that it does not end.
    is_late: bool,
    work: JoinHandle<Result<Shown, FileError>>,
}

impl Publisher {
    /// `changes` outlive it.
    pub(super) fn new(
        plan: Arc<Plan>,
        changes: watch::Receiver<SourceState>,
        observed: Observed,
        standing: Arc<Standing>,
        published: Published,
    ) -> Self {
        Self {
            plan,
            changes,
            observed,
            standing,
            published,
            state: SourceState::default(),
            in_place: None,
            is_begun: false,
            is_due: true,
            again: false,
            pace: Pace::new(Instant::now()),
            said: None,
        }
    }

    /// Works until the drain starts, or until the agent says that trying again is of no use. SIGHUP has the set written and its reader
    /// told once more. A disk that hangs is not waited for.
    pub(super) async fn run(mut self, drain: Drain, mut reread: Reread) {
        let mut writing: Option<Writing> = None;
        // What is done once is done when a set of its own is written.
        if self.plan.once.is_none() {
            tokio::select! {
                () = drain.signalled() => return,
                () = self.take_earlier() => {}
            }
        }
        self.state = self.changes.borrow_and_update().clone();
        loop {
            if writing.is_none() && self.is_over() {
                self.published.no_more();
                return drain.signalled().await;
            }
            if writing.is_none() {
                writing = self.begin();
            }
            self.say_of_agent();
            self.look(SystemClock.now(), writing.as_mut());
            let look = Instant::now() + LOOK;
            let next = match &writing {
                None if self.is_due => self.pace.next(Instant::now()).min(look),
                _ => look,
            };
            tokio::select! {
                () = drain.signalled() => return,
                () = sleep_until(next) => {}
                () = reread.told() => {
                    (self.is_due, self.again) = (true, true);
                    // Somebody says that it is worth a try.
                    self.pace.reset();
                }
                Ok(()) = self.changes.changed() => {
                    self.state = self.changes.borrow_and_update().clone();
                    self.is_due = true;
                }
                written = end_of(&mut writing) => if let Some(ended) = writing.take() {
                    self.ended(written, &ended);
                }
            }
        }
    }

    /// Whether waiting is of no use; what is done once takes a verdict for an answer.
    fn is_over(&self) -> bool {
        let Some(problem) = &self.state.problem else {
            return false;
        };
        let over = problem.is_final() || (self.plan.once.is_some() && is_verdict(problem));
        if over {
            self.standing.give_up(self.told(problem));
        }
        over
    }

    fn told(&self, problem: &SourceError) -> String {
        format!("{}: {}", self.plan.which, chain(problem))
    }

    /// Begins to write what is not in place, if it is time to.
    fn begin(&mut self) -> Option<Writing> {
        let now = Instant::now();
        if !self.is_due || self.pace.next(now) > now {
            return None;
        }
        self.is_due = false;
        let wanted = wanted(&self.state, &self.plan)?;
        let set = self.plan.layout.fill(&wanted.svid, &wanted.bundle);
        let digest = set.digest();
        let in_place = self.in_place.as_ref();
        if !self.again && in_place.is_some_and(|there| there.whole && there.digest == Some(digest)) {
            // Also where another one failed meanwhile.
            self.standing.written.set(None);
            self.pace.reset();
            return None;
        }
        self.pace.begins(now);
        let directory = self.plan.directory.clone();
        Some(Writing {
            wanted,
            digest,
            again: std::mem::take(&mut self.again),
            began: now,
            is_late: false,
            work: spawn_blocking(move || set.write(&directory)),
        })
    }

    fn ended(&mut self, written: Written, ended: &Writing) {
        match written {
            Ok(Ok(Shown::Whole)) => {
                self.is_whole(ended);
                self.standing.written.set(None);
                self.pace.reset();
            }
            Ok(Ok(Shown::Partly(error))) => {
                // Its reader may miss a file, or have one of before: it is told when nothing is left to do.
                self.again |= ended.again;
                self.is_in_place(ended, false);
                let retry_in = self.failed(&error);
                tracing::warn!(
                    error = chain(&error),
                    ?retry_in,
                    "the set is in place, and not all is done for it; its reader is not told yet"
                );
            }
            Ok(Err(error)) => {
                self.again |= ended.again;
                let retry_in = self.failed(&error);
                tracing::warn!(
                    error = chain(&error),
                    ?retry_in,
                    "the files cannot be written, those before stay"
                );
            }
            Err(error) => {
                self.again |= ended.again;
                let retry_in = self.failed(&error);
                tracing::error!(
                    error = chain(&error),
                    ?retry_in,
                    "the writer of the files has ended"
                );
            }
        }
    }

    /// Readers find it, and nothing is left to do. Its own reader is told once of each.
    fn is_whole(&mut self, ended: &Writing) {
        let Wanted { svid, bundle } = &ended.wanted;
        let lists = || bundle.iter().filter_map(|authority| authority.crl.as_ref());
        let not_after = svid.not_after();
        let ends = lists().map(|crl| crl.next_update()).min();
        self.observed.set_written(SystemClock.now(), not_after, ends);
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
        let known = |there: &InPlace| there.digest == Some(ended.digest) && there.whole;
        if ended.again || !self.in_place.as_ref().is_some_and(known) {
            self.published.another();
        }
        self.is_begun = true;
        self.is_in_place(ended, true);
    }

    fn is_in_place(&mut self, ended: &Writing, whole: bool) {
        self.standing.earlier.set(None);
        self.in_place = Some(InPlace {
            digest: Some(ended.digest),
            not_after: ended.wanted.svid.not_after(),
            whole,
        });
    }

    /// How long the next attempt waits.
    fn failed(&mut self, error: &(dyn std::error::Error + 'static)) -> Duration {
        self.observed.publish_failures.inc();
        self.standing.written.set(Some(chain(error)));
        self.is_due = true;
        self.pace.failed(Instant::now())
    }

    /// A verdict takes readiness away: nobody will renew what is in the files. An agent that is away, or sends what cannot be used, does
    /// not yet.
    fn say_of_agent(&self) {
        let problem = self.state.problem.as_deref();
        let (verdict, away) = match problem {
            Some(problem) if is_verdict(problem) => (Some(problem), None),
            other => (None, other),
        };
        self.standing.agent.set(away.map(|problem| self.told(problem)));
        match (verdict, self.is_begun) {
            (Some(problem), _) => self.standing.identity.set(Some(self.told(problem))),
            (None, true) => self.standing.identity.set(None),
            (None, false) => self.standing.identity.set(Some(String::new())),
        }
    }

    /// Says what only the time tells: that a disk hangs, and for as long as it is so that the files hold a certificate that has ended.
    fn look(&mut self, now: SystemTime, writing: Option<&mut Writing>) {
        if let Some(writing) = writing
            && !writing.is_late
            && writing.began.elapsed() >= HANGS
        {
            writing.is_late = true;
            let (directory, limit) = (self.plan.directory.display(), HANGS.as_secs());
            tracing::error!(%directory, "the files are being written and that does not end: the disk hangs; those before stay");
            let said = format!("{directory}: not done after {limit} s, and still going on: the disk hangs");
            self.standing.written.set(Some(said));
        }
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

/// Whether the agent has decided: it refuses the identity, or what it gives is not what was asked for. A message that cannot be used is no
/// decision, and the next one may be another.
fn is_verdict(problem: &SourceError) -> bool {
    match problem {
        SourceError::Message(error) => matches!(error, MessageError::NotPicked(_) | MessageError::NoHint(_)),
        other => !other.may_pass(),
    }
}

/// The end of what is being written; never, where nothing is.
async fn end_of(writing: &mut Option<Writing>) -> Written {
    match writing {
        Some(writing) => (&mut writing.work).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
