//! Identity rules as they are written in the configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use signet_runtime::config::HumanDuration;

/// Rules as a whole, as they are written and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenRules {
    /// In order.
    pub rules: Vec<IdentityRuleConfig>,
    /// Whether the built-in last one stands.
    pub builtin_rule: bool,
    /// With several clusters: equal names in all of them are one identity.
    pub same_identity: bool,
}

impl WrittenRules {
    /// Whether one has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| rule.name == name)
    }
}

/// One rule: whom it matches, and what they get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityRuleConfig {
    /// Unique name, for messages, the ledger and `explain`.
    pub name: String,
    /// Whom it matches; without any criterion every attested pod.
    #[serde(default, rename = "match")]
    pub matching: MatchConfig,
    /// Path of the SPIFFE ID with placeholders, as `/ns/{namespace}/sa/{service_account}`. Required unless `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Lifetime of the certificates; the server's default without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<HumanDuration>,
    /// DNS names of the certificates, with placeholders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Tells identities of one workload apart; at most 1024 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Whoever matches gets no identity at all, whatever other rules say.
    #[serde(default)]
    pub deny: bool,
}

/// Criteria of a rule. All that are given must hold; within one list any entry does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MatchConfig {
    /// Names of clusters in the server's configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// Namespaces, exact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Service accounts, exact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// Labels the pod's namespace must have with these values, all of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_labels: BTreeMap<String, String>,
    /// Labels the pod must have with these values, all of them. Needs `namespaces` or `namespace_labels` too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// Kinds of evidence the rule accepts; pod tokens only without it. A deny rule without it takes every kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Facts of a process outside pods; needs `evidence` to name `unix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<UnixMatchConfig>,
}

/// Criteria for processes outside pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UnixMatchConfig {
    /// User ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uids: Vec<u32>,
    /// Group ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gids: Vec<u32>,
    /// Absolute paths of executables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// SHA-256 of executables, 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sha256: Vec<String>,
}

/// How a workload was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Evidence {
    /// The pod's own bound token.
    PodToken,
    /// User id and executable, as an agent saw them.
    Unix,
}
