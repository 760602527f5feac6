//! Attestation as written in the file, and the check of it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use signet_certs::id::TrustDomain;
use signet_runtime::config::{Findings, HumanDuration, Refused};

use super::valid::{AttestationConfig, ClusterConfig};
use crate::attest::policy::ServiceAccountName;
use crate::kubernetes::access::{Access, check_scheme, shown};

/// Longest time that anybody goes by what was true once.
const LONGEST_GRACE: Duration = Duration::from_secs(7 * 86_400);
/// TokenReviews and live reads of one cluster, unless the file says otherwise.
pub(in crate::attest) const CALLS_PER_SECOND: u32 = 200;
/// What join tokens use in place of a cluster in agents' IDs.
const RESERVED_CLUSTER: &str = "join";

/// How nodes and pods are attested.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Attestation {
    /// The Kubernetes clusters whose tokens are accepted.
    clusters: Vec<Cluster>,
    /// Audience of node tokens; `signet:<trust domain>:node` without it.
    node_audience: Option<String>,
    /// Audience of pod tokens; `signet:<trust domain>:pod` without it.
    pod_audience: Option<String>,
    /// Longest lifetime of a token that is accepted.
    max_token_lifetime: HumanDuration,
    /// How long what was attested before may be renewed while its cluster's API server cannot be reached; 0s is not at all.
    grace: HumanDuration,
    /// TokenReviews and live reads per second and cluster; nodes take turns at them.
    calls_per_second: u32,
    /// How many of them may come at once.
    calls_burst: u32,
}

impl Default for Attestation {
    fn default() -> Self {
        Self {
            clusters: Vec::new(),
            node_audience: None,
            pod_audience: None,
            max_token_lifetime: HumanDuration::from_secs(86_400),
            grace: HumanDuration::from_secs(86_400),
            calls_per_second: CALLS_PER_SECOND,
            calls_burst: 400,
        }
    }
}

/// One Kubernetes cluster. Reached by `kubeconfig`, by `api_server`, or without either from inside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    /// Its name in agents' IDs, rules and commands.
    name: String,
    /// UID of its kube-system namespace; the server does not start against another cluster.
    #[serde(default)]
    uid: Option<String>,
    /// Path of a kubeconfig.
    #[serde(default)]
    kubeconfig: Option<PathBuf>,
    /// Context within it; its current one without it.
    #[serde(default)]
    context: Option<String>,
    /// Address and credentials.
    #[serde(default)]
    api_server: Option<ApiServer>,
    /// Service accounts whose pods may act as node agents, each `namespace:name`.
    #[serde(default = "default_agents")]
    agent_service_accounts: Vec<String>,
    /// Issuers of tokens accepted besides the one the cluster names; for a change of issuer.
    #[serde(default)]
    more_issuers: Vec<String>,
}

/// How to reach an API server without a kubeconfig.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiServer {
    /// `https://host:port`; `http://` only for a loopback address.
    url: String,
    /// PEM file with the certificates of its authority.
    #[serde(default)]
    ca_file: Option<PathBuf>,
    /// File with the bearer token of this server; read again when it changes.
    #[serde(default)]
    token_file: Option<PathBuf>,
}

fn default_agents() -> Vec<String> {
    vec!["signet-system:signet-agent".to_owned()]
}

impl Attestation {
    /// Names of the clusters, in order.
    pub(crate) fn cluster_names(&self) -> Vec<String> {
        self.clusters.iter().map(|cluster| cluster.name.clone()).collect()
    }

    /// Judges all of it; `key` is where this part stands in the file.
    pub(crate) fn check(
        self,
        key: &str,
        trust_domain: &TrustDomain,
        findings: &mut Findings,
    ) -> Result<AttestationConfig, Refused> {
        let audience =
            |given: Option<String>, kind| given.unwrap_or_else(|| format!("signet:{trust_domain}:{kind}"));
        let (node_audience, pod_audience) = (
            audience(self.node_audience, "node"),
            audience(self.pod_audience, "pod"),
        );
        if node_audience == pod_audience || node_audience.is_empty() || pod_audience.is_empty() {
            findings.error(
                &format!("{key}.pod_audience"),
                "node and pod tokens would have the same audience, or none",
                "give the two different names, or leave both out",
            );
        }
        if self.calls_per_second == 0 || self.calls_burst == 0 {
            findings.error(
                &format!("{key}.calls_per_second"),
                "no call would ever be made",
                "write at least 1",
            );
        }
        if self.max_token_lifetime.get() < Duration::from_secs(600) {
            findings.error(
                &format!("{key}.max_token_lifetime"),
                "Kubernetes makes no tokens that live so shortly",
                "write at least 10m",
            );
        }
        if self.grace.get() > LONGEST_GRACE {
            findings.error(
                &format!("{key}.grace"),
                "what was attested longer ago than a week is no reason for a certificate",
                "write at most 7d, or 0s for none",
            );
        }
        require_uids(&self.clusters, &format!("{key}.clusters"), findings);
        Ok(AttestationConfig {
            clusters: clusters(self.clusters, &format!("{key}.clusters"), findings)?,
            node_audience,
            pod_audience,
            max_token_lifetime: self.max_token_lifetime.get(),
            grace: self.grace.get(),
            calls: (self.calls_per_second, self.calls_burst),
        })
    }
}

