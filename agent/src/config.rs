//! `agent.yaml`: every key with its default, unknown keys refused. What is written is [read](raw) as it stands; what
//! leaves this module is a [`Config`], whose values can be used.
//!
//! ```yaml
//! trust_domain: example.org            # the only key without a default
//! cluster: default                     # name of this cluster in the server's configuration
//! server:
//!   address: 127.0.0.1:8443            # host:port of the server's gRPC listener
//! trust:
//!   anchors_file: /etc/signet/control-anchors.pem   # control authorities, PEM; as the server writes them
//! tls:
//!   hybrid: prefer                     # X25519MLKEM768 with the server; require, or off
//! node:
//!   token_file: /var/run/secrets/signet/node/token
//!   name: ""                           # of this node for kubelet; default SIGNET_NODE_NAME, else the host name
//! data_dir: /var/lib/signet-agent      # public, outlives the machine's restart
//! state_dir: /run/signet-agent/state   # secret, outlives the agent's restart; on tmpfs
//! keep_keys: true                      # false: keys stay in memory, a restart asks for certificates anew
//! keep_secrets_on_disk: false          # true: also where it is no tmpfs; for development
//! csi:
//!   enabled: false
//!   driver_name: csi.signet.dev
//!   audience: signet:example.org:pod   # of the tokens that kubelet passes; default from trust_domain
//!   socket_path: /var/lib/kubelet/plugins/csi.signet.dev/csi.sock
//!   registration_dir: /var/lib/kubelet/plugins_registry
//!   kubelet_dir: /var/lib/kubelet
//!   volumes_dir: /run/signet-agent/volumes
//!   tokens_from: volume_context        # or secrets, with csidriver-secrets.yaml
//!   mounter: bind                      # or link: symbolic links, for machines without pods and without root
//! shared_socket:                       # off unless written
//!   path: /run/signet-agent/public/api.sock
//!   mode: "0777"
//! sds:                                 # names of Envoy's secrets, beside SPIFFE IDs
//!   default_svid_name: default
//!   default_bundle_name: ROOTCA
//!   all_bundles_name: ALL
//!   spiffe_validator: true             # false: validation contexts are for Envoy's default validator
//! admin_socket: /run/signet-agent/admin.sock
//! telemetry:
//!   listen: 127.0.0.1:9441
//! log:
//!   format: text
//! ```

mod check;
mod raw;
mod valid;

pub(crate) use self::valid::{Config, Csi, MounterKind};

/// Where the commands ask unless told otherwise.
pub(crate) const DEFAULT_ADMIN_SOCKET: &str = "/run/signet-agent/admin.sock";

#[cfg(test)]
mod tests;
