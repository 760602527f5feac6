//! `agent.yaml`: every key with its default, unknown keys refused.
//!
//! ```yaml
//! trust_domain: example.org            # the only key without a default
//! cluster: default                     # name of this cluster in the server's configuration
//! server:
//!   address: 127.0.0.1:8443            # host:port of the server's gRPC listener
//! trust:
//!   anchors_file: /etc/signet/control-anchors.pem   # control authorities, PEM; as the server writes them
//! node:
//!   token_file: /var/run/secrets/signet/node/token
//!   name: ""                           # of this node for kubelet; default SIGNET_NODE_NAME, else the host name
//! data_dir: /var/lib/signet-agent
//! csi:
//!   enabled: false
//!   driver_name: csi.signet.dev
//!   audience: signet:example.org:pod   # of the tokens that kubelet passes; default from trust_domain
//!   socket_path: /var/lib/kubelet/plugins/csi.signet.dev/csi.sock
//!   registration_dir: /var/lib/kubelet/plugins_registry
//!   kubelet_dir: /var/lib/kubelet
//!   volumes_dir: /run/signet-agent/volumes
//!   mounter: bind                      # or link: symbolic links, for machines without pods and without root
//! shared_socket:                       # off unless written
//!   path: /run/signet-agent/public/api.sock
//!   mode: "0777"
//! admin_socket: /run/signet-agent/admin.sock
//! telemetry:
//!   listen: 127.0.0.1:9441
//! log:
//!   format: text
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_runtime::config::{Findings, Validate};
use signet_runtime::telemetry::LogFormat;
use signet_runtime::uds::MAX_PATH_BYTES;

/// The file as written. Call [`Validate::validate`] before using it; [`load_valid`](signet_runtime::config::load_valid)
/// does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The server's trust domain, by name or as `spiffe://name`.
    pub trust_domain: String,
    /// Name of this cluster in the server's configuration.
    pub cluster: ClusterName,
    /// Where the server is.
    pub server: Server,
    /// How the server is recognised.
    pub trust: Trust,
    /// How this node proves itself.
    pub node: Node,
    /// What must outlive a restart, root-only: the control anchors as last pushed, and the agent's own key while its
    /// node token lives. No keys of workloads.
    pub data_dir: DataDir,
    /// The CSI driver: one socket directory for each pod.
    pub csi: Csi,
    /// One socket for processes outside Kubernetes, attested by uid; off unless written.
    pub shared_socket: Option<SharedSocket>,
    /// Where `signet-agent status` and `healthcheck` ask. Mode 0600, of the agent's own uid.
    pub admin_socket: AdminSocket,
    /// `/live`, `/ready`, `/metrics`.
    pub telemetry: Telemetry,
    /// Logs go to standard error.
    pub log: Log,
}

/// Where the server is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// `host:port`, resolved again for each connection.
    pub address: String,
}

/// How the server is recognised before anything is sent to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// PEM certificates of the control authorities; read when nothing newer was pushed, and again when all are dead.
    pub anchors_file: PathBuf,
}

/// How this node proves itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// A projected service account token of the agent's own pod, for the audience `signet:<td>:node`. Read at each use.
    pub token_file: PathBuf,
    /// Kubernetes' name of the node, told to kubelet; empty means `SIGNET_NODE_NAME`, else the host name.
    pub name: String,
}

/// The CSI driver.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Csi {
    /// Needs root and kubelet's directories.
    pub enabled: bool,
    /// As the CSIDriver object names it.
    pub driver_name: String,
    /// Audience of the token that kubelet passes with a volume; empty means `signet:<td>:pod`.
    pub audience: String,
    /// Where kubelet calls the driver; empty means `<kubelet_dir>/plugins/<driver_name>/csi.sock`.
    pub socket_path: PathBuf,
    /// Where kubelet looks for plugins; empty means `<kubelet_dir>/plugins_registry`.
    pub registration_dir: PathBuf,
    /// kubelet's root; volumes are published below `<kubelet_dir>/pods` only.
    pub kubelet_dir: PathBuf,
    /// Parent of the pods' socket directories; root-only, on tmpfs.
    pub volumes_dir: PathBuf,
    /// How a socket directory appears in its pod.
    pub mounter: MounterKind,
}

/// How a socket directory appears at kubelet's target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum MounterKind {
    /// A read-only bind mount. Needs CAP_SYS_ADMIN.
    #[default]
    Bind,
    /// A symbolic link; for machines where pods are mere directories. Needs no privileges.
    Link,
}

/// The shared socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedSocket {
    /// At most 107 bytes.
    pub path: PathBuf,
    /// Octal; who may connect is everybody by default, since the caller is attested.
    pub mode: OctalMode,
}

/// Telemetry.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Address of the HTTP listener; port 0 chooses one.
    pub listen: SocketAddr,
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
}

/// Permission bits, written in octal as a string (`"0660"`), for a bare 0660 is a decimal number in YAML.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct OctalMode(pub u32);

/// A text key with a default of its own.
macro_rules! with_default {
    ($(#[$doc:meta])* $name:ident($inner:ty) = $default:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl Default for $name {
            fn default() -> Self {
                Self($default.into())
            }
        }
    };
}

with_default!(
    /// See [`Config::cluster`].
    ClusterName(String) = "default"
);
with_default!(
    /// See [`Config::data_dir`].
    DataDir(PathBuf) = "/var/lib/signet-agent"
);
with_default!(
    /// See [`Config::admin_socket`].
    AdminSocket(PathBuf) = DEFAULT_ADMIN_SOCKET
);

