//! Tokens that API servers vouched for to a process before this one: what certificates rest on stands in the ledger, so that a
//! restart of the server is no reason to ask about every token of a large cluster anew.

use std::collections::HashSet;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use signet_runtime::clock::Clock as _;
use signet_runtime::sync::Mutex;

use crate::clock::TrustedClock;
use crate::store::{Store, StoreError};

/// How long after the start it matters: kubelet replaces a pod's token before it is an hour old, and each is needed once.
const MATTERS_FOR: Duration = Duration::from_secs(2 * 3600);

/// The tokens, none of which can be read from it.
pub(super) struct Vouched {
    tokens: Mutex<HashSet<[u8; 32]>>,
    /// Elapsed time at the start.
    since: Duration,
}

impl Vouched {
    /// No token was vouched for.
    pub(super) fn none() -> Self {
        Self {
            tokens: Mutex::default(),
            since: Duration::ZERO,
        }
    }

    /// What unexpired certificates rest on.
    pub(super) async fn load(store: &dyn Store, clock: &TrustedClock) -> Result<Self, StoreError> {
        let tokens = store.pod_tokens(clock.now()).await?;
        let tokens = tokens
            .iter()
            .map(|token| digest(&token.cluster_uid, &token.pod_uid, &token.jti));
        Ok(Self {
            tokens: Mutex::new(tokens.collect()),
            since: clock.elapsed(),
        })
    }

    /// Whether a token is one of them, at this elapsed time; it is none of them any more.
    pub(super) fn take(&self, cluster_uid: &str, pod_uid: &str, jti: &str, elapsed: Duration) -> bool {
        let mut tokens = self.tokens.lock();
        if elapsed.saturating_sub(self.since) > MATTERS_FOR && !tokens.is_empty() {
            *tokens = HashSet::new();
        }
        !tokens.is_empty() && tokens.remove(&digest(cluster_uid, pod_uid, jti))
    }

    /// None of them counts any more.
    pub(super) fn forget(&self) {
        *self.tokens.lock() = HashSet::new();
    }
}

fn digest(cluster_uid: &str, pod_uid: &str, jti: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in [cluster_uid, pod_uid, jti] {
        // The length keeps the parts apart.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
