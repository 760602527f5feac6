//! One identity of one workload.

use std::time::Duration;

use signet_certs::dates::{OutsideDates, WhoseClock};
use signet_certs::id::SpiffeId;
use signet_runtime::backoff::Backoff;

use super::{Failure, Leaf, SlotStatus, TAINT_SPREAD, TrustView, Verdict};
use crate::time::Moment;

/// Renewal happens between this share of the remaining life and this share plus [`RENEWAL_WIDTH`].
const RENEWAL_START: f64 = 0.45;
const RENEWAL_WIDTH: f64 = 0.10;

/// For a date alone a question is not repeated within this time.
const SAME_QUESTION: Duration = Duration::from_secs(60);

/// See the documentation of [`super`].
pub(super) struct Slot {
    pub(super) number: u64,
    /// `None` until the server has said which identity is the default one.
    pub(super) spiffe_id: Option<SpiffeId>,
    pub(super) hint: String,
    /// The server has answered, or failed to, at least once.
    pub(super) settled: bool,
    held: Option<Held>,
    verdict: Option<Verdict>,
    in_flight: bool,
    /// Ask then whatever is held; set by events, cleared when asked. Elapsed time, as all that is waited for.
    recheck: Option<Duration>,
    /// Not before, after failures.
    retry_at: Option<Duration>,
    /// When it was asked for last.
    asked_at: Option<Duration>,
    problem: Option<String>,
    backoff: Backoff,
}

/// A leaf and its timing.
pub(super) struct Held {
    leaf: Leaf,
    renew_at: Duration,
    /// When its life is over by elapsed time, whatever became of the date.
    over_at: Duration,
    jitter: f64,
}

/// Why a leaf must not be published under this trust; `None` when it may.
pub(super) fn unusable(leaf: &Leaf, trust: &dyn TrustView, now: Moment) -> Option<String> {
    if leaf.svid.not_after <= now.date {
        let dates = OutsideDates {
            not_before: leaf.svid.not_before,
            not_after: leaf.svid.not_after,
            now: now.date,
            clock: WhoseClock::Here,
        };
        return Some(format!("the certificate {dates}"));
    }
    unsupported(leaf, trust)
}

/// The same but for the date.
pub(super) fn unsupported(leaf: &Leaf, trust: &dyn TrustView) -> Option<String> {
    if !trust.contains(&leaf.authority) {
        return Some(format!(
            "the certificate's authority {} is not in the trust bundle",
            leaf.authority
        ));
    }
    if trust.is_revoked(&leaf.authority, &leaf.serial) {
        return Some(format!("the certificate with serial {} is revoked", leaf.serial));
    }
    None
}

/// The share of a leaf's life after which it is renewed; `u` in [0, 1) is the leaf's jitter.
fn renewal_share(u: f64) -> f64 {
    RENEWAL_WIDTH.mul_add(u.clamp(0.0, 1.0), RENEWAL_START)
}

impl Slot {
    pub(super) fn new(number: u64, spiffe_id: Option<SpiffeId>, hint: String, backoff: Backoff) -> Self {
        Self {
            number,
            spiffe_id,
            hint,
            settled: false,
            held: None,
            verdict: None,
            in_flight: false,
            recheck: None,
            retry_at: None,
            asked_at: None,
            problem: None,
            backoff,
        }
    }

    /// When to ask the server; in the past when it is due, `None` while a request is in flight or a verdict stands.
    pub(super) fn ask_at(&self, now: Moment) -> Option<Duration> {
        if self.in_flight {
            return None;
        }
        let own = match (&self.verdict, &self.held) {
            (Some(_), _) => None,
            (None, Some(held)) if held.leaf.svid.not_after <= now.date => {
                // A date that says so by itself may be wrong: nothing is asked for again and again because of it.
                let again = self
                    .asked_at
                    .map_or(Duration::ZERO, |asked| asked + SAME_QUESTION);
                Some(again)
            }
            (None, Some(held)) => Some(held.renew_at),
            (None, None) => Some(Duration::ZERO),
        };
        let wanted = [own, self.recheck].into_iter().flatten().min()?;
        Some(self.retry_at.map_or(wanted, |retry| retry.max(wanted)))
    }

