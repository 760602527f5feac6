//! What proxies made of what they were sent: refusals, counted and told in the proxy's own words, and since when any of them has held trust
//! that was replaced. What they have is their own word, which nothing proves: a workload can hold these gauges down, and the log names it.

mod behind;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use ring::digest::{SHA256, digest};
use signet_certs::time::unix_seconds;
use signet_runtime::sync::Mutex;
use signet_runtime::tally::Tally;
use signet_runtime::telemetry::Metrics;

use self::behind::Behind;
use crate::context::{Lists, X509Context};
use crate::streams::status;

/// How often the log has a line about refusals of one caller.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Callers whose refusals are told one by one: more than a node has pods.
const MOST_TALLIES: usize = 1024;

type GaugeI64 = Gauge<i64, AtomicI64>;

/// Trust as a proxy may hold it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Trust {
    bundle: [u8; 32],
    lists: [u8; 32],
}

impl Trust {
    pub(super) fn of(context: &X509Context) -> Self {
        Self::made_of(&context.bundle, &context.crls)
    }

    fn made_of(bundle: &[u8], lists: &Lists) -> Self {
        Self {
            bundle: sha256(bundle),
            lists: *lists.digest(),
        }
    }

    /// What was in an answer of this version, which is not the newest.
    pub(super) fn of_version(version: &str) -> Self {
        let of = sha256(version.as_bytes());
        Self {
            bundle: of,
            lists: of,
        }
    }
}

/// What is told of a caller now and then.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Told {
    Refused,
    Old,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Observed {
    streams: GaugeI64,
    refused: Counter,
    bundle_outdated: GaugeI64,
    lists_outdated: GaugeI64,
    next: AtomicU64,
    /// By what is told and caller, so that one who refuses all the time hides nobody.
    tallies: Mutex<HashMap<(Told, String), Tally>>,
    behind: Mutex<(Behind, Behind)>,
}

impl Observed {
    /// Among these metrics.
    pub(crate) fn registered(metrics: &Metrics) -> Arc<Self> {
        let observed = Self::default();
        metrics.register(|registry| {
            registry.register(
                "sds_streams",
                "Open streams of Envoy's secret discovery",
                observed.streams.clone(),
            );
            registry.register(
                "sds_answers_refused",
                "Answers that proxies refused; the log has their words",
                observed.refused.clone(),
            );
            registry.register(
                "sds_bundle_outdated_since_timestamp_seconds",
                "When the oldest bundle that any proxy has taken, by its own word, was replaced, as Unix time; 0 while all have the newest",
                observed.bundle_outdated.clone(),
            );
            registry.register(
                "sds_crls_outdated_since_timestamp_seconds",
                "When the oldest revocation lists that any proxy has taken, by its own word, were replaced, as Unix time; 0 while all have the newest",
                observed.lists_outdated.clone(),
            );
        });
        Arc::new(observed)
    }

    /// From now on workloads are told this bundle and these lists.
    pub(crate) fn newest(&self, bundle: &[u8], lists: &Lists, now: SystemTime) {
        let (trust, now) = (Trust::made_of(bundle, lists), unix_seconds(now));
        self.change(|bundle, lists| {
            bundle.newest(trust.bundle, now);
            lists.newest(trust.lists, now);
        });
    }

    /// One stream more.
    pub(super) fn stream(self: Arc<Self>) -> Watched {
        self.streams.inc();
        Watched {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            observed: self,
        }
    }

    /// How many of these of a caller are to be told now, if any.
    fn told(&self, told: Told, caller: &str) -> Option<u64> {
        let mut tallies = self.tallies.lock();
        let of = (told, caller.to_owned());
        if tallies.len() >= MOST_TALLIES && !tallies.contains_key(&of) {
            tallies.clear();
        }
        tallies
            .entry(of)
            .or_insert_with(|| Tally::new(TELL_EVERY))
            .count()
    }

