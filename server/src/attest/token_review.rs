//! TokenReviews: one per token, shared by those who ask at the same time, kept while the watches would show their end.

mod kept;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use signet_runtime::keyed::Keyed;
use tokio::sync::OnceCell;

use self::kept::Kept;
pub(crate) use self::kept::limit;
use super::AttestError;
use super::policy::{ReviewedToken, read_review};
use crate::kubernetes::api::{CallError, KubeApi, Purpose};
use crate::kubernetes::budget::Payer;
use crate::kubernetes::claims::KubernetesClaims;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ANSWER_BYTES: usize = 256 * 1024;
const PURPOSE: Purpose = Purpose {
    doing: "reviewing a token",
    permission: "create tokenreviews.authentication.k8s.io",
};

/// Names a token and the audience it was brought for, without being it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenKey([u8; 32]);

impl TokenKey {
    pub(super) fn new(audience: &str, token: &str) -> Self {
        let mut context = Context::new(&SHA256);
        // The length keeps audience and token apart.
        context.update(&(audience.len() as u64).to_be_bytes());
        context.update(audience.as_bytes());
        context.update(token.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }
}

type Outcome = Result<Arc<ReviewedToken>, AttestError>;

/// Asks one cluster's API server about tokens.
pub(super) struct TokenReviewer {
    api: Arc<KubeApi>,
    running: Keyed<TokenKey, OnceCell<Outcome>>,
    kept: Kept,
}

impl TokenReviewer {
    pub(super) fn new(api: Arc<KubeApi>) -> Self {
        Self {
            api,
            running: Keyed::default(),
            kept: Kept::default(),
        }
    }

    /// A positive review made before, unexpired. Whether it still holds is for the watches to say.
    pub(super) fn kept(&self, key: &TokenKey, now: SystemTime) -> Option<Arc<ReviewedToken>> {
        self.kept.get(key, now)
    }

    /// Keeps a positive review until its token expires; `shown` is how many pods there are.
    pub(super) fn keep(&self, key: TokenKey, review: Arc<ReviewedToken>, shown: usize) {
        self.kept.put(key, review, shown);
    }

    /// Drops a review that holds no longer.
    pub(super) fn forget(&self, key: &TokenKey, review: &ReviewedToken) {
        self.kept.forget(key, &review.pod_uid);
    }

    /// Drops what is kept of a pod that is gone.
    pub(super) fn forget_pod(&self, uid: &str) {
        self.kept.forget_pod(uid);
    }

    /// Drops everything that is kept.
    pub(super) fn forget_all(&self) {
        self.kept.clear();
    }

    /// Drops reviews of expired tokens, and of the pods that are not `there`.
    pub(super) async fn sweep(&self, now: SystemTime, there: impl Fn(&str) -> bool) {
        self.kept.sweep(now, there).await;
    }

    /// How many reviews are kept, and how many were given up for want of room.
    pub(super) fn kept_and_displaced(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.displaced())
    }

    /// Reviews a token whose claims and signature were verified: it is of the node it names, and that node pays. Callers with the
    /// same token at the same time share one call; when the one that makes it gives up, the next goes on.
    pub(super) async fn review(
        &self,
        key: TokenKey,
        payer: Payer<'_>,
        token: &str,
        audience: &str,
        claims: &KubernetesClaims,
    ) -> Outcome {
        let review = self.running.take(key);
        let outcome = review
            .get_or_init(|| self.ask(payer, token, audience, claims))
            .await;
        // The next question is asked afresh.
        review.end();
        outcome.clone()
    }

    async fn ask(&self, payer: Payer<'_>, token: &str, audience: &str, claims: &KubernetesClaims) -> Outcome {
        let status = self
            .call(payer, token, audience)
            .await
            .map_err(|error| self.api.unavailable(PURPOSE, &error))?;
        Ok(Arc::new(read_review(&status, audience, claims)?))
    }

    async fn call(
        &self,
        payer: Payer<'_>,
        token: &str,
        audience: &str,
    ) -> Result<TokenReviewStatus, CallError> {
        let _under_way = self.api.admit(payer).await?;
        let question = Question {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: Spec {
                token,
                audiences: [audience],
            },
        };
        let body = serde_json::to_vec(&question).map_err(|error| CallError::Junk(error.to_string()))?;
        let answer: Answer = self.api.post(PATH, body, ANSWER_BYTES).await?;
        match answer {
            Answer {
                kind,
                status: Some(status),
            } if kind == "TokenReview" => Ok(status),
            Answer { kind, .. } if kind == "TokenReview" => {
                Err(CallError::Junk("a review without status".into()))
            }
            Answer { .. } => Err(CallError::Junk("not a TokenReview".into())),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    api_version: &'a str,
    kind: &'a str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

/// The answer without its `spec`, which repeats the token.
#[derive(Deserialize)]
struct Answer {
    kind: String,
    status: Option<TokenReviewStatus>,
}
