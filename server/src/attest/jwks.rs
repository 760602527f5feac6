//! A cluster's signing keys and issuer, kept so that junk is refused without asking the API server.
//!
//! The check made here comes before a TokenReview and never instead of one.

mod looks;
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

use self::looks::Looks;
pub(super) use self::looks::limits;
use super::kube_api::{CallError, KubeApi, Purpose};
use super::remembered::Remembered;
use super::{AttestError, Bearer, RefusedReason};
use crate::store::SigningKeySet;

/// How often the keys are read without a cause: so long a key is still believed that the cluster has given up.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// How soon they are read again where that failed.
const REFRESH_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often at most it is tried while there are no keys yet.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Shortest wait that anyone is told.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// Why callers are told to come back, as [`Refusals`](signet_runtime::refusals::Refusals) counts it.
pub(super) const UNKNOWN_KEYS: &str = "unknown_keys";
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
    looks: Looks,
    begun: AtomicU64,
    last: Mutex<Option<Attempt>>,
}

/// One reading of the cluster's keys.
#[derive(Debug)]
pub(super) struct Known {
    keys: JwkSet,
    /// Issuers whose tokens are this cluster's.
    pub(super) issuers: Vec<String>,
}

/// A read of the keys.
#[derive(Clone, Copy)]
struct Attempt {
    /// Counts those that were begun.
    number: u64,
    ended: Instant,
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
            looks: Looks::new(),
            begun: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    /// Keeps the keys fresh; ends never.
    pub(super) async fn run(&self) {
        loop {
            let read = self.read(&mut *self.last.lock().await).await;
            sleep(if read.is_ok() {
                REFRESH_EVERY
            } else {
                REFRESH_AGAIN_AFTER
            })
            .await;
        }
    }

    /// What is known; read at once if nothing is.
    pub(super) async fn known(&self) -> Result<Arc<Known>, AttestError> {
        if let Some(known) = self.known.load_full() {
            return Ok(known);
        }
        let mut last = self.last.lock().await;
        if let Some(known) = self.known.load_full() {
            return Ok(known);
        }
        if let Some(last) = *last
            && last.ended.elapsed() < RETRY_EVERY
        {
            return Err(self.unreadable(RETRY_EVERY.saturating_sub(last.ended.elapsed())));
        }
        self.read(&mut last).await
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

    /// Verifies a token's signature by the keys that were read last. No call.
    pub(super) fn verify_by_known(&self, jws: &CompactJws<'_>) -> Result<(), AttestError> {
        match jws.verify(&self.known_now()?.keys) {
            Err(JwsError::UnknownKey) => Err(self.unreadable(RETRY_EVERY)),
            verdict => verdict.map_err(refused),
        }
    }

    /// Verifies a token's signature. Where its key id is unknown the keys are read anew: that is a verdict only by a reading that was
    /// begun after the token came. Whoever brings it pays for the reading, and without one left hears when to come back.
    pub(super) async fn verify(&self, jws: &CompactJws<'_>, bearer: Bearer<'_>) -> Result<(), AttestError> {
        let came = self.begun.load(Ordering::SeqCst);
        match jws.verify(&self.known().await?.keys) {
            Err(JwsError::UnknownKey) => {}
            verdict => return verdict.map_err(refused),
        }
        let mut last = self.last.lock().await;
        // Someone may have read them while this call waited.
        let verdict = jws.verify(&self.known_now()?.keys);
        if verdict != Err(JwsError::UnknownKey) {
            return verdict.map_err(refused);
        }
        match *last {
            Some(last) if last.number > came && last.succeeded => return Err(refused(JwsError::UnknownKey)),
            Some(last) if last.number > came => return Err(self.unreadable(RETRY_EVERY)),
            _ => {}
        }
        self.looks
            .take(bearer)
            .map_err(|wait| self.not_looked_up(bearer, wait))?;
        let read = self.read(&mut last).await?;
        jws.verify(&read.keys).map_err(refused)
    }

    /// Not a verdict: the cluster may have the key by now.
    fn not_looked_up(&self, bearer: Bearer<'_>, retry_after: Duration) -> AttestError {
        let cluster = self.api.cluster();
        self.api.refuse(UNKNOWN_KEYS, bearer);
        AttestError::Unavailable {
            message: format!(
                "cluster `{cluster}`: the token names a signing key that is not known, and the keys were read for this caller not long ago"
            ),
            retry_after: retry_after.max(SHORTEST_WAIT),
        }
    }

    fn known_now(&self) -> Result<Arc<Known>, AttestError> {
        self.known.load_full().ok_or_else(|| self.unreadable(RETRY_EVERY))
    }

    async fn read(&self, last: &mut Option<Attempt>) -> Result<Arc<Known>, AttestError> {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let fetched = self.fetch().await;
        *last = Some(Attempt {
            number,
            ended: Instant::now(),
            succeeded: fetched.is_ok(),
        });
        match fetched {
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
