//! A cluster's signing keys and issuer, kept so that junk is refused without asking the API server.
//!
//! The check made here comes before a TokenReview and never instead of one.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use signet_certs::jws::{CompactJws, JwkSet, JwsError, MAX_JWKS_BYTES};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::kube_api::{CallError, KubeApi, Purpose};
use super::remembered::Remembered;
use super::{AttestError, RefusedReason};
use crate::store::SigningKeySet;

/// How often the keys are read without a cause: so long a key is still believed that the cluster has given up.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// How often at most an unknown key id leads to a read: whoever makes up key ids causes no more calls than that.
const UNKNOWN_KEY_EVERY: Duration = Duration::from_secs(10);
/// How often at most it is tried while there are no keys yet.
const RETRY_EVERY: Duration = Duration::from_secs(1);
const PURPOSE: Purpose = Purpose {
    doing: "reading the cluster's token signing keys",
    permission: "get /.well-known/openid-configuration and /openid/v1/jwks \
                 (ClusterRole system:service-account-issuer-discovery)",
};

/// The keys and the issuer of one cluster.
pub(super) struct SigningKeys {
    api: Arc<KubeApi>,
    /// Issuers accepted besides the one that discovery names; for a change of issuer.
    more_issuers: Vec<String>,
    remembered: Arc<Remembered>,
    known: ArcSwapOption<Known>,
    /// How often other keys, or another issuer, were read than before.
    revision: AtomicU64,
    attempts: Mutex<Attempts>,
}

/// One reading of the cluster's keys.
#[derive(Debug)]
pub(super) struct Known {
    keys: JwkSet,
    /// Issuers whose tokens are this cluster's.
    pub(super) issuers: Vec<String>,
}

#[derive(Default)]
struct Attempts {
    last: Option<Attempt>,
    last_for_unknown_key: Option<Attempt>,
}

#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    succeeded: bool,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

impl SigningKeys {
    /// Begins with the keys that were read last, which are read anew as soon as that is possible.
    pub(super) fn new(api: Arc<KubeApi>, more_issuers: Vec<String>, remembered: Arc<Remembered>) -> Self {
        let kept = remembered.row().signing_keys;
        let known = kept.and_then(|kept| known(kept, &more_issuers).ok());
        Self {
            api,
            more_issuers,
            remembered,
            known: ArcSwapOption::from(known.map(Arc::new)),
            revision: AtomicU64::new(0),
            attempts: Mutex::default(),
        }
    }

    /// Keeps the keys fresh; ends never.
    pub(super) async fn run(&self) {
        loop {
            let mut attempts = self.attempts.lock().await;
            let attempt = self.read().await;
            attempts.last = Some(Attempt {
                at: Instant::now(),
                succeeded: attempt.is_ok(),
            });
            drop(attempts);
            sleep(if attempt.is_ok() {
                REFRESH_EVERY
            } else {
                UNKNOWN_KEY_EVERY
            })
            .await;
        }
    }

    /// What is known; read at once if nothing is.
    pub(super) async fn known(&self) -> Result<Arc<Known>, AttestError> {
        if let Some(known) = self.known.load_full() {
            return Ok(known);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(known) = self.known.load_full() {
            return Ok(known);
        }
        if let Some(last) = attempts.last
            && last.at.elapsed() < RETRY_EVERY
        {
            return Err(self.unreadable(RETRY_EVERY.saturating_sub(last.at.elapsed())));
        }
        let read = self.read().await;
        attempts.last = Some(Attempt {
            at: Instant::now(),
            succeeded: read.is_ok(),
        });
        read
    }

    /// Differs whenever other keys, or another issuer, are in force than before.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// Whether the keys read last verify a token. No call.
    pub(super) fn still_verify(&self, token: &str) -> bool {
        let known = self.known.load_full();
        known.is_some_and(|known| CompactJws::parse(token).is_ok_and(|jws| jws.verify(&known.keys).is_ok()))
    }

    /// Verifies a token's signature; reads the keys anew when its key id is unknown.
    pub(super) async fn verify(&self, jws: &CompactJws<'_>) -> Result<(), AttestError> {
        match jws.verify(&self.known().await?.keys) {
            Err(JwsError::UnknownKey) => {}
            verdict => return verdict.map_err(refused),
        }
        let mut attempts = self.attempts.lock().await;
        // Someone may have read them while this call waited.
        match jws.verify(&self.known_now()?.keys) {
            Err(JwsError::UnknownKey) => {}
            verdict => return verdict.map_err(refused),
        }
        if let Some(last) = attempts.last_for_unknown_key
            && last.at.elapsed() < UNKNOWN_KEY_EVERY
        {
            return if last.succeeded {
                Err(refused(JwsError::UnknownKey))
            } else {
                Err(self.unreadable(UNKNOWN_KEY_EVERY.saturating_sub(last.at.elapsed())))
            };
        }
        let read = self.read().await;
        attempts.last_for_unknown_key = Some(Attempt {
            at: Instant::now(),
            succeeded: read.is_ok(),
        });
        jws.verify(&read?.keys).map_err(refused)
    }

    fn known_now(&self) -> Result<Arc<Known>, AttestError> {
        self.known.load_full().ok_or_else(|| self.unreadable(RETRY_EVERY))
    }

    async fn read(&self) -> Result<Arc<Known>, AttestError> {
        match self.fetch().await {
            Ok((known, set)) => {
                let known = Arc::new(known);
                if self.remembered.row().signing_keys.as_ref() != Some(&set) {
                    self.revision.fetch_add(1, Ordering::SeqCst);
                }
                self.known.store(Some(Arc::clone(&known)));
                let kept = self.remembered.change(|row| row.signing_keys = Some(set)).await;
                if let Err(error) = kept {
                    tracing::warn!(cluster = %self.api.cluster(), %error, "the store did not take the cluster's signing keys");
                }
                Ok(known)
            }
            Err(error) => Err(self.api.unavailable(PURPOSE, &error)),
        }
    }

    async fn fetch(&self) -> Result<(Known, SigningKeySet), CallError> {
        let (discovery, document) = tokio::try_join!(
            self.api
                .get::<Discovery>("/.well-known/openid-configuration", MAX_JWKS_BYTES),
            self.api.get_bytes("/openid/v1/jwks", MAX_JWKS_BYTES),
        )?;
        if discovery.issuer.is_empty() {
            return Err(CallError::Junk("the issuer is empty".into()));
        }
        let set = SigningKeySet {
            issuer: discovery.issuer,
            document,
        };
        Ok((known(set.clone(), &self.more_issuers)?, set))
    }

    fn unreadable(&self, retry_after: Duration) -> AttestError {
        let cluster = self.api.cluster();
        AttestError::Unavailable {
            message: format!(
                "cluster `{cluster}`: its token signing keys could not be read; the log says why"
            ),
            retry_after,
        }
    }
}

fn known(set: SigningKeySet, more_issuers: &[String]) -> Result<Known, CallError> {
    let keys = JwkSet::parse(&set.document).map_err(|error| CallError::Junk(error.to_string()))?;
    let issuers = std::iter::once(set.issuer).chain(more_issuers.iter().cloned());
    Ok(Known {
        keys,
        issuers: issuers.collect(),
    })
}

fn refused(error: JwsError) -> AttestError {
    AttestError::Refused(RefusedReason::Token(error))
}
