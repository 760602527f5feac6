//! Tokens that were refused after calls to the API server: brought again within a few seconds, they cost no further ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::limits::{Limit, time};
use signet_runtime::sync::Mutex;
use tokio::time::Instant;

use super::RefusedReason;
use super::token_review::TokenKey;
use crate::kubernetes::pods::LivePod;

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
    /// In the order in which they end; each token once.
    by_age: BTreeMap<u64, TokenKey>,
    /// Numbers refusals.
    last: u64,
}

struct Refused {
    number: u64,
    at: Instant,
    reason: RefusedReason,
    grounds: Grounds,
}

impl RefusedTokens {
    /// Why this token was refused, if that was moments ago and on the same grounds.
    pub(super) fn get(&self, key: &TokenKey, grounds: &Grounds) -> Option<RefusedReason> {
        let state = self.0.lock();
        let refused = state.refused.get(key)?;
        refused
            .holds(Instant::now(), grounds)
            .then(|| refused.reason.clone())
    }

    /// This token is refused. The grounds are those from before the API server was asked: what changed since then counts. One that
    /// was refused on the same grounds moments ago keeps its time: who asks on and on must hear of a change at some time.
    pub(super) fn put(&self, key: TokenKey, grounds: Grounds, reason: RefusedReason) {
        let mut state = self.0.lock();
        let at = Instant::now();
        if state
            .refused
            .get(&key)
            .is_some_and(|known| known.holds(at, &grounds))
        {
            return;
        }
        state.take(&key);
        state.end_old(at);
        state.last += 1;
        let number = state.last;
        state.by_age.insert(number, key);
        let refused = Refused {
            number,
            at,
            reason,
            grounds,
        };
        state.refused.insert(key, refused);
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        *self.0.lock() = State::default();
    }
}

impl Refused {
    fn holds(&self, now: Instant, grounds: &Grounds) -> bool {
        self.is_recent(now) && self.grounds == *grounds
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < REMEMBERED_FOR
    }
}

impl State {
    fn take(&mut self, key: &TokenKey) {
        if let Some(refused) = self.refused.remove(key) {
            self.by_age.remove(&refused.number);
        }
    }

    /// Makes room for another one.
    fn end_old(&mut self, now: Instant) {
        while let Some((_, key)) = self.by_age.first_key_value() {
            let (key, is_full) = (*key, self.by_age.len() >= MOST);
            if !is_full && self.refused.get(&key).is_some_and(|oldest| oldest.is_recent(now)) {
                return;
            }
            self.take(&key);
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

    /// Whoever brings one token on grounds that change without end pushes nobody's out.
    #[tokio::test(start_paused = true)]
    async fn a_token_takes_one_place_however_often_it_is_refused() {
        let refused = RefusedTokens::default();
        refused.put(key(1), grounds(1), gone());
        for change in 0..2 * MOST as u64 {
            refused.put(key(2), grounds(change), gone());
        }
        assert_eq!(refused.get(&key(1), &grounds(1)), Some(gone()));
        let state = refused.0.lock();
        assert_eq!((state.by_age.len(), state.refused.len()), (2, 2));
    }

    /// Those who asked at the same time as another hear his verdict, and do not prolong it.
    #[tokio::test(start_paused = true)]
    async fn the_same_refusal_again_lasts_no_longer() {
        let refused = RefusedTokens::default();
        refused.put(key(1), grounds(1), gone());
        advance(REMEMBERED_FOR / 2).await;
        refused.put(key(1), grounds(1), gone());
        advance(REMEMBERED_FOR / 2).await;
        assert_eq!(refused.get(&key(1), &grounds(1)), None);
    }
}