    /// Neither a leaf nor a verdict.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_none() && self.verdict.is_none()
    }

    pub(super) fn take(&mut self, now: Moment) {
        self.in_flight = true;
        self.asked_at = Some(now.elapsed);
        self.recheck = None;
    }

    pub(super) fn issued(&mut self, leaf: Leaf, trust: &dyn TrustView, now: Moment, u: f64) {
        let (begin, end) = (leaf.svid.not_before, leaf.svid.not_after);
        let whole = end.duration_since(begin).unwrap_or_default();
        // It was made just now: a date outside of its life is no measure of what is left of it.
        let left = end.duration_since(now.date).unwrap_or(whole);
        let life = left.min(whole);
        let over_at = now.elapsed + life;
        // An answer under an authority tainted meanwhile is worth using, but not for long.
        let life = if trust.is_tainted(&leaf.authority) {
            life.min(TAINT_SPREAD * 6)
        } else {
            life
        };
        self.hold(leaf, now.elapsed + life.mul_f64(renewal_share(u)), over_at, u);
        self.verdict = None;
        self.answered();
    }

    /// Takes over a leaf that an earlier run of the agent was given: half of its whole life counts, not of what is left.
    /// One that rests on other rules than the present ones is asked for anew.
    pub(super) fn restore(&mut self, leaf: Leaf, policy_revision: Option<u64>, now: Moment, u: f64) {
        let life = leaf.svid.not_after.duration_since(leaf.svid.not_before);
        let renew_at = now.reaches(leaf.svid.not_before + life.unwrap_or_default().mul_f64(renewal_share(u)));
        let moved = policy_revision.is_some_and(|revision| revision != leaf.policy_revision);
        let over_at = now.reaches(leaf.svid.not_after);
        self.hold(leaf, renew_at, over_at, u);
        self.settled = true;
        if moved {
            self.recheck_spread(now);
        }
    }

    fn hold(&mut self, leaf: Leaf, renew_at: Duration, over_at: Duration, u: f64) {
        self.held = Some(Held {
            leaf,
            renew_at,
            over_at,
            jitter: u.clamp(0.0, 1.0),
        });
    }

    /// Gives the slot another identity; returns the former one with what was held for it.
    pub(super) fn rename(&mut self, spiffe_id: SpiffeId) -> Option<(SpiffeId, Held)> {
        if self.spiffe_id.as_ref() == Some(&spiffe_id) {
            return None;
        }
        let former = self.spiffe_id.replace(spiffe_id)?;
        Some((former, self.held.take()?))
    }

    pub(super) fn inherit(&mut self, held: Held) {
        self.settled = true;
        self.held = Some(held);
    }

    /// Wipes the key of a leaf whose life is over, by the date and by elapsed time: a date alone may go back.
    pub(super) fn forget_expired(&mut self, now: Moment) {
        let over = |held: &Held| held.leaf.svid.not_after <= now.date && held.over_at <= now.elapsed;
        if self.held.as_ref().is_some_and(over) {
            self.held = None;
        }
    }

    pub(super) fn refused(&mut self, verdict: Verdict, outdated: bool, now: Moment) {
        self.held = None;
        self.verdict = Some(verdict);
        self.answered();
        if outdated {
            self.ask_again(now);
        }
    }

    /// Keeps what is held, and remembers that the question is still open.
    pub(super) fn failed(&mut self, failure: &Failure, now: Moment, u: f64) {
        self.in_flight = false;
        self.settled = true;
        let wait = self.backoff.next(u).max(failure.retry_after.unwrap_or_default());
        self.retry_at = Some(now.elapsed + wait);
        self.ask_again(now);
        self.problem = Some(failure.message.clone());
    }

    pub(super) fn trust_changed(&mut self, trust: &dyn TrustView, now: Moment) {
        let Some(held) = &self.held else { return };
        if unsupported(&held.leaf, trust).is_some() {
            self.recheck_now(now);
        } else if trust.is_tainted(&held.leaf.authority) {
            let at = now.elapsed + TAINT_SPREAD.mul_f64(held.jitter);
            self.ask_at_latest(at);
        }
    }

    pub(super) fn policy_changed(&mut self, revision: u64, now: Moment) {
        if self
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.policy_revision != revision)
        {
            self.recheck_now(now);
        }
    }

    /// What failed before is asked again, or waits for evidence and not for the server.
    pub(super) fn server_back(&mut self, now: Moment) {
        self.retry_at = None;
        self.problem = None;
        if self.verdict.is_some() {
            self.ask_again(now);
        }
    }

    /// Asks at once, whatever failed before.
    pub(super) fn recheck_now(&mut self, now: Moment) {
        self.retry_at = None;
        self.ask_again(now);
    }

    /// Asks again by `now + TAINT_SPREAD`, at a moment that is the leaf's own.
    pub(super) fn recheck_spread(&mut self, now: Moment) {
        let jitter = self.held.as_ref().map_or(0.0, |held| held.jitter);
        self.retry_at = None;
        self.ask_at_latest(now.elapsed + TAINT_SPREAD.mul_f64(jitter));
    }

    pub(super) fn clear_retry(&mut self) {
        self.retry_at = None;
    }

    pub(super) fn leaf(&self) -> Option<&Leaf> {
        self.held.as_ref().map(|held| &held.leaf)
    }

    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(super) fn status(&self, now: Moment) -> SlotStatus {
        let problem = self.verdict.as_ref().map(|verdict| verdict.message.clone());
        SlotStatus {
            leaf: self.leaf().cloned(),
            renew_at: self.ask_at(now).map(|at| now.date_at(at)),
            problem: problem.or_else(|| self.problem.clone()),
        }
    }

    fn answered(&mut self) {
        self.in_flight = false;
        self.settled = true;
        self.retry_at = None;
        self.problem = None;
        self.backoff.reset();
    }

    fn ask_again(&mut self, now: Moment) {
        self.ask_at_latest(now.elapsed);
    }

    fn ask_at_latest(&mut self, at: Duration) {
        self.recheck = Some(self.recheck.map_or(at, |earlier| earlier.min(at)));
    }
}
