//! Positive reviews that were made, found by token: so many as there are pods to make them for.
//!
//! A review names a pod that the API server itself has vouched for, so nobody makes pods up; and a pod has a few places, of which
//! its own newest tokens take its own oldest. What is over goes with its pod, and a look over all of them takes one part after
//! the other, so that nobody who asks about a token waits for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use signet_runtime::limits::Limit;
use signet_runtime::sync::Mutex;
use tokio::task::yield_now;

use super::TokenKey;
use crate::attest::policy::ReviewedToken;

/// Reviews of one pod: two audiences, and a token's successor comes before it expires.
const PER_POD: usize = 4;
/// Pods beyond those that the watch shows: some are asked for before it does, and before it is complete.
const MORE_PODS: usize = 16_384;
const PARTS: usize = 64;

/// Reviews by token, in parts that are locked one by one. A pod's part is locked before that of its token, if both are.
pub(super) struct Kept {
    reviews: [Mutex<HashMap<TokenKey, Arc<ReviewedToken>>>; PARTS],
    /// The tokens of each pod, oldest first.
    pods: [Mutex<HashMap<Arc<str>, Vec<TokenKey>>>; PARTS],
    pod_count: AtomicUsize,
    displaced: AtomicU64,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            reviews: std::array::from_fn(|_| Mutex::default()),
            pods: std::array::from_fn(|_| Mutex::default()),
            pod_count: AtomicUsize::new(0),
            displaced: AtomicU64::new(0),
        }
    }
}

impl Kept {
    /// The review of a token that has not expired.
    pub(super) fn get(&self, key: &TokenKey, now: SystemTime) -> Option<Arc<ReviewedToken>> {
        let reviews = self.reviews_of(key).lock();
        reviews.get(key).filter(|review| review.expires > now).cloned()
    }

