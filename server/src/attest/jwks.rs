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
use signet_runtime::clock::Clock as _;
use signet_runtime::pace::sleep_until_elapsed;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::time::Instant;

use self::looks::Looks;
pub(super) use self::looks::limits;
use super::remembered::Remembered;
use super::{AttestError, Bearer, RefusedReason};
use crate::kubernetes::api::{CallError, KubeApi, Purpose};
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
    reader: Arc<Reader>,
    remembered: Arc<Remembered>,
    looks: Looks,
    /// Held by the read that is under way.
    last: Arc<Mutex<Option<Attempt>>>,
}

/// Reads them, in tasks of its own.
struct Reader {
    api: Arc<KubeApi>,
    /// Issuers accepted besides the one that discovery names; for a change of issuer.
    more_issuers: Vec<String>,
    known: ArcSwapOption<Known>,
    /// How often other keys, or another issuer, were read than before.
    revision: AtomicU64,
    begun: AtomicU64,
    /// Something was read that the store may lack.
    has_read: Notify,
}

/// One reading of the cluster's keys.
#[derive(Debug)]
pub(super) struct Known {
    keys: JwkSet,
    /// Issuers whose tokens are this cluster's.
    pub(super) issuers: Vec<String>,
    /// As the API server gave them.
    set: SigningKeySet,
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
            reader: Arc::new(Reader {
                api,
                more_issuers,
                known: ArcSwapOption::from(known.map(Arc::new)),
                revision: AtomicU64::new(0),
                begun: AtomicU64::new(0),
                has_read: Notify::new(),
            }),
            remembered,
            looks: Looks::new(),
            last: Arc::default(),
        }
    }

    /// Keeps the keys fresh, and what was read in the store; ends never.
    pub(super) async fn run(&self) {
        tokio::join!(self.refresh(), self.keep());
    }

    async fn refresh(&self) {
        loop {
            let read = self.read(self.lock_last().await).await;
            let wait = if read.is_ok() {
                REFRESH_EVERY
            } else {
                REFRESH_AGAIN_AFTER
            };
            let clock = &**self.reader.api.clock();
            sleep_until_elapsed(clock, clock.elapsed() + wait).await;
        }
    }

    /// The only one who waits for the store: whoever brings a token needs no more than what was read.
    async fn keep(&self) {
        loop {
            self.reader.has_read.notified().await;
            let Some(known) = self.reader.known.load_full() else {
                continue;
            };
            let set = known.set.clone();
            let kept = self.remembered.change(|row| row.signing_keys = Some(set)).await;
            if let Err(error) = kept {
                let cluster = self.reader.api.cluster();
                tracing::warn!(%cluster, %error, "the store did not take the cluster's signing keys");
            }
        }
    }

    /// What is known; read at once if nothing is.
    pub(super) async fn known(&self) -> Result<Arc<Known>, AttestError> {
        if let Some(known) = self.reader.known.load_full() {
            return Ok(known);
        }
        let last = self.lock_last().await;
        if let Some(known) = self.reader.known.load_full() {
            return Ok(known);
        }
        if let Some(last) = *last
            && last.ended.elapsed() < RETRY_EVERY
        {
            return Err(self.unreadable(RETRY_EVERY.saturating_sub(last.ended.elapsed())));
        }
        self.read(last).await
    }

    /// Differs whenever other keys, or another issuer, are in force than before.
    pub(super) fn revision(&self) -> u64 {
        self.reader.revision.load(Ordering::SeqCst)
    }

    /// Whether the keys read last verify a token. No call.
    pub(super) fn still_verify(&self, token: &str) -> bool {
        let known = self.reader.known.load_full();
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
        let came = self.reader.begun.load(Ordering::SeqCst);
        match jws.verify(&self.known().await?.keys) {
            Err(JwsError::UnknownKey) => {}
            verdict => return verdict.map_err(refused),
        }
        let last = self.lock_last().await;
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
        let read = self.read(last).await?;
        jws.verify(&read.keys).map_err(refused)
    }

    /// Not a verdict: the cluster may have the key by now.
    fn not_looked_up(&self, bearer: Bearer<'_>, retry_after: Duration) -> AttestError {
        let cluster = self.reader.api.cluster();
        self.reader.api.refuse(UNKNOWN_KEYS, bearer);
        AttestError::Unavailable {
            message: format!(
                "cluster `{cluster}`: the token names a signing key that is not known, and the keys were read for this caller not long ago"
            ),
            retry_after: retry_after.max(SHORTEST_WAIT),
        }
    }

    /// What was read last; no call.
    pub(super) fn known_now(&self) -> Result<Arc<Known>, AttestError> {
        let known = self.reader.known.load_full();
        known.ok_or_else(|| self.unreadable(RETRY_EVERY))
    }

    async fn lock_last(&self) -> OwnedMutexGuard<Option<Attempt>> {
        Arc::clone(&self.last).lock_owned().await
    }

    /// A read that goes on when whoever began it goes: others wait for what comes of it, and it was paid for.
    async fn read(&self, last: OwnedMutexGuard<Option<Attempt>>) -> Result<Arc<Known>, AttestError> {
        let number = self.reader.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let reader = Arc::clone(&self.reader);
        let read = signet_runtime::spans::spawn(async move { reader.read(last, number).await });
        read.await.unwrap_or_else(|_| Err(self.unreadable(RETRY_EVERY)))
    }

    fn unreadable(&self, retry_after: Duration) -> AttestError {
        let cluster = self.reader.api.cluster();
        AttestError::Unavailable {
            message: format!(
                "cluster `{cluster}`: its token signing keys could not be read; the log says why"
            ),
            retry_after,
        }
    }
}

impl Reader {
    async fn read(
        &self,
        mut last: OwnedMutexGuard<Option<Attempt>>,
        number: u64,
    ) -> Result<Arc<Known>, AttestError> {
        let fetched = self.fetch().await;
        *last = Some(Attempt {
            number,
            ended: Instant::now(),
            succeeded: fetched.is_ok(),
        });
        let read = Arc::new(fetched.map_err(|error| self.api.unavailable(PURPOSE, &error))?);
        let before = self.known.swap(Some(Arc::clone(&read)));
        if before.is_none_or(|before| before.set != read.set) {
            self.revision.fetch_add(1, Ordering::SeqCst);
        }
        self.has_read.notify_one();
        Ok(read)
    }

    async fn fetch(&self) -> Result<Known, CallError> {
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
        known(set, &self.more_issuers)
    }
}

fn known(set: SigningKeySet, more_issuers: &[String]) -> Result<Known, CallError> {
    let keys = JwkSet::parse(&set.document).map_err(|error| CallError::Junk(error.to_string()))?;
    let issuers = std::iter::once(set.issuer.clone()).chain(more_issuers.iter().cloned());
    Ok(Known {
        keys,
        issuers: issuers.collect(),
        set,
    })
}

fn refused(error: JwsError) -> AttestError {
    AttestError::Refused(RefusedReason::Token(error))
}
