//! Whether a cluster's API server can be reached: one state with one owner, told by the server's own probes and watches.
//!
//! No call that somebody else causes has a part in it, so nobody makes an outage for himself: neither by using up calls
//! nor by a question that takes too long.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_runtime::clock::Clock as _;
use signet_runtime::sync::Mutex;

use crate::clock::{TOLERANCE, TrustedClock};
use crate::kubernetes::api::CallError;

/// How long every probe has to fail before a cluster counts as unreachable.
pub(super) const FAILING_FOR: Duration = Duration::from_secs(30);

/// What became of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// The API server answered, be it with a refusal.
    Answered,
    /// No answer, or that it cannot serve.
    Failed,
    /// Something answered that is no API server.
    Unclear,
}

impl Probe {
    pub(super) fn of<T>(result: &Result<T, CallError>) -> Self {
        match result {
            Ok(_) | Err(CallError::NotFound | CallError::Expired { .. }) => Self::Answered,
            Err(CallError::Status { code, .. }) if *code < 500 => Self::Answered,
            Err(CallError::Timeout | CallError::Transport(_) | CallError::Status { .. }) => Self::Failed,
            Err(CallError::Junk(_) | CallError::OverBudget(_)) => Self::Unclear,
        }
    }
}

/// The state of one cluster.
pub(super) struct Reach {
    clock: Arc<TrustedClock>,
    grace: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first of the probes that fail, while the cluster still counts as reachable.
    failing: Option<Moment>,
    outage: Option<Moment>,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    at: SystemTime,
    elapsed: Duration,
}

impl Reach {
    /// Begins where the last process ended; an outage that it saw goes on until the first success.
    pub(super) fn new(
        clock: Arc<TrustedClock>,
        grace: Duration,
        unreachable_since: Option<SystemTime>,
    ) -> Self {
        let elapsed = clock.elapsed();
        let outage = unreachable_since.map(|at| Moment { at, elapsed });
        Self {
            clock,
            grace,
            state: Mutex::new(State {
                failing: None,
                outage,
            }),
        }
    }

    /// One probe is over. `watching` says whether a watch of the cluster is whole: then it is not away, whatever became of
    /// the probe. Returns since when it is unreachable, if it is.
    pub(super) fn probed(&self, probe: Probe, watching: bool) -> Option<SystemTime> {
        let now = Moment {
            at: self.clock.time().latest,
            elapsed: self.clock.elapsed(),
        };
        let mut state = self.state.lock();
        match probe {
            _ if watching => *state = State::default(),
            Probe::Answered => *state = State::default(),
            Probe::Unclear => {}
            Probe::Failed if state.outage.is_some() => {}
            Probe::Failed => {
                let first = *state.failing.get_or_insert(now);
                if now.elapsed.saturating_sub(first.elapsed) >= FAILING_FOR {
                    *state = State {
                        failing: None,
                        outage: Some(first),
                    };
                }
            }
        }
        state.outage.map(|outage| outage.at)
    }

    /// Since when the cluster is unreachable.
    pub(super) fn unreachable_since(&self) -> Option<SystemTime> {
        self.state.lock().outage.map(|outage| outage.at)
    }

    /// When the outage began that what was attested before it may still be renewed in. None without one, and when it has
    /// lasted longer than the grace: by the latest time it may be, or by elapsed time, whichever says so first. None also
    /// where it began in a future of which nobody knows how far off it is.
    pub(super) fn in_grace(&self) -> Option<SystemTime> {
        let outage = self.state.lock().outage?;
        let lasted = match self.clock.time().latest.duration_since(outage.at) {
            Ok(lasted) => lasted,
            Err(ahead) if ahead.duration() <= TOLERANCE => Duration::ZERO,
            Err(_) => return None,
        };
        let elapsed = self.clock.elapsed().saturating_sub(outage.elapsed);
        (lasted.max(elapsed) < self.grace).then_some(outage.at)
    }
}
