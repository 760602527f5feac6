//! A call that failed, in words for whoever asked, and for the log.

use std::time::Duration;

use tokio::time::Instant;

use super::{CallError, KubeApi, Purpose};

const RETRY_SOON: Duration = Duration::from_secs(1);
const RETRY_AFTER_REPAIR: Duration = Duration::from_secs(10);
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Not a verdict: the cluster could not be asked, or not often enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unavailable {
    /// What is wrong and what to do; free of tokens and of the API server's own words.
    pub(crate) message: String,
    /// When asking again makes sense.
    pub(crate) retry_after: Duration,
}

impl KubeApi {
    /// The error for whoever asked: what is wrong and what to do, without words of the API server. Those are logged.
    pub(crate) fn unavailable(&self, purpose: Purpose, error: &CallError) -> Unavailable {
        // Who had no turn is counted and told by the budget; no call was made, and none failed.
        if !matches!(error, CallError::OverBudget(_)) {
            self.log(purpose, error);
        }
        let Purpose { doing, permission } = purpose;
        let cluster = &self.cluster;
        let (problem, retry_after) = match error {
            CallError::Timeout => (
                format!("the API server did not answer in time ({doing}); check its health"),
                RETRY_SOON,
            ),
            CallError::Transport(_) => (
                format!(
                    "the API server cannot be reached ({doing}); check its address, CA file and the network"
                ),
                RETRY_SOON,
            ),
            CallError::Status { code: 401, .. } => (
                format!("the API server rejects this server's own credentials ({doing}); renew them"),
                RETRY_AFTER_REPAIR,
            ),
            CallError::Status { code: 403, .. } => (
                format!("the API server does not allow this server to {permission}; grant it by RBAC"),
                RETRY_AFTER_REPAIR,
            ),
            CallError::Status {
                code: 429,
                retry_after,
                ..
            } => (
                format!("the API server asks for fewer calls ({doing})"),
                retry_after.unwrap_or(RETRY_SOON),
            ),
            CallError::Status {
                code, retry_after, ..
            } => (
                format!("the API server answered with status {code} ({doing}); check its health"),
                retry_after.unwrap_or(RETRY_SOON),
            ),
            CallError::NotFound | CallError::Expired { .. } => (
                format!("the API server lacks what it must have ({doing}); check its address"),
                RETRY_AFTER_REPAIR,
            ),
            CallError::Junk(_) => (
                format!("the API server's answer is unreadable ({doing}); check that the address is its own"),
                RETRY_SOON,
            ),
            CallError::OverBudget(wait) => (
                "more attestations than the configured rate of calls, or the room for calls under way, allows; come back later"
                    .into(),
                *wait,
            ),
        };
        Unavailable {
            message: format!("cluster `{cluster}`: {problem}"),
            retry_after,
        }
    }

    /// One line every few seconds: an outage is one problem, not one per caller.
    fn log(&self, purpose: Purpose, error: &CallError) {
        let mut logged_at = self.logged_at.lock();
        if logged_at.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            return;
        }
        *logged_at = Some(Instant::now());
        tracing::warn!(cluster = %self.cluster, doing = purpose.doing, %error, "API server call failed");
    }
}
