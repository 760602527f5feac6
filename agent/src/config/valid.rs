//! The configuration that the rest of the agent sees: complete, checked, parsed once.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use signet_certs::id::TrustDomain;
use signet_certs::tls::Hybrid;
use signet_runtime::telemetry::LogFormat;

use crate::csi::TokensFrom;
use crate::kept::Keeping;
use crate::sds::Sds;

/// What the agent does, where, and for whom. Paths are absolute; those of sockets fit into an address.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The server's trust domain.
    pub trust_domain: TrustDomain,
    /// Name of this cluster in the server's configuration; a segment of the agent's own ID.
    pub cluster: String,
    /// `host:port` of the server, resolved again for each connection.
    pub server_address: String,
    /// PEM certificates of the control authorities; read when nothing newer was pushed, and again when all are dead.
    pub anchors_file: PathBuf,
    /// Whether the key exchange with the server is hybrid.
    pub hybrid: Hybrid,
    /// A projected service account token of the agent's own pod, for the audience `signet:<td>:node`. Read at each use.
    pub node_token_file: PathBuf,
    /// Kubernetes' name of the node, told to kubelet; without it `SIGNET_NODE_NAME`, else the host name.
    pub node_name: Option<String>,
    /// What must outlive a restart of the machine: what the server pushed last. No secrets.
    pub data_dir: PathBuf,
    /// What must outlive a restart of the agent, root-only, on tmpfs: the agent's certificate, those of programs, their
    /// keys.
    pub state_dir: PathBuf,
    /// Whether keys are written there and to `csi.volumes_dir`.
    pub keeping: Keeping,
    /// The CSI driver, one socket directory for each pod; without it there is none.
    pub csi: Option<Csi>,
    /// One socket for processes outside Kubernetes, attested by uid; without it there is none.
    pub shared_socket: Option<SharedSocket>,
    /// Envoy's secret discovery.
    pub sds: Sds,
    /// Where `signet-agent status` and `healthcheck` ask. Mode 0600, of the agent's own uid.
    pub admin_socket: PathBuf,
    /// Address of `/live`, `/ready`, `/ready/issue`, `/metrics`; port 0 chooses one.
    pub telemetry: SocketAddr,
    /// How logs look.
    pub log: LogFormat,
}

/// The CSI driver. Needs root and kubelet's directories.
#[derive(Clone, Debug)]
pub(crate) struct Csi {
    /// As the CSIDriver object names it: at most 63 letters, digits, dots and dashes.
    pub driver_name: String,
    /// Audience of the token that kubelet passes with a volume.
    pub audience: String,
    /// Where kubelet calls the driver.
    pub socket_path: PathBuf,
    /// Where kubelet looks for plugins.
    pub registration_dir: PathBuf,
    /// kubelet's root; volumes are published below `<kubelet_dir>/pods` only.
    pub kubelet_dir: PathBuf,
    /// Parent of the pods' socket directories; root-only, on tmpfs.
    pub volumes_dir: PathBuf,
    /// Where kubelet puts the pods' tokens.
    pub tokens_from: TokensFrom,
    /// How a socket directory appears in its pod.
    pub mounter: MounterKind,
}

/// How a socket directory appears at kubelet's target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MounterKind {
    /// A read-only bind mount. Needs CAP_SYS_ADMIN.
    #[default]
    Bind,
    /// A symbolic link; for machines where pods are mere directories. Needs no privileges.
    Link,
}

/// The shared socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SharedSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Permission bits; who may connect is everybody by default, since the caller is attested.
    pub mode: u32,
}
