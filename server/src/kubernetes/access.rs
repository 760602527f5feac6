//! How an API server is reached, and the client that is made of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use signet_runtime::environment::NOTIFY_SOCKET;

use super::words;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Stands for a proxy that is not used.
const NO_PROXY: &str = "http://none.invalid";

/// How a cluster's API server is reached.
#[derive(Debug, Clone)]
pub enum Access {
    /// By a kubeconfig.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context; its current one without it.
        context: Option<String>,
    },
    /// By address and credentials.
    ApiServer {
        /// `https://host:port`; `http://` only for a loopback address.
        url: http::Uri,
        /// PEM file with the certificates of its authority.
        ca_file: Option<PathBuf>,
        /// File with the bearer token of this server; read again when it changes.
        token_file: Option<PathBuf>,
    },
    /// From a pod of it, by that pod's own service account.
    InCluster,
    /// Through a client that somebody has made already; for tests, no configuration leads to it.
    Given(GivenClient),
}

/// A ready client.
#[derive(Clone)]
pub struct GivenClient(kube::Client);

impl From<kube::Client> for GivenClient {
    fn from(client: kube::Client) -> Self {
        Self(client)
    }
}

impl fmt::Debug for GivenClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GivenClient")
    }
}

impl Access {
    /// Makes the client this describes; opens no connection. Reads the files it names, and runs the program, if a kubeconfig names
    /// one, that makes its credentials.
    ///
    /// # Errors
    /// One line that names the file or address and what is wrong with it.
    pub async fn client(&self) -> Result<kube::Client, String> {
        match self.described().await? {
            Described::Config(config) => client_of(*config),
            Described::Client(client) => Ok(client),
        }
    }

    /// Whether that client can be made, as far as it shows from the files: no program is run and no connection opened.
    ///
    /// # Errors
    /// As of [`Access::client`].
    pub async fn check(&self) -> Result<(), String> {
        let Described::Config(mut config) = self.described().await? else {
            return Ok(());
        };
        config.auth_info.exec = None;
        config
            .auth_info
            .auth_provider
            .take_if(|provider| provider.config.contains_key("cmd-path"));
        client_of(*config).map(drop)
    }

    /// Reads the files that are named. What is described is checked to keep tokens secret.
    async fn described(&self) -> Result<Described, String> {
        let mut config = match self {
            Self::Kubeconfig { path, context } => from_kubeconfig(path, context.clone()).await?,
            Self::ApiServer {
                url,
                ca_file,
                token_file,
            } => from_address(url, ca_file.as_deref(), token_file.as_deref())?,
            Self::Given(client) => return Ok(Described::Client(client.0.clone())),
            Self::InCluster => kube::Config::incluster().map_err(|error| {
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
        keep_from_children(&mut config.auth_info);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Attestation has its own pace of retries, and a retry here would hide a slow API server.
        config.default_retry = false;
        Ok(Described::Config(Box::new(config)))
    }
}

/// What a client is made of.
enum Described {
    Config(Box<kube::Config>),
    Client(kube::Client),
}

/// Programs that make credentials have no say in how systemd sees this one.
fn keep_from_children(auth: &mut kube::config::AuthInfo) {
    if let Some(exec) = &mut auth.exec {
        exec.drop_env
            .get_or_insert_default()
            .push(NOTIFY_SOCKET.to_owned());
    }
    if let Some(provider) = &mut auth.auth_provider {
        let dropped = provider.config.entry("cmd-drop-env".to_owned()).or_default();
        *dropped = format!("{dropped} {NOTIFY_SOCKET}").trim_start().to_owned();
    }
}

fn client_of(config: kube::Config) -> Result<kube::Client, String> {
    kube::Client::try_from(config)
        .map_err(|error| format!("no client can be made: {}", words::of_client(&error)))
}

fn from_address(
    url: &http::Uri,
    ca_file: Option<&Path>,
    token_file: Option<&Path>,
) -> Result<kube::Config, String> {
    let mut config = kube::Config::new(url.clone());
    if let Some(path) = ca_file {
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
        config.root_cert_file = Some(path.to_owned());
    }
    if let Some(path) = token_file {
        std::fs::metadata(path)
            .map_err(|error| format!("the token file {} cannot be read: {error}", path.display()))?;
        config.auth_info.token_file = Some(path.to_string_lossy().into_owned());
    }
    Ok(config)
}

async fn from_kubeconfig(path: &Path, context: Option<String>) -> Result<kube::Config, String> {
    let unusable = |error: kube::config::KubeconfigError| {
        let problem = words::of_kubeconfig(&error);
        format!("the kubeconfig {} cannot be used: {problem}", path.display())
    };
    let mut kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    if names_proxy(&kubeconfig, context.as_deref()) {
        // Its address may carry a password.
        return Err(format!(
            "the kubeconfig {} reaches its cluster through a proxy (`proxy-url`), and this server calls API servers \
             without one: name a cluster that is reached directly",
            path.display()
        ));
    }
    // Where a cluster names no proxy, kube takes one from the environment, which names ways out of a network and not to its
    // API servers.
    for cluster in kubeconfig
        .clusters
        .iter_mut()
        .filter_map(|named| named.cluster.as_mut())
    {
        cluster.proxy_url = Some(NO_PROXY.to_owned());
    }
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    config
        .map(|mut config| {
            config.proxy_url = None;
            config
        })
        .map_err(unusable)
}

/// Whether the kubeconfig itself names a proxy for the cluster of this context.
fn names_proxy(kubeconfig: &Kubeconfig, context: Option<&str>) -> bool {
    let proxy = || {
        let chosen = context.or(kubeconfig.current_context.as_deref())?;
        let context = kubeconfig.contexts.iter().find(|named| named.name == chosen)?;
        let cluster = &context.context.as_ref()?.cluster;
        let named = kubeconfig.clusters.iter().find(|named| named.name == *cluster)?;
        named.cluster.as_ref()?.proxy_url.as_ref()
    };
    proxy().is_some()
}

/// An address as it may be shown: without the user and password before its host.
pub(crate) fn shown(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

/// Tokens travel over TLS, or not beyond this machine.
pub(crate) fn check_scheme(uri: &http::Uri) -> Result<(), String> {
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let is_loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let text = uri.to_string();
    let shown = shown(&text);
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_loopback => Ok(()),
        Some("http") => Err(format!("`{shown}` is not encrypted; use https")),
        _ => Err(format!("`{shown}` is neither https nor http to this machine")),
    }
}

#[cfg(test)]
mod tests {
    use kube::config::{AuthInfo, AuthProviderConfig, ExecConfig};

    use super::*;

    #[test]
    fn no_program_that_makes_credentials_can_speak_to_systemd() {
        let exec: ExecConfig = serde_json::from_value(serde_json::json!({ "command": "aws" })).unwrap();
        let config = [("cmd-drop-env".to_owned(), "HOME".to_owned())].into();
        let (name, other) = ("gcp".to_owned(), Default::default());
        let mut auth = AuthInfo {
            exec: Some(exec),
            auth_provider: Some(AuthProviderConfig { name, config, other }),
            ..AuthInfo::default()
        };
        keep_from_children(&mut auth);
        assert_eq!(auth.exec.unwrap().drop_env.unwrap(), [NOTIFY_SOCKET]);
        assert_eq!(
            auth.auth_provider.unwrap().config["cmd-drop-env"],
            "HOME NOTIFY_SOCKET"
        );
    }
}
