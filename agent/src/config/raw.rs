//! The file as written.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use signet_certs::tls::Hybrid;
use signet_runtime::telemetry::LogFormat;

use super::{DEFAULT_ADMIN_SOCKET, MounterKind};
use crate::csi::TokensFrom;
use crate::sds::Names;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Raw {
    /// The server's trust domain, by name or as `spiffe://name`.
    pub(super) trust_domain: String,
    /// Name of this cluster in the server's configuration.
    pub(super) cluster: String,
    /// Where the server is.
    pub(super) server: Server,
    /// How the server is recognised.
    pub(super) trust: Trust,
    /// TLS of the connection to the server.
    pub(super) tls: Tls,
    /// How this node proves itself.
    pub(super) node: Node,
    /// What must outlive a restart of the machine; public.
    pub(super) data_dir: PathBuf,
    /// What must outlive a restart of the agent; secret.
    pub(super) state_dir: PathBuf,
    /// Whether keys outlive a restart of the agent.
    pub(super) keep_keys: bool,
    /// Whether they may be written to a disk.
    pub(super) keep_secrets_on_disk: bool,
    /// The CSI driver.
    pub(super) csi: Csi,
    /// One socket for processes outside Kubernetes; off unless written.
    pub(super) shared_socket: Option<SharedSocket>,
    /// Envoy's secret discovery, on every workload socket.
    pub(super) sds: Sds,
    /// Where `status` and `healthcheck` ask.
    pub(super) admin_socket: PathBuf,
    /// `/live`, `/ready`, `/ready/issue`, `/metrics`.
    pub(super) telemetry: Telemetry,
    /// Logs go to standard error.
    pub(super) log: Log,
}

/// Where the server is.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// `host:port`.
    pub(super) address: String,
}

/// How the server is recognised before anything is sent to it.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Trust {
    /// PEM certificates of the control authorities, and lines that name those which are not to be trusted.
    pub(super) anchors_file: PathBuf,
}

/// TLS of the connection to the server.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    /// Whether its key exchange is hybrid: `prefer`, `require` or `off`.
    pub(super) hybrid: Hybrid,
}

/// How this node proves itself.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Node {
    /// A projected service account token.
    pub(super) token_file: PathBuf,
    /// Kubernetes' name of the node; empty means that the machine is asked.
    pub(super) name: String,
}

/// The CSI driver.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Csi {
    /// Needs root and kubelet's directories.
    pub(super) enabled: bool,
    /// As the CSIDriver object names it.
    pub(super) driver_name: String,
    /// Audience of the pods' tokens; empty means `signet:<td>:pod`.
    pub(super) audience: String,
    /// Where kubelet calls the driver; empty means `<kubelet_dir>/plugins/<driver_name>/csi.sock`.
    pub(super) socket_path: PathBuf,
    /// Where kubelet looks for plugins; empty means `<kubelet_dir>/plugins_registry`.
    pub(super) registration_dir: PathBuf,
    /// kubelet's root.
    pub(super) kubelet_dir: PathBuf,
    /// Parent of the pods' socket directories.
    pub(super) volumes_dir: PathBuf,
    /// Where kubelet puts the pods' tokens, as the CSIDriver object says.
    pub(super) tokens_from: TokensFrom,
    /// How a socket directory appears in its pod.
    pub(super) mounter: MounterKind,
}

/// The shared socket.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SharedSocket {
    /// At most 107 bytes.
    pub(super) path: PathBuf,
    /// Who may connect.
    pub(super) mode: OctalMode,
}

/// Envoy's secret discovery: what its secrets are called, beside SPIFFE IDs.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sds {
    /// The default identity's certificate.
    pub(super) default_svid_name: String,
    /// What verifies the own trust domain.
    pub(super) default_bundle_name: String,
    /// What verifies all trust domains.
    pub(super) all_bundles_name: String,
    /// Whether validation contexts are for Envoy's SPIFFE validator, where a proxy's metadata do not say.
    pub(super) spiffe_validator: bool,
}

/// Telemetry.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Telemetry {
    /// Address of the HTTP listener.
    pub(super) listen: SocketAddr,
}

/// Logs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// `text` or `json`.
    pub(super) format: LogFormat,
}

/// Permission bits, written in octal as a string (`"0660"`), for a bare 0660 is a decimal number in YAML.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(super) struct OctalMode(pub(super) u32);

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

impl Default for Raw {
    fn default() -> Self {
        Self {
            trust_domain: String::new(),
            cluster: "default".to_owned(),
            server: Server::default(),
            trust: Trust::default(),
            tls: Tls::default(),
            node: Node::default(),
            data_dir: "/var/lib/signet-agent".into(),
            state_dir: "/run/signet-agent/state".into(),
            keep_keys: true,
            keep_secrets_on_disk: false,
            csi: Csi::default(),
            shared_socket: None,
            sds: Sds::default(),
            admin_socket: DEFAULT_ADMIN_SOCKET.into(),
            telemetry: Telemetry::default(),
            log: Log::default(),
        }
    }
}

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
            tokens_from: TokensFrom::VolumeContext,
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

impl Default for Sds {
    fn default() -> Self {
        let names = Names::default();
        Self {
            default_svid_name: names.default_svid,
            default_bundle_name: names.own_bundle,
            all_bundles_name: names.all_bundles,
            spiffe_validator: true,
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