/// Where the commands ask unless told otherwise.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/signet-agent/admin.sock";

impl Default for Server {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8443".to_owned(),
        }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            anchors_file: "/etc/signet/control-anchors.pem".into(),
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            token_file: "/var/run/secrets/signet/node/token".into(),
            name: String::new(),
        }
    }
}

impl Default for Csi {
    fn default() -> Self {
        Self {
            enabled: false,
            driver_name: "csi.signet.dev".to_owned(),
            audience: String::new(),
            socket_path: PathBuf::new(),
            registration_dir: PathBuf::new(),
            kubelet_dir: "/var/lib/kubelet".into(),
            volumes_dir: "/run/signet-agent/volumes".into(),
            mounter: MounterKind::Bind,
        }
    }
}

impl Default for SharedSocket {
    fn default() -> Self {
        Self {
            path: "/run/signet-agent/public/api.sock".into(),
            mode: OctalMode(0o777),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9441)),
        }
    }
}

impl TryFrom<String> for OctalMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!(
                "`{text}` is no file mode; write octal digits in quotes, for example \"0660\""
            )),
        }
    }
}

impl Csi {
    /// Where kubelet calls the driver.
    pub fn socket_path(&self) -> PathBuf {
        if self.socket_path.as_os_str().is_empty() {
            return self
                .kubelet_dir
                .join("plugins")
                .join(&self.driver_name)
                .join("csi.sock");
        }
        self.socket_path.clone()
    }

    /// Where kubelet looks for plugins.
    pub fn registration_dir(&self) -> PathBuf {
        if self.registration_dir.as_os_str().is_empty() {
            return self.kubelet_dir.join("plugins_registry");
        }
        self.registration_dir.clone()
    }
}

impl Config {
    /// The trust domain.
    ///
    /// # Errors
    /// When the name is missing or not allowed; [`Validate::validate`] says so first.
    pub fn trust_domain(&self) -> Result<TrustDomain, signet_certs::id::IdError> {
        TrustDomain::parse_lenient(&self.trust_domain)
    }

    /// Audience of the pods' tokens.
    pub fn pod_audience(&self) -> String {
        if self.csi.audience.is_empty() {
            return format!(
                "signet:{}:pod",
                self.trust_domain
                    .trim_start_matches("spiffe://")
                    .to_ascii_lowercase()
            );
        }
        self.csi.audience.clone()
    }
}

impl Validate for Config {
    fn validate(&self, findings: &mut Findings) {
        check_names(self, findings);
        check_paths(self, findings);
        check_csi(&self.csi, findings);
    }
}

fn check_names(config: &Config, findings: &mut Findings) {
    if config.trust_domain.is_empty() {
        findings.error(
            "trust_domain",
            "is not set",
            "write the server's trust domain, for example example.org",
        );
        return;
    }
    match config.trust_domain() {
        Err(error) => findings.error(
            "trust_domain",
            error.to_string(),
            "write the name that the server serves",
        ),
        Ok(domain) => {
            // The name becomes a segment of the agent's own ID.
            if let Err(error) = SpiffeId::agent(&domain, &config.cluster.0, "node") {
                findings.error(
                    "cluster",
                    error.to_string(),
                    "use letters, digits, dots, dashes and underscores",
                );
            }
        }
    }
    if !is_host_and_port(&config.server.address) {
        let problem = format!("`{}` is not host:port", config.server.address);
        findings.error(
            "server.address",
            problem,
            "write for example signet-server.signet.svc:8443",
        );
    }
}

fn check_paths(config: &Config, findings: &mut Findings) {
    absolute("trust.anchors_file", &config.trust.anchors_file, findings);
    absolute("node.token_file", &config.node.token_file, findings);
    absolute("data_dir", &config.data_dir.0, findings);
    socket("admin_socket", &config.admin_socket.0, findings);
    let Some(shared) = &config.shared_socket else {
        return;
    };
    socket("shared_socket.path", &shared.path, findings);
    if shared.path == config.admin_socket.0 {
        findings.error(
            "shared_socket.path",
            "is the admin socket's path too",
            "give each socket a path of its own",
        );
    }
}

fn check_csi(csi: &Csi, findings: &mut Findings) {
    if !csi.enabled {
        return;
    }
    let named = !csi.driver_name.is_empty()
        && csi.driver_name.len() <= 63
        && csi
            .driver_name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if !named {
        let problem = format!("`{}` is no CSI driver name", csi.driver_name);
        findings.error(
            "csi.driver_name",
            problem,
            "use at most 63 letters, digits, dots and dashes",
        );
    }
    absolute("csi.kubelet_dir", &csi.kubelet_dir, findings);
    absolute("csi.volumes_dir", &csi.volumes_dir, findings);
    absolute("csi.registration_dir", &csi.registration_dir(), findings);
    socket("csi.socket_path", &csi.socket_path(), findings);
}

fn absolute(key: &str, path: &Path, findings: &mut Findings) {
    if !path.is_absolute() {
        findings.error(
            key,
            format!("`{}` is not an absolute path", path.display()),
            "begin it with a slash",
        );
    }
}

fn socket(key: &str, path: &Path, findings: &mut Findings) {
    absolute(key, path, findings);
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        let problem = format!("the path has {length} bytes, a Unix socket's may have {MAX_PATH_BYTES}");
        findings.error(key, problem, "choose a shorter one");
    }
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let plain =
        !host.is_empty() && !host.contains(['/', '@', ' ']) && (host.starts_with('[') || !host.contains(':'));
    plain && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests;
