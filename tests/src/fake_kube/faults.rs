//! Faults on demand, and counters of what was asked.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use signet_runtime::sync::Mutex;

/// The endpoints that are counted and can be made to fail, by what they answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// `GET /openid/v1/jwks`.
    Jwks,
    /// `GET /.well-known/openid-configuration`.
    Discovery,
    /// `GET /version`.
    Version,
    /// `GET /api/v1/namespaces…`.
    Namespaces,
    /// `POST …/tokenreviews`.
    TokenReviews,
    /// `POST …/serviceaccounts/{name}/token`.
    TokenRequests,
    /// Lists and single pods.
    Pods,
    /// Watches of pods.
    PodWatches,
    /// Lists, watches and single service accounts.
    ServiceAccounts,
    /// Lists, watches and single nodes.
    Nodes,
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// The right answer, late.
    #[serde(rename_all = "camelCase")]
    Slow {
        /// How late, in milliseconds.
        delay_ms: u64,
    },
    /// 401: our own credentials are no good.
    Unauthorized,
    /// 403: RBAC does not allow it.
    Forbidden,
    /// 429 with `Retry-After`.
    #[serde(rename_all = "camelCase")]
    TooManyRequests {
        /// The header's value, in seconds.
        retry_after_seconds: u64,
    },
    /// 500.
    InternalError,
    /// 410 as a plain answer, before any stream begins.
    Gone,
    /// 200 (201 for a POST) with this body, whatever was asked.
    Junk {
        /// The body, sent as `application/json`.
        body: String,
    },
    /// No answer until the faults are changed.
    Hang,
}

impl Fault {
    /// The right answer after `delay`.
    pub fn slow(delay: Duration) -> Self {
        Self::Slow {
            delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// A page of some proxy in between instead of JSON.
    pub fn junk() -> Self {
        Self::Junk {
            body: "<html><body>It works!</body></html>".to_owned(),
        }
    }
}

/// One fault in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// Where; absent means everywhere.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// What.
    pub fault: Fault,
    /// For how many more requests; absent means until cleared.
    #[serde(default)]
    pub times: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<FaultRule>>,
    calls: Mutex<BTreeMap<Endpoint, u64>>,
}

impl Faults {
    /// Counts a request and says what shall go wrong with it. The newest matching rule wins.
    pub(crate) fn on_request(&self, endpoint: Endpoint) -> Option<Fault> {
        *self.calls.lock().entry(endpoint).or_default() += 1;
        let mut rules = self.rules.lock();
        let at = rules
            .iter()
            .rposition(|rule| rule.endpoint.is_none_or(|of| of == endpoint))?;
        let fault = rules[at].fault.clone();
        if let Some(times) = &mut rules[at].times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                rules.remove(at);
            }
        }
        Some(fault)
    }

    pub(crate) fn add(&self, rule: FaultRule) {
        if rule.times != Some(0) {
            self.rules.lock().push(rule);
        }
    }

    pub(crate) fn clear(&self) {
        self.rules.lock().clear();
    }

    pub(crate) fn rules(&self) -> Vec<FaultRule> {
        self.rules.lock().clone()
    }

    pub(crate) fn calls(&self) -> BTreeMap<Endpoint, u64> {
        self.calls.lock().clone()
    }
}
