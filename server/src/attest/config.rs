//! The attestation part of the server's configuration, and the clients it describes.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use signet_certs::id::TrustDomain;
use signet_runtime::config::{Findings, HumanDuration};

use super::policy::ServiceAccountName;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What join tokens use in place of a cluster in agents' IDs.
const RESERVED_CLUSTER: &str = "join";

/// How nodes and pods are attested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationConfig {
    /// The Kubernetes clusters whose tokens are accepted.
    pub clusters: Vec<ClusterConfig>,
    /// Audience of node tokens; `signet:<trust domain>:node` without it.
    pub node_audience: Option<String>,
    /// Audience of pod tokens; `signet:<trust domain>:pod` without it.
    pub pod_audience: Option<String>,
    /// Longest lifetime of a token that is accepted.
    pub max_token_lifetime: HumanDuration,
    /// TokenReviews and live reads per second and cluster.
    pub calls_per_second: u32,
    /// How many of them may come at once.
    pub calls_burst: u32,
}

impl Default for AttestationConfig {
    fn default() -> Self {
        Self {
            clusters: Vec::new(),
            node_audience: None,
            pod_audience: None,
            max_token_lifetime: HumanDuration::from_secs(86_400),
            calls_per_second: 200,
            calls_burst: 400,
        }
    }
}

/// One Kubernetes cluster. Reached by `kubeconfig`, by `api_server`, or without either from inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Its name in agents' IDs, rules and commands.
    pub name: String,
    /// UID of its kube-system namespace; the server does not start against another cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Path of a kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Context within it; its current one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Address and credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ApiServerConfig>,
    /// Service accounts whose pods may act as node agents, each `namespace:name`.
    #[serde(default = "default_agents")]
    pub agent_service_accounts: Vec<String>,
    /// Issuers of tokens accepted besides the one the cluster names; for a change of issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_issuers: Vec<String>,
}

/// How to reach an API server without a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiServerConfig {
    /// `https://host:port`; `http://` only for a loopback address.
    pub url: String,
    /// PEM file with the certificates of its authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// File with the bearer token of this server; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

fn default_agents() -> Vec<String> {
    vec!["signet-system:signet-agent".to_owned()]
}

impl AttestationConfig {
    /// The audience of node tokens.
    pub fn node_audience(&self, trust_domain: &TrustDomain) -> String {
        self.node_audience
            .clone()
            .unwrap_or_else(|| format!("signet:{}:node", trust_domain.as_str()))
    }

    /// The audience of pod tokens.
    pub fn pod_audience(&self, trust_domain: &TrustDomain) -> String {
        self.pod_audience
            .clone()
            .unwrap_or_else(|| format!("signet:{}:pod", trust_domain.as_str()))
    }

    /// Names of the clusters, in order.
    pub fn cluster_names(&self) -> Vec<String> {
        self.clusters.iter().map(|cluster| cluster.name.clone()).collect()
    }