/// With several clusters a swapped address would give one the identities of another.
fn require_uids(raw: &[Cluster], key: &str, findings: &mut Findings) {
    if raw.len() < 2 {
        return;
    }
    for (index, _) in raw
        .iter()
        .enumerate()
        .filter(|(_, cluster)| cluster.uid.is_none())
    {
        let key = findings.element(key, index);
        findings.error(
            &format!("{key}.uid"),
            "with several clusters each must be named for good",
            "write what `kubectl get namespace kube-system -o jsonpath={.metadata.uid}` says",
        );
    }
}

fn clusters(raw: Vec<Cluster>, key: &str, findings: &mut Findings) -> Result<Vec<ClusterConfig>, Refused> {
    let mut names = HashSet::new();
    let mut checked = Vec::with_capacity(raw.len());
    for (index, cluster) in raw.into_iter().enumerate() {
        let key = findings.element(key, index);
        if !names.insert(cluster.name.clone()) {
            findings.error(
                &format!("{key}.name"),
                format!("a second cluster is named `{}`", cluster.name),
                "give every cluster a name of its own",
            );
        }
        checked.push(cluster.check(&key, findings));
    }
    checked.into_iter().collect()
}

impl Cluster {
    fn check(self, key: &str, findings: &mut Findings) -> Result<ClusterConfig, Refused> {
        let name = name(self.name, &format!("{key}.name"), findings);
        let accounts = format!("{key}.agent_service_accounts");
        let agents: Vec<_> = self
            .agent_service_accounts
            .iter()
            .map(|entry| service_account(entry, &accounts, findings))
            .collect();
        if self.context.is_some() && self.kubeconfig.is_none() {
            findings.error(
                &format!("{key}.context"),
                "there is no kubeconfig for it",
                "add `kubeconfig`",
            );
        }
        if self.kubeconfig.is_some() && self.api_server.is_some() {
            findings.error(
                key,
                "both `kubeconfig` and `api_server` are given",
                "keep one of the two",
            );
        }
        let access = match (self.kubeconfig, self.api_server) {
            (_, Some(server)) => server.check(&format!("{key}.api_server.url"), findings)?,
            (Some(path), None) => Access::Kubeconfig {
                path,
                context: self.context,
            },
            (None, None) => Access::InCluster,
        };
        Ok(ClusterConfig {
            name: name?,
            uid: self.uid,
            access,
            agents: agents.into_iter().collect::<Result<_, _>>()?,
            more_issuers: self.more_issuers,
        })
    }
}

fn name(name: String, key: &str, findings: &mut Findings) -> Result<String, Refused> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !starts_well || name.len() > 63 || !name.bytes().all(allowed) {
        return Err(findings.error(
            key,
            "it becomes part of agents' IDs and cannot be one",
            "write 1 to 63 of a-z, 0-9, `-`, `.`, `_`, beginning with a letter or digit",
        ));
    }
    if name == RESERVED_CLUSTER {
        return Err(findings.error(
            key,
            "`join` is kept for nodes outside Kubernetes",
            "choose another name",
        ));
    }
    Ok(name)
}

fn service_account(entry: &str, key: &str, findings: &mut Findings) -> Result<ServiceAccountName, Refused> {
    match entry.split_once(':') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains(':') => {
            Ok(ServiceAccountName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
        _ => Err(findings.error(
            key,
            format!("`{entry}` is no service account"),
            "write namespace:name",
        )),
    }
}

impl ApiServer {
    fn check(self, key: &str, findings: &mut Findings) -> Result<Access, Refused> {
        let url = self.uri();
        let refused = |problem: String| findings.error(key, problem, "write https://host:port");
        Ok(Access::ApiServer {
            url: url.map_err(refused)?,
            ca_file: self.ca_file,
            token_file: self.token_file,
        })
    }

    fn uri(&self) -> Result<http::Uri, String> {
        let uri: http::Uri = self
            .url
            .parse()
            .map_err(|_| format!("`{}` is no URL", shown(&self.url)))?;
        if uri.host().is_none() {
            return Err(format!("`{}` names no host", shown(&self.url)));
        }
        check_scheme(&uri).map(|()| uri)
    }
}