    /// Whether it is what workloads are told now.
    fn is_newest(&self, trust: Trust) -> bool {
        let behind = self.behind.lock();
        behind.0.is_newest(&trust.bundle) && behind.1.is_newest(&trust.lists)
    }

    fn change(&self, change: impl FnOnce(&mut Behind, &mut Behind)) {
        let mut behind = self.behind.lock();
        let (bundle, lists) = &mut *behind;
        change(bundle, lists);
        self.bundle_outdated.set(bundle.since());
        self.lists_outdated.set(lists.since());
    }
}

/// One stream, as long as it is open.
pub(super) struct Watched {
    observed: Arc<Observed>,
    number: u64,
}

impl Watched {
    /// The proxy uses it.
    pub(super) fn took(&self, trust: Trust, now: SystemTime) {
        let now = unix_seconds(now);
        self.observed.change(|bundle, lists| {
            bundle.took(self.number, trust.bundle, now);
            lists.took(self.number, trust.lists, now);
        });
    }

    /// The proxy says that it has this from another stream. Nobody else knows whether that is true.
    pub(super) fn brought(&self, caller: &str, proxy: &str, trust: Trust, now: SystemTime) {
        self.took(trust, now);
        let is_old = !self.observed.is_newest(trust);
        if let Some(times) = is_old.then(|| self.observed.told(Told::Old, caller)).flatten() {
            let proxy = status::short(proxy);
            tracing::info!(
                caller,
                proxy,
                times,
                "a proxy says that it has trust which was replaced"
            );
        }
    }

    /// The proxy asks for no trust any more: what it took last is nobody's concern.
    pub(super) fn left(&self) {
        self.observed.change(|bundle, lists| {
            bundle.left(self.number);
            lists.left(self.number);
        });
    }

    /// The proxy does not use what it was sent. Its words are what somebody else has written: one line, and not without end.
    pub(super) fn refused(&self, caller: &str, proxy: &str, code: i32, words: &str) {
        self.observed.refused.inc();
        if let Some(refused) = self.observed.told(Told::Refused, caller) {
            let (proxy, words) = (status::short(proxy), status::short(words));
            tracing::warn!(
                caller,
                proxy,
                code,
                words,
                refused,
                "a proxy refused what it was sent"
            );
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.observed.streams.dec();
        self.left();
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut found = [0; 32];
    found.copy_from_slice(digest(&SHA256, bytes).as_ref());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is heard of a proxy that hangs, whatever is sent; one that reconnects says itself what it has.
    #[test]
    fn a_proxy_that_hangs_is_behind_and_one_that_comes_back_with_old_trust_too() {
        let observed = Arc::new(Observed::default());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let lists = Lists::new(Vec::new());
        let seen = || (observed.bundle_outdated.get(), observed.lists_outdated.get());
        observed.newest(b"a", &lists, at(10));
        let hangs = observed.clone().stream();
        hangs.took(Trust::made_of(b"a", &lists), at(11));
        assert_eq!(seen(), (0, 0));
        observed.newest(b"b", &lists, at(20));
        assert_eq!(seen(), (20, 0));
        drop(hangs);
        assert_eq!((seen(), observed.streams.get()), ((0, 0), 0));
        let back = observed.clone().stream();
        back.took(Trust::of_version("of another stream"), at(30));
        assert_eq!(seen(), (30, 30));
        assert!(!observed.is_newest(Trust::of_version("of another stream")));
        assert!(observed.is_newest(Trust::made_of(b"b", &lists)));
        assert_eq!(observed.told(Told::Old, "pod"), Some(1));
        assert_eq!(observed.told(Told::Old, "pod"), None, "once");
        assert_eq!(observed.told(Told::Refused, "pod"), Some(1));
        back.took(Trust::made_of(b"b", &lists), at(31));
        assert_eq!((seen(), observed.streams.get()), ((0, 0), 1));
    }
}