    /// Adds what is wrong to `findings`; `key` is where this part stands in the configuration.
    pub fn validate(&self, key: &str, trust_domain: &TrustDomain, findings: &mut Findings) {
        let (node, pod) = (self.node_audience(trust_domain), self.pod_audience(trust_domain));
        if node == pod || node.is_empty() || pod.is_empty() {
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
        let mut names = HashSet::new();
        for (index, cluster) in self.clusters.iter().enumerate() {
            let key = format!("{key}.clusters[{index}]");
            if !names.insert(cluster.name.as_str()) {
                findings.error(
                    &format!("{key}.name"),
                    format!("a second cluster is named `{}`", cluster.name),
                    "give every cluster a name of its own",
                );
            }
            cluster.validate(&key, findings);
        }
    }
}

impl ClusterConfig {
    /// The allow list of agents.
    ///
    /// # Errors
    /// The first entry that is not `namespace:name`.
    pub fn agents(&self) -> Result<Vec<ServiceAccountName>, String> {
        let parse = |entry: &String| match entry.split_once(':') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains(':') => {
                Ok(ServiceAccountName {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(entry.clone()),
        };
        self.agent_service_accounts.iter().map(parse).collect()
    }

    fn validate(&self, key: &str, findings: &mut Findings) {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        let starts_well = self
            .name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts_well || self.name.len() > 63 || !self.name.bytes().all(allowed) {
            findings.error(
                &format!("{key}.name"),
                "it becomes part of agents' IDs and cannot be one",
                "write 1 to 63 of a-z, 0-9, `-`, `.`, `_`, beginning with a letter or digit",
            );
        }
        if self.name == RESERVED_CLUSTER {
            findings.error(
                &format!("{key}.name"),
                "`join` is kept for nodes outside Kubernetes",
                "choose another name",
            );
        }
        if let Err(entry) = self.agents() {
            findings.error(
                &format!("{key}.agent_service_accounts"),
                format!("`{entry}` is no service account"),
                "write namespace:name",
            );
        }
        if self.kubeconfig.is_some() && self.api_server.is_some() {
            findings.error(
                key,
                "both `kubeconfig` and `api_server` are given",
                "keep one of the two",
            );
        }
        if self.context.is_some() && self.kubeconfig.is_none() {
            findings.error(
                &format!("{key}.context"),
                "there is no kubeconfig for it",
                "add `kubeconfig`",
            );
        }
        if let Some(server) = &self.api_server
            && let Err(error) = server.uri()
        {
            findings.error(&format!("{key}.api_server.url"), error, "write https://host:port");
        }
    }

    /// Makes the client this describes; reads the files it names and opens no connection.
    ///
    /// # Errors
    /// One line that names the file or address and what is wrong with it.
    pub async fn client(&self) -> Result<kube::Client, String> {
        let mut config = match (&self.kubeconfig, &self.api_server) {
            (Some(path), _) => from_kubeconfig(path, self.context.clone()).await?,
            (None, Some(server)) => server.config()?,
            (None, None) => kube::Config::incluster().map_err(|error| {
                format!("not inside a cluster ({error}); give `kubeconfig` or `api_server`, or run as a pod")
            })?,
        };
        if config.accept_invalid_certs {
            return Err(
                "the kubeconfig switches certificate checks off; tokens are not sent to just anyone, \
                        so remove insecure-skip-tls-verify"
                    .into(),
            );
        }
        check_scheme(&config.cluster_url)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Attestation has its own pace of retries, and a retry here would hide a slow API server.
        config.default_retry = false;
        kube::Client::try_from(config).map_err(|error| format!("no client can be made: {error}"))
    }
}

impl ApiServerConfig {
    fn uri(&self) -> Result<http::Uri, String> {
        let uri: http::Uri = self
            .url
            .parse()
            .map_err(|_| format!("`{}` is no URL", self.url))?;
        if uri.host().is_none() {
            return Err(format!("`{}` names no host", self.url));
        }
        check_scheme(&uri).map(|()| uri)
    }

    fn config(&self) -> Result<kube::Config, String> {
        let mut config = kube::Config::new(self.uri()?);
        if let Some(path) = &self.ca_file {
            let certificates: Vec<Vec<u8>> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| format!("the CA file {} cannot be read: {error}", path.display()))?
                .into_iter()
                .map(|certificate| certificate.to_vec())
                .collect();
            if certificates.is_empty() {
                return Err(format!("the CA file {} has no certificate", path.display()));
            }
            config.root_cert = Some(certificates);
            config.root_cert_file = Some(path.clone());
        }
        if let Some(path) = &self.token_file {
            std::fs::metadata(path)
                .map_err(|error| format!("the token file {} cannot be read: {error}", path.display()))?;
            config.auth_info.token_file = Some(path.to_string_lossy().into_owned());
        }
        Ok(config)
    }
}

async fn from_kubeconfig(path: &Path, context: Option<String>) -> Result<kube::Config, String> {
    let unusable = |error: kube::config::KubeconfigError| {
        format!("the kubeconfig {} cannot be used: {error}", path.display())
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(unusable)
}

/// Tokens travel over TLS, or not beyond this machine.
fn check_scheme(uri: &http::Uri) -> Result<(), String> {
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let is_loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_loopback => Ok(()),
        Some("http") => Err(format!("`{uri}` is not encrypted; use https")),
        _ => Err(format!("`{uri}` is neither https nor http to this machine")),
    }
}
