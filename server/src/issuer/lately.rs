//! What pods were refused lately, for an admin who asks why one of them has nothing. Memory, and gone with the process.
//!
//! Of a pod's refusals the last of each kind is kept, so that one that is tried again and again takes no more than one that is not; and
//! an agent takes no other agent's places, whatever it asks for.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use signet_runtime::{error::excerpt, limits::Limit, sync::Mutex};

use super::{IssueItem, NotIssued, Outcome, types::Evidence};

/// Refusals that are remembered of one agent's pods. A node has a pod for each.
const SHARE: usize = 256;
/// And of those of all agents.
const KEPT: usize = 32_768;
/// Longest text of one, in characters.
const LONGEST: usize = 300;
/// Longest UID of a pod, in bytes: Kubernetes gives them 36. Whatever is longer is no pod's.
const LONGEST_UID: usize = 128;
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
pub(super) struct Lately(Mutex<Kept>);

/// By the agent that asked: what is refused before it is attested is about this pod by that agent's word.
#[derive(Debug, Default)]
struct Kept {
    by_agent: HashMap<String, VecDeque<About>>,
    /// How many there are.
    len: usize,
}

/// A refusal, and the pod that it is about. The newest come last.
#[derive(Debug)]
struct About {
    pod_uid: String,
    refused: RefusedOnce,
}

/// The pod that an item is about, by the word of whoever asks; the item says it no more.
pub(super) fn take_pod(item: &mut IssueItem) -> Option<String> {
    match &mut item.evidence {
        Evidence::PodToken { of_pod, .. } => of_pod.take(),
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
            let pod = refusal.pod_uid.clone().or(pod);
            let Some(pod_uid) = pod.filter(|uid| uid.len() <= LONGEST_UID) else {
                continue;
            };
            let refused = RefusedOnce {
                at,
                kind: refusal.reason.as_str(),
                message: excerpt(&refusal.message, LONGEST),
            };
            self.0.lock().keep(agent, About { pod_uid, refused });
        }
    }

    /// The last ones of a pod that this agent asked for, newest first.
    pub(super) fn of(&self, pod_uid: &str, agent: &str) -> Vec<RefusedOnce> {
        let kept = self.0.lock();
        let of_agent = kept.by_agent.get(agent).into_iter().flatten().rev();
        let of_pod = of_agent.filter(|about| about.pod_uid == pod_uid);
        of_pod.take(TOLD).map(|about| about.refused.clone()).collect()
    }
}

impl Kept {
    fn keep(&mut self, agent: &str, about: About) {
        let of_agent = self.by_agent.entry(agent.to_owned()).or_default();
        let before = of_agent.len();
        of_agent.retain(|known| known.pod_uid != about.pod_uid || known.refused.kind != about.refused.kind);
        if of_agent.len() >= SHARE {
            of_agent.pop_front();
        }
        of_agent.push_back(about);
        self.len = self.len + of_agent.len() - before;
        if self.len > KEPT {
            self.forget_one();
        }
    }

    /// The oldest of whichever agent has the most.
    fn forget_one(&mut self) {
        let most = self.by_agent.iter_mut().max_by_key(|(_, kept)| kept.len());
        let Some((agent, kept)) = most else { return };
        if kept.pop_front().is_some() {
            self.len -= 1;
        }
        if kept.is_empty() {
            let agent = agent.clone();
            self.by_agent.remove(&agent);
        }
    }
}

/// The row of the table of limits.
pub(super) fn limit() -> Limit {
    Limit {
        who: "an agent",
        what: "refusals of its pods that are remembered, the last of each kind and pod",
        share: format!("an equal part of {KEPT}"),
        cap: SHARE.to_string(),
        counted: "server::issuer::lately",
        metric: "signet_server_certificates_refused_total",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::RefusalReason;
    use super::*;

    fn refused(reason: RefusalReason, message: &str) -> Outcome {
        Err(NotIssued::refused(reason, message.to_owned()))
    }

    fn note(lately: &Lately, agent: &str, pod: &str, outcome: Outcome) {
        lately.note(agent, vec![Some(pod.to_owned())], &[outcome], UNIX_EPOCH);
    }

    fn told(lately: &Lately, pod: &str, agent: &str) -> Vec<String> {
        let told = lately.of(pod, agent);
        told.into_iter().map(|one| one.message).collect()
    }

    #[test]
    fn the_last_few_kinds_of_a_pod_are_told_to_whoever_asks_about_its_agent() {
        let lately = Lately::default();
        for (n, reason) in RefusalReason::ALL.into_iter().enumerate() {
            let at = UNIX_EPOCH + Duration::from_secs(n as u64);
            let outcome = refused(reason, &n.to_string());
            lately.note("agent", vec![Some("pod".to_owned())], &[outcome], at);
        }
        note(&lately, "agent", "pod", refused(RefusalReason::NoMatch, "again"));
        note(
            &lately,
            "rogue",
            "pod",
            refused(RefusalReason::NotAttested, "lie"),
        );
        assert_eq!(told(&lately, "pod", "agent"), ["again", "4", "3"]);
        assert!(lately.of("other", "agent").is_empty());
    }

    #[test]
    fn one_that_is_tried_again_and_again_takes_one_place() {
        let lately = Lately::default();
        note(
            &lately,
            "agent",
            "quiet",
            refused(RefusalReason::NotAttested, "once"),
        );
        for n in 0..2 * SHARE {
            note(
                &lately,
                "agent",
                "busy",
                refused(RefusalReason::NoMatch, &n.to_string()),
            );
        }
        assert_eq!(told(&lately, "quiet", "agent"), ["once"]);
        assert_eq!(told(&lately, "busy", "agent"), [(2 * SHARE - 1).to_string()]);
        assert_eq!(lately.0.lock().len, 2);
    }

    #[test]
    fn an_agent_takes_no_other_agents_places() {
        let lately = Lately::default();
        note(&lately, "honest", "pod", refused(RefusalReason::NoMatch, "why"));
        let agents = 2 * KEPT / SHARE;
        for agent in 0..agents {
            for pod in 0..SHARE + 1 {
                let long = "x".repeat(1000);
                note(
                    &lately,
                    &agent.to_string(),
                    &pod.to_string(),
                    refused(RefusalReason::NoMatch, &long),
                );
            }
        }
        let kept = lately
            .0
            .lock()
            .by_agent
            .values()
            .map(VecDeque::len)
            .sum::<usize>();
        assert_eq!((kept, lately.0.lock().len), (KEPT, KEPT));
        assert_eq!(told(&lately, "pod", "honest"), ["why"]);
        let last = (agents - 1).to_string();
        assert!(lately.of("0", &last).is_empty());
        assert_eq!(told(&lately, &SHARE.to_string(), &last)[0].len(), LONGEST);
    }

    #[test]
    fn an_agent_of_whom_nothing_is_kept_is_forgotten() {
        let lately = Lately::default();
        for agent in 0..KEPT + 10 {
            let why = refused(RefusalReason::NoMatch, "why");
            note(&lately, &agent.to_string(), "pod", why);
        }
        let kept = lately.0.lock();
        assert_eq!((kept.by_agent.len(), kept.len), (KEPT, KEPT));
    }

    #[test]
    fn what_no_pod_has_for_a_uid_is_not_kept() {
        let lately = Lately::default();
        note(
            &lately,
            "agent",
            &"x".repeat(LONGEST_UID + 1),
            refused(RefusalReason::NoMatch, "why"),
        );
        assert_eq!(lately.0.lock().len, 0);
        assert!(lately.0.lock().by_agent.is_empty());
    }
}
