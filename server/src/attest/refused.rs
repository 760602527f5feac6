//! Tokens that were refused after calls to the API server: brought again within a few seconds, they cost no further ones.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::limits::{Limit, time};
use signet_runtime::sync::Mutex;
use tokio::time::Instant;

use super::RefusedReason;
use super::pods::LivePod;
use super::token_review::TokenKey;

/// How long a refusal stands in for another. What is not watched may change meanwhile: a node, or the API server's mind.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Most refusals that are remembered; those that came first go first. At the usual rate of calls there are 2,000.
const MOST: usize = 8192;

/// What a verdict rested on beside the API server's words. Where any of it is different, there may be another verdict.
#[derive(Clone, PartialEq)]
pub(super) struct Grounds {
    /// The token's pod, as the watch showed it.
    pub(super) pod: Option<Arc<LivePod>>,
    /// Whether the watch showed the token's service account.
    pub(super) has_account: bool,
    /// Which reading of the cluster's signing keys was in force.
    pub(super) keys: u64,
}

/// Refusals of one cluster. Only verdicts on the token itself: none that depends on who brings it, none that was put off.
#[derive(Default)]
pub(super) struct RefusedTokens(Mutex<State>);

#[derive(Default)]
struct State {
    refused: HashMap<TokenKey, Refused>,
    /// In the order in which they end.
    by_age: VecDeque<(Instant, TokenKey)>,
}

struct Refused {
    at: Instant,
    reason: RefusedReason,
    grounds: Grounds,
}

impl RefusedTokens {
    /// Why this token was refused, if that was moments ago and on the same grounds.
    pub(super) fn get(&self, key: &TokenKey, grounds: &Grounds) -> Option<RefusedReason> {
        let state = self.0.lock();
        let refused = state.refused.get(key)?;
        let holds = refused.at.elapsed() < REMEMBERED_FOR && refused.grounds == *grounds;
        holds.then(|| refused.reason.clone())
    }

    /// This token is refused. The grounds are those from before the API server was asked: what changed since then counts.
    pub(super) fn put(&self, key: TokenKey, grounds: Grounds, reason: RefusedReason) {
        let mut state = self.0.lock();
        let at = Instant::now();
        state.end_old(at);
        let refused = Refused { at, reason, grounds };
        state.refused.insert(key, refused);
        state.by_age.push_back((at, key));
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        *self.0.lock() = State::default();
    }
}

impl State {
    /// Makes room for another one.
    fn end_old(&mut self, now: Instant) {
        while let Some((at, key)) = self.by_age.front().copied()
            && (self.by_age.len() >= MOST || now.saturating_duration_since(at) >= REMEMBERED_FOR)
        {
            self.by_age.pop_front();
            // It may have been refused anew meanwhile.
            if self.refused.get(&key).is_some_and(|refused| refused.at == at) {
                self.refused.remove(&key);
            }
        }
    }
}

/// As docs/limits.md prints it.
pub(super) fn limit() -> Limit {
    Limit {
        who: "a token",
        what: "calls to the API server that end in a refusal",
        share: "none".to_owned(),
        cap: format!("one try each {}, of {MOST} tokens", time(REMEMBERED_FOR)),
        counted: "server::attest::refused",
        metric: "signet_server_certificates_refused_total",
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn key(number: usize) -> TokenKey {
        TokenKey::new("audience", &number.to_string())
    }

    fn grounds(keys: u64) -> Grounds {
        Grounds {
            pod: None,
            has_account: true,
            keys,
        }
    }

    fn gone() -> RefusedReason {
        RefusedReason::PodGone {
            pod: "shop/web-0".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_for_ten_seconds_and_on_the_same_grounds() {
        let refused = RefusedTokens::default();
        refused.put(key(1), grounds(1), gone());
        assert_eq!(refused.get(&key(1), &grounds(1)), Some(gone()));
        assert_eq!(refused.get(&key(2), &grounds(1)), None);
        let no_account = Grounds {
            has_account: false,
            ..grounds(1)
        };
        for other in [grounds(2), no_account] {
            assert_eq!(refused.get(&key(1), &other), None);
        }
        advance(REMEMBERED_FOR - Duration::from_millis(1)).await;
        assert_eq!(refused.get(&key(1), &grounds(1)), Some(gone()));
        advance(Duration::from_millis(1)).await;
        assert_eq!(refused.get(&key(1), &grounds(1)), None);
        refused.put(key(1), grounds(2), gone());
        assert_eq!(refused.get(&key(1), &grounds(2)), Some(gone()), "anew");
        refused.clear();
        assert_eq!(refused.get(&key(1), &grounds(2)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_make_room_and_nothing_is_kept_beyond_its_time() {
        let refused = RefusedTokens::default();
        for number in 0..MOST + 10 {
            refused.put(key(number), grounds(1), gone());
            // The same one again takes no place of another's.
            refused.put(key(MOST + 10), grounds(1), gone());
            let state = refused.0.lock();
            assert!(state.by_age.len() <= MOST && state.refused.len() <= MOST);
        }
        assert_eq!(refused.get(&key(0), &grounds(1)), None);
        assert_eq!(refused.get(&key(MOST + 9), &grounds(1)), Some(gone()));
        assert_eq!(refused.get(&key(MOST + 10), &grounds(1)), Some(gone()));
        advance(REMEMBERED_FOR).await;
        refused.put(key(1), grounds(1), gone());
        let state = refused.0.lock();
        assert_eq!((state.by_age.len(), state.refused.len()), (1, 1));
    }
}
