//! What API servers have said of tokens, as long as the watches show that they would say it again.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::clock::Clock as _;
use tokio::time::interval;

use super::Cluster;
use super::token::Role;
use crate::attest::policy::ReviewedToken;
use crate::attest::token_review::{TokenKey, TokenReviewer};
use crate::kubernetes::claims::KubernetesClaims;
use crate::kubernetes::pods::{PodEventKind, TellPod};

const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl Cluster {
    /// Forgets what the API server has said of tokens.
    pub(in crate::attest::cluster) fn forget_reviews(&self) {
        self.reviewer.forget_all();
        self.vouched.forget();
        self.refused.clear();
    }

    /// Lets go, for ever, of what is kept and holds no longer.
    pub(super) async fn sweep(&self) {
        let mut timer = interval(SWEEP_EVERY);
        loop {
            timer.tick().await;
            // An unsynced watch shows nothing that would be a reason to forget.
            let synced = self.watch.is_synced();
            if self.reach.unreachable_since().is_none() {
                self.nodes.sweep(self.clock.elapsed());
            }
            self.reviewer
                .sweep(self.good_at(), |pod_uid| !synced || self.watch.has_pod(pod_uid))
                .await;
        }
    }

    /// A kept review counts while the cluster still has the key that signed its token, and the watches are synced and show
    /// that its service account and its pod still exist: that is all another review would add. In an outage they show what
    /// there was when it began.
    pub(super) fn kept_review(&self, key: &TokenKey, token: &str) -> Option<Arc<ReviewedToken>> {
        let review = self.reviewer.kept(key, self.good_at())?;
        if !self.is_watch_believed() {
            return None;
        }
        let holds = self.keys.still_verify(token) && self.shows(&review);
        if !holds {
            self.reviewer.forget(key, &review);
            return None;
        }
        Some(review)
    }

    /// A review that was made for a process before this one, under the same conditions: the token's signature was just checked. Not
    /// in an outage: the watches then show no more than what there was, and this process has asked nobody about the token.
    pub(super) fn vouched_for(
        &self,
        role: Role<'_>,
        claims: &KubernetesClaims,
    ) -> Option<Arc<ReviewedToken>> {
        let review = ReviewedToken::of_claims(claims)?;
        let holds = matches!(role, Role::PodOf(_))
            && review.expires > self.good_at()
            && self.watch.holds()
            && self.reach.unreachable_since().is_none()
            && self.shows(&review);
        let elapsed = self.clock.elapsed();
        let known = holds
            && self
                .vouched
                .take(self.uid.get()?, &review.pod_uid, &review.jti, elapsed);
        known.then(|| Arc::new(review))
    }

    /// Whether the watches show the pod and the service account of a token.
    fn shows(&self, review: &ReviewedToken) -> bool {
        let (namespace, account) = (&review.namespace, &review.service_account);
        self.watch.has_pod(&review.pod_uid)
            && self
                .watch
                .has_account(namespace, account, &review.service_account_uid)
    }
}

/// Whoever hears of pods, after what is kept of one that is gone was dropped.
pub(super) fn forgetting(reviewer: Arc<TokenReviewer>, tell: TellPod) -> TellPod {
    Arc::new(move |event| {
        if event.kind == PodEventKind::Gone {
            reviewer.forget_pod(&event.pod_uid);
        }
        tell(event);
    })
}
