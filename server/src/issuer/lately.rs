//! What pods were refused lately, for an admin who asks why one of them has nothing. Memory, and gone with the process.

use std::collections::VecDeque;
use std::time::SystemTime;

use signet_runtime::{error::excerpt, sync::Mutex};

use super::{IssueItem, NotIssued, Outcome, types::Evidence};

/// Refusals that are remembered, of all pods together.
const KEPT: usize = 4096;
/// Longest text of one, in characters.
const LONGEST: usize = 300;
/// Most of one pod that are told.
const TOLD: usize = 3;

/// A refusal of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedOnce {
    /// When.
    pub at: SystemTime,
    /// Its kind: a [name](super::RefusalReason::as_str) of a reason.
    pub kind: &'static str,
    /// What the agent was told.
    pub message: String,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<VecDeque<(Key, RefusedOnce)>>);

/// The pod, and the agent that asked for it: what is refused before it is attested is about this pod by that agent's word.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    pod_uid: String,
    agent: String,
}

/// The pod that an item is about, by the word of whoever asks.
pub(super) fn pod_of(item: &IssueItem) -> Option<String> {
    match &item.evidence {
        Evidence::PodToken { of_pod, .. } => of_pod.clone(),
        Evidence::Unix { .. } => None,
    }
}

impl Lately {
    /// Remembers those of the outcomes that are refusals.
    pub(super) fn note(&self, agent: &str, pods: Vec<Option<String>>, outcomes: &[Outcome], at: SystemTime) {
        for (pod, outcome) in pods.into_iter().zip(outcomes) {
            let Err(NotIssued::Refused(refusal)) = outcome else {
                continue;
            };
            let Some(pod_uid) = refusal.pod_uid.clone().or(pod) else {
                continue;
            };
            let refused = RefusedOnce {
                at,
                kind: refusal.reason.as_str(),
                message: excerpt(&refusal.message, LONGEST),
            };
            let agent = agent.to_owned();
            let mut kept = self.0.lock();
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back((Key { pod_uid, agent }, refused));
        }
    }

    /// The last ones of a pod that this agent asked for, newest first.
    pub(super) fn of(&self, pod_uid: &str, agent: &str) -> Vec<RefusedOnce> {
        let kept = self.0.lock();
        let of_pod = kept
            .iter()
            .rev()
            .filter(|(key, _)| key.pod_uid == pod_uid && key.agent == agent);
        of_pod.take(TOLD).map(|(_, refused)| refused.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::RefusalReason;
    use super::*;

    fn refused(message: String) -> Outcome {
        Err(NotIssued::refused(RefusalReason::NotAttested, message))
    }

    #[test]
    fn the_last_few_of_a_pod_are_told_to_whoever_asks_about_its_agent() {
        let lately = Lately::default();
        for n in 0..5 {
            let at = UNIX_EPOCH + Duration::from_secs(n);
            lately.note(
                "agent",
                vec![Some("pod".to_owned())],
                &[refused(n.to_string())],
                at,
            );
        }
        lately.note(
            "rogue",
            vec![Some("pod".to_owned())],
            &[refused("lie".to_owned())],
            UNIX_EPOCH,
        );
        let told = lately.of("pod", "agent");
        let messages: Vec<_> = told.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(messages, ["4", "3", "2"]);
        assert!(lately.of("other", "agent").is_empty());
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let lately = Lately::default();
        for n in 0..2 * KEPT {
            lately.note(
                "agent",
                vec![Some(n.to_string())],
                &[refused("x".repeat(1000))],
                UNIX_EPOCH,
            );
        }
        assert_eq!(lately.0.lock().len(), KEPT);
        assert!(lately.of("0", "agent").is_empty());
        assert_eq!(
            lately.of(&(2 * KEPT - 1).to_string(), "agent")[0].message.len(),
            LONGEST
        );
    }
}