    /// Keeps a review, in place of its pod's oldest one where that has all its places; `shown` is how many pods there are.
    pub(super) fn put(&self, key: TokenKey, review: Arc<ReviewedToken>, shown: usize) {
        let mut pods = self.pods_of(&review.pod_uid).lock();
        if !pods.contains_key(review.pod_uid.as_str()) {
            if self.pod_count.load(Ordering::Relaxed) >= shown.saturating_add(MORE_PODS) {
                self.displaced.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.pod_count.fetch_add(1, Ordering::Relaxed);
            pods.insert(review.pod_uid.as_str().into(), Vec::with_capacity(1));
        }
        let Some(keys) = pods.get_mut(review.pod_uid.as_str()) else {
            return;
        };
        keys.retain(|known| *known != key);
        if keys.len() >= PER_POD {
            let oldest = keys.remove(0);
            self.reviews_of(&oldest).lock().remove(&oldest);
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
        keys.push(key);
        self.reviews_of(&key).lock().insert(key, review);
    }

    /// Drops the review of one token of a pod.
    pub(super) fn forget(&self, key: &TokenKey, pod_uid: &str) {
        let mut pods = self.pods_of(pod_uid).lock();
        self.reviews_of(key).lock().remove(key);
        if let Some(keys) = pods.get_mut(pod_uid) {
            keys.retain(|known| known != key);
            if keys.is_empty() {
                pods.remove(pod_uid);
                self.pod_count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Drops the reviews of a pod that is gone.
    pub(super) fn forget_pod(&self, uid: &str) {
        let mut pods = self.pods_of(uid).lock();
        if let Some(keys) = pods.remove(uid) {
            self.pod_count.fetch_sub(1, Ordering::Relaxed);
            self.remove(&keys);
        }
    }

    /// Drops everything.
    pub(super) fn clear(&self) {
        for part in &self.pods {
            self.sweep_part(part, |_| false, SystemTime::UNIX_EPOCH);
        }
    }

    /// Drops the reviews of expired tokens, and of the pods that are not `there`.
    pub(super) async fn sweep(&self, now: SystemTime, there: impl Fn(&str) -> bool) {
        for part in &self.pods {
            self.sweep_part(part, &there, now);
            yield_now().await;
        }
    }

    fn sweep_part(
        &self,
        part: &Mutex<HashMap<Arc<str>, Vec<TokenKey>>>,
        there: impl Fn(&str) -> bool,
        now: SystemTime,
    ) {
        let mut pods = part.lock();
        let before = pods.len();
        pods.retain(|uid, keys| {
            if there(uid) {
                keys.retain(|key| self.is_good(key, now));
            } else {
                self.remove(keys);
                keys.clear();
            }
            !keys.is_empty()
        });
        self.pod_count.fetch_sub(before - pods.len(), Ordering::Relaxed);
    }

    /// Whether a review is there and counts still; takes it away if it does not.
    fn is_good(&self, key: &TokenKey, now: SystemTime) -> bool {
        let mut reviews = self.reviews_of(key).lock();
        let good = reviews.get(key).is_some_and(|review| review.expires > now);
        if !good {
            reviews.remove(key);
        }
        good
    }

    fn remove(&self, keys: &[TokenKey]) {
        for key in keys {
            self.reviews_of(key).lock().remove(key);
        }
    }

    fn reviews_of(&self, key: &TokenKey) -> &Mutex<HashMap<TokenKey, Arc<ReviewedToken>>> {
        &self.reviews[usize::from(key.0[0]) % PARTS]
    }

    fn pods_of(&self, uid: &str) -> &Mutex<HashMap<Arc<str>, Vec<TokenKey>>> {
        let sum = uid.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        &self.pods[sum % PARTS]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.reviews.iter().map(|part| part.lock().len()).sum()
    }

    /// How many were given up for others, or not kept for want of room.
    pub(super) fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }
}

/// What a pod may take of this.
pub(crate) fn limit() -> Limit {
    Limit {
        who: "a pod",
        what: "reviews of its tokens that are remembered",
        share: PER_POD.to_string(),
        cap: format!("{PER_POD}, for as many pods as there are and {MORE_PODS} more"),
        counted: "server::attest::token_review::kept",
        metric: "signet_server_token_reviews_displaced_total",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(number: usize) -> TokenKey {
        TokenKey::new("pod", &number.to_string())
    }

    fn review(pod: usize) -> Arc<ReviewedToken> {
        let text = |of: &str| format!("{of}-{pod}");
        Arc::new(ReviewedToken {
            namespace: "shop".into(),
            service_account: "web".into(),
            service_account_uid: "uid".into(),
            pod_name: text("web"),
            pod_uid: text("uid"),
            node_name: "node".into(),
            node_uid: "uid-of-node".into(),
            jti: text("jti"),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(3600),
        })
    }

    /// Whoever has many tokens made for one pod displaces that pod's own reviews.
    #[test]
    fn a_pod_with_many_tokens_takes_no_other_pods_place() {
        let (kept, now) = (Kept::default(), SystemTime::UNIX_EPOCH);
        kept.put(key(0), review(0), 0);
        for number in 1..1000 {
            kept.put(key(number), review(1), 0);
        }
        assert_eq!(kept.len(), 1 + PER_POD);
        assert!(kept.get(&key(0), now).is_some());
        assert!(kept.get(&key(995), now).is_none());
        assert!(kept.get(&key(996), now).is_some());
        assert_eq!(kept.displaced(), 995);
        kept.put(key(999), review(1), 0);
        assert_eq!(
            (kept.len(), kept.displaced()),
            (1 + PER_POD, 995),
            "the same again takes no place"
        );
    }

    #[tokio::test]
    async fn there_is_room_for_as_many_pods_as_there_are() {
        let (kept, now) = (Kept::default(), SystemTime::UNIX_EPOCH);
        let pods = MORE_PODS + 1000;
        for pod in 0..=pods {
            kept.put(key(pod), review(pod), 1000);
        }
        assert_eq!(
            (kept.len(), kept.displaced()),
            (pods, 1),
            "no more than the bound"
        );
        kept.put(key(pods), review(pods), 300_000);
        assert!(
            kept.get(&key(pods), now).is_some(),
            "the bound goes with the pods"
        );
        kept.sweep(now, |uid| uid == "uid-7").await;
        assert_eq!(kept.len(), 1);
        for pod in 0..MORE_PODS {
            kept.put(key(pod), review(pod), 0);
        }
        assert_eq!(kept.len(), MORE_PODS, "what was swept makes room");
    }

    #[test]
    #[ignore = "prints how much memory a review takes: cargo test --workspace --lib -- --ignored --nocapture memory_of_a_review"]
    fn memory_of_a_review() {
        let resident = || -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
        };
        let (kept, before) = (Kept::default(), resident());
        for pod in 0..100_000 {
            kept.put(key(pod), review(pod), 100_000);
        }
        println!("{} bytes each", (resident() - before) / 100_000);
    }
}
