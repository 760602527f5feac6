//! Refusals are written in full at a human rate and counted beyond it, per caller, so that whoever hammers the server
//! cannot bury the log or fill the disk. Nor can noise of one kind hide a theft: the first refusal of each kind in each
//! minute is written whatever came before.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use signet_runtime::bucket::{Bucket, Rate};
use signet_runtime::sync::Mutex;

use super::{AuditAction, AuditEvent};

/// Refusals of one caller that are written: so many at once, so many per second on average.
const WRITTEN: Rate = Rate {
    per_second: 1.0,
    burst: 20.0,
};
/// After so long without a refusal the count of a caller is written and the caller forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Callers told apart; further ones share one budget, unless they have proved who they are.
const CALLERS: usize = 4096;
/// The shared budget's name.
const OTHERS: &str = "others";

/// Decides which refusals are written.
#[derive(Default)]
pub(super) struct Sampler(Mutex<HashMap<String, Caller>>);

struct Caller {
    bucket: Bucket<SystemTime>,
    seen: SystemTime,
    suppressed: u64,
    /// The minute in which a refusal of a kind was written first.
    minutes: HashMap<&'static str, u64>,
}

impl Sampler {
    /// What is to be written: the event, and before it what was suppressed of its caller; nothing when it was only
    /// counted. Events other than refusals always pass.
    pub(super) fn admit(&self, event: AuditEvent) -> Vec<AuditEvent> {
        let AuditAction::Refused { caller, kind, .. } = event.action() else {
            return vec![event];
        };
        let now = event.time();
        let mut callers = self.0.lock();
        let is_proven = caller.starts_with("spiffe://");
        let name = if is_proven || callers.len() < CALLERS || callers.contains_key(caller) {
            caller.as_str()
        } else {
            OTHERS
        };
        let name = name.to_owned();
        let fresh = || Caller {
            bucket: Bucket::full(WRITTEN, now),
            seen: now,
            suppressed: 0,
            minutes: HashMap::new(),
        };
        let state = callers.entry(name.clone()).or_insert_with(fresh);
        state.seen = now;
        let is_first = state.minutes.insert(kind, minute(now)) != Some(minute(now));
        if state.bucket.take(now).is_err() && !is_first {
            state.suppressed += 1;
            return Vec::new();
        }
        let count = std::mem::take(&mut state.suppressed);
        let suppressed = (count > 0).then(|| suppressed(now, name, count));
        suppressed.into_iter().chain([event]).collect()
    }

    /// Forgets callers that have been quiet, and returns what is left to be said of them.
    pub(super) fn drain_idle(&self, now: SystemTime) -> Vec<AuditEvent> {
        let mut callers = self.0.lock();
        let idle =
            callers.extract_if(|_, caller| now.duration_since(caller.seen).is_ok_and(|quiet| quiet >= IDLE));
        let counted = idle.filter(|(_, caller)| caller.suppressed > 0);
        counted
            .map(|(name, caller)| suppressed(now, name, caller.suppressed))
            .collect()
    }
}

fn minute(now: SystemTime) -> u64 {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since_1970.as_secs() / 60
}

fn suppressed(now: SystemTime, caller: String, count: u64) -> AuditEvent {
    AuditEvent::new(now, AuditAction::RefusalsSuppressed { caller, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(caller: &str, second: u64) -> AuditEvent {
        refusal_of("budget", caller, second)
    }

    fn refusal_of(kind: &'static str, caller: &str, second: u64) -> AuditEvent {
        let action = AuditAction::Refused {
            caller: caller.into(),
            operation: "issue".into(),
            kind,
            reason: "no".into(),
            spiffe_id: None,
            pod_uid: None,
        };
        AuditEvent::new(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second),
            action,
        )
    }

    #[test]
    fn beyond_the_rate_refusals_are_counted_and_the_next_line_says_how_many() {
        let sampler = Sampler::default();
        let at_once: usize = (0..100).map(|_| sampler.admit(refusal("a", 0)).len()).sum();
        assert_eq!(at_once, 20);
        assert_eq!(
            sampler.admit(refusal("b", 0)).len(),
            1,
            "another caller has a budget of its own"
        );
        let later = sampler.admit(refusal("a", 5));
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
    fn noise_hides_no_kind_for_longer_than_a_minute() {
        let sampler = Sampler::default();
        let mut written = 0;
        // 1,800,000,000 s begins a minute.
        for second in 0..120 {
            (0..50).for_each(|_| drop(sampler.admit(refusal("a", second))));
            for _ in 0..10 {
                let admitted = sampler.admit(refusal_of("revoked", "a", second));
                written += usize::from(!admitted.is_empty());
            }
        }
        assert_eq!(written, 2, "one in each minute");
    }

    #[test]
    fn a_crowd_of_strangers_takes_nothing_from_an_agent() {
        let sampler = Sampler::default();
        (0..10_000).for_each(|n| drop(sampler.admit(refusal(&format!("10.0.{}.{}", n / 256, n % 256), 0))));
        assert_eq!(
            sampler
                .admit(refusal("spiffe://example.org/signet/agent/c/n", 0))
                .len(),
            1
        );
    }

    #[test]
    fn callers_without_number_share_one_budget_at_last() {
        let sampler = Sampler::default();
        let lines: usize = (0..10_000)
            .map(|n| sampler.admit(refusal(&format!("caller {n}"), 0)).len())
            .sum();
        assert_eq!(lines, 4096 + 20);
    }
}
