//! One identity of one workload.

use std::time::SystemTime;

use signet_certs::id::SpiffeId;
use signet_runtime::backoff::Backoff;

use super::{Failure, Leaf, SlotStatus, TAINT_SPREAD, TrustView, Verdict};

/// Renewal happens between this share of the remaining life and this share plus [`RENEWAL_WIDTH`].
const RENEWAL_START: f64 = 0.45;
const RENEWAL_WIDTH: f64 = 0.10;

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
    /// Ask at this time whatever is held; set by events, cleared when asked.
    recheck: Option<SystemTime>,
    /// Not before this time, after failures.
    retry_at: Option<SystemTime>,
    problem: Option<String>,
    backoff: Backoff,
}

/// A leaf and its timing.
pub(super) struct Held {
    leaf: Leaf,
    renew_at: SystemTime,
    jitter: f64,
}

/// Why a leaf must not be published under this trust; `None` when it may.
pub(super) fn unusable(leaf: &Leaf, trust: &dyn TrustView, now: SystemTime) -> Option<String> {
    if leaf.svid.not_after <= now {
        return Some("the certificate has expired".to_owned());
    }
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
            problem: None,
            backoff,
        }
    }

    /// When to ask the server; in the past when it is due, `None` while a request is in flight or a verdict stands.
    pub(super) fn ask_at(&self) -> Option<SystemTime> {
        if self.in_flight {
            return None;
        }
        let own = match (&self.verdict, &self.held) {
            (Some(_), _) => None,
            (None, Some(held)) => Some(held.renew_at),
            (None, None) => Some(SystemTime::UNIX_EPOCH),
        };
        let wanted = [own, self.recheck].into_iter().flatten().min()?;
        Some(self.retry_at.map_or(wanted, |retry| retry.max(wanted)))
    }

    /// Neither a leaf nor a verdict.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_none() && self.verdict.is_none()
    }

    pub(super) fn take(&mut self) {
        self.in_flight = true;
        self.recheck = None;
    }

    pub(super) fn issued(&mut self, leaf: Leaf, trust: &dyn TrustView, now: SystemTime, u: f64) {
        let life = leaf.svid.not_after.duration_since(now).unwrap_or_default();
        // An answer under an authority tainted meanwhile is worth using, but not for long.
        let life = if trust.is_tainted(&leaf.authority) {
            life.min(TAINT_SPREAD * 6)
        } else {
            life
        };
        self.hold(leaf, now + life.mul_f64(renewal_share(u)), u);
        self.verdict = None;
        self.answered();
    }

    /// Takes over a leaf that an earlier run of the agent was given: half of its whole life counts, not of what is left.
    /// One that rests on other rules than the present ones is asked for anew.
    pub(super) fn restore(&mut self, leaf: Leaf, policy_revision: Option<u64>, now: SystemTime, u: f64) {
        let life = leaf.svid.not_after.duration_since(leaf.svid.not_before);
        let renew_at = leaf.svid.not_before + life.unwrap_or_default().mul_f64(renewal_share(u));
        let moved = policy_revision.is_some_and(|revision| revision != leaf.policy_revision);
        self.hold(leaf, renew_at, u);
        self.settled = true;
        if moved {
            self.recheck_spread(now);
        }
    }

    fn hold(&mut self, leaf: Leaf, renew_at: SystemTime, u: f64) {
        self.held = Some(Held {
            leaf,
            renew_at,
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

    /// Wipes the key of a leaf that nobody may use any more.
    pub(super) fn forget_expired(&mut self, now: SystemTime) {
        if self.leaf().is_some_and(|leaf| leaf.svid.not_after <= now) {
            self.held = None;
        }
    }

    pub(super) fn refused(&mut self, verdict: Verdict, outdated: bool, now: SystemTime) {
        self.held = None;
        self.verdict = Some(verdict);
        self.answered();
        if outdated {
            self.ask_again(now);
        }
    }

    /// Keeps what is held, and remembers that the question is still open.
    pub(super) fn failed(&mut self, failure: &Failure, now: SystemTime, u: f64) {
        self.in_flight = false;
        self.settled = true;
        let wait = self.backoff.next(u).max(failure.retry_after.unwrap_or_default());
        self.retry_at = Some(now + wait);
        self.ask_again(now);
        self.problem = Some(failure.message.clone());
    }

    pub(super) fn trust_changed(&mut self, trust: &dyn TrustView, now: SystemTime) {
        let Some(held) = &self.held else { return };
        if unusable(&held.leaf, trust, now).is_some() {
            self.recheck_now(now);
        } else if trust.is_tainted(&held.leaf.authority) {
            let at = now + TAINT_SPREAD.mul_f64(held.jitter);
            self.ask_again(at);
        }
    }

    pub(super) fn policy_changed(&mut self, revision: u64, now: SystemTime) {
        if self
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.policy_revision != revision)
        {
            self.recheck_now(now);
        }
    }

    pub(super) fn server_back(&mut self, now: SystemTime) {
        self.retry_at = None;
        if self.verdict.is_some() {
            self.ask_again(now);
        }
    }

    /// Asks at once, whatever failed before.
    pub(super) fn recheck_now(&mut self, now: SystemTime) {
        self.retry_at = None;
        self.ask_again(now);
    }

    /// Asks again by `now + TAINT_SPREAD`, at a moment that is the leaf's own.
    pub(super) fn recheck_spread(&mut self, now: SystemTime) {
        let jitter = self.held.as_ref().map_or(0.0, |held| held.jitter);
        self.retry_at = None;
        self.ask_again(now + TAINT_SPREAD.mul_f64(jitter));
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

    pub(super) fn status(&self) -> SlotStatus {
        let problem = self.verdict.as_ref().map(|verdict| verdict.message.clone());
        SlotStatus {
            leaf: self.leaf().cloned(),
            renew_at: self.ask_at(),
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

    fn ask_again(&mut self, at: SystemTime) {
        self.recheck = Some(self.recheck.map_or(at, |earlier| earlier.min(at)));
    }
}
