//! Refusals are written in full at a human rate and counted beyond it, per caller, so that whoever hammers the server
//! cannot bury the log or fill the disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{AuditAction, AuditEvent};

/// Refusals of one caller that are written at once.
const BURST: f64 = 20.0;
/// Refusals of one caller that are written per second, on average.
const PER_SECOND: f64 = 1.0;
/// After so long without a refusal the count of a caller is written and the caller forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Callers told apart; further ones share one budget.
const CALLERS: usize = 4096;
/// The shared budget's name.
const OTHERS: &str = "others";

/// What becomes of an event.
pub(crate) enum Sampled {
    /// Write these: the event, and before it what was suppressed of its caller.
    Write(Vec<AuditEvent>),
    /// It was counted.
    Counted,
}

/// Decides which refusals are written.
#[derive(Default)]
pub(crate) struct Sampler(Mutex<HashMap<String, Caller>>);

struct Caller {
    tokens: f64,
    seen: SystemTime,
    suppressed: u64,
}

impl Caller {
    fn refill(&mut self, now: SystemTime) {
        let passed = now.duration_since(self.seen).unwrap_or_default();
        self.tokens = (self.tokens + passed.as_secs_f64() * PER_SECOND).min(BURST);
        self.seen = now;
    }
}

impl Sampler {
    /// Events other than refusals always pass.
    pub(crate) fn admit(&self, event: AuditEvent) -> Sampled {
        let AuditAction::Refused { caller, .. } = event.action() else {
            return Sampled::Write(vec![event]);
        };
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if callers.len() < CALLERS || callers.contains_key(caller) {
            caller.as_str()
        } else {
            OTHERS
        };
        let name = name.to_owned();
        let fresh = || Caller {
            tokens: BURST,
            seen: event.time(),
            suppressed: 0,
        };
        let state = callers.entry(name.clone()).or_insert_with(fresh);
        state.refill(event.time());
        if state.tokens < 1.0 {
            state.suppressed += 1;
            return Sampled::Counted;
        }
        state.tokens -= 1.0;
        let count = std::mem::take(&mut state.suppressed);
        let suppressed = (count > 0).then(|| suppressed(event.time(), name, count));
        Sampled::Write(suppressed.into_iter().chain([event]).collect())
    }

    /// Forgets callers that have been quiet, and returns what is left to be said of them.
    pub(crate) fn drain_idle(&self, now: SystemTime) -> Vec<AuditEvent> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle =
            callers.extract_if(|_, caller| now.duration_since(caller.seen).is_ok_and(|quiet| quiet >= IDLE));
        let counted = idle.filter(|(_, caller)| caller.suppressed > 0);
        counted
            .map(|(name, caller)| suppressed(now, name, caller.suppressed))
            .collect()
    }
}

fn suppressed(now: SystemTime, caller: String, count: u64) -> AuditEvent {
    AuditEvent::new(now, AuditAction::RefusalsSuppressed { caller, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(caller: &str, second: u64) -> AuditEvent {
        let action = AuditAction::Refused {
            caller: caller.into(),
            operation: "issue".into(),
            reason: "no".into(),
            spiffe_id: None,
            pod_uid: None,
        };
        AuditEvent::new(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second),
            action,
        )
    }

    fn written(sampler: &Sampler, event: AuditEvent) -> Vec<AuditEvent> {
        match sampler.admit(event) {
            Sampled::Write(events) => events,
            Sampled::Counted => Vec::new(),
        }
    }

    #[test]
    fn beyond_the_rate_refusals_are_counted_and_the_next_line_says_how_many() {
        let sampler = Sampler::default();
        let at_once: usize = (0..100).map(|_| written(&sampler, refusal("a", 0)).len()).sum();
        assert_eq!(at_once, 20);
        assert_eq!(
            written(&sampler, refusal("b", 0)).len(),
            1,
            "another caller has a budget of its own"
        );
        let later = written(&sampler, refusal("a", 5));
        assert_eq!(later.len(), 2);
        assert!(matches!(
            later[0].action(),
            AuditAction::RefusalsSuppressed { count: 80, .. }
        ));
    }

    #[test]
    fn the_count_of_a_caller_that_stops_is_not_lost() {
        let sampler = Sampler::default();
        (0..25).for_each(|_| drop(sampler.admit(refusal("a", 0))));
        assert!(sampler.drain_idle(refusal("a", 59).time()).is_empty());
        let left = sampler.drain_idle(refusal("a", 60).time());
        assert!(matches!(
            left[0].action(),
            AuditAction::RefusalsSuppressed { count: 5, .. }
        ));
        assert!(sampler.drain_idle(refusal("a", 600).time()).is_empty());
    }

    #[test]
    fn callers_without_number_share_one_budget_at_last() {
        let sampler = Sampler::default();
        let lines: usize = (0..10_000)
            .map(|n| written(&sampler, refusal(&format!("caller {n}"), 0)).len())
            .sum();
        assert_eq!(lines, 4096 + 20);
    }
}
