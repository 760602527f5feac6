//! The configuration files of server and agent, as a user could have written them.

use std::{fs, time::Duration};

use anyhow::Context;
use signet_tests::process::free_port;

use crate::{
    layout::Layout,
    names::{CLUSTER, NODE, TRUST_DOMAIN},
};

/// How long things live.
pub(crate) struct Times {
    svid_ttl: Duration,
    authority_ttl: Duration,
}

impl Times {
    /// As in production.
    pub(crate) const fn everyday() -> Self {
        Self {
            svid_ttl: Duration::from_secs(3600),
            authority_ttl: Duration::from_secs(7 * 24 * 3600),
        }
    }

    /// So short that a renewal can be watched.
    pub(crate) const fn story() -> Self {
        Self {
            svid_ttl: Duration::from_secs(20),
            authority_ttl: Duration::from_secs(3600),
        }
    }
}

/// Ports of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) agents: u16,
    pub(crate) publish: u16,
    pub(crate) bundle: u16,
    pub(crate) telemetry: u16,
    pub(crate) agent_telemetry: u16,
}

impl Ports {
    pub(crate) fn free() -> anyhow::Result<Self> {
        Ok(Self {
            agents: free_port()?,
            publish: free_port()?,
            bundle: free_port()?,
            telemetry: free_port()?,
            agent_telemetry: free_port()?,
        })
    }
}

/// Writes `server.yaml`.
pub(crate) fn write_server(layout: &Layout, ports: Ports, times: &Times) -> anyhow::Result<()> {
    let yaml = format!(
        "\
trust_domain: {TRUST_DOMAIN}
data_dir: {data}
listen:
  agents: 127.0.0.1:{agents}
  admin_socket: {admin}
  publish: 127.0.0.1:{publish}
  bundle: 127.0.0.1:{bundle}
  telemetry: 127.0.0.1:{telemetry}
publish:
  url: http://127.0.0.1:{publish}
trust:
  control_anchors_file: {anchors}
svid:
  ttl: {svid_ttl}s
authority:
  ttl: {authority_ttl}s
  # Nobody here reads the bundle without reporting it.
  spread: 1s
  spread_max: 60s
attestation:
  clusters:
    - name: {CLUSTER}
      kubeconfig: {kubeconfig}
rules:
  # The user's own shell: whoever runs as this uid on this machine.
  - name: shell
    match:
      evidence: [unix]
      unix:
        uids: [{uid}]
    spiffe_id: /dev/uid/{{uid}}
    dns_names: [localhost]
audit:
  file: {audit}
",
        data = layout.server("data").display(),
        agents = ports.agents,
        admin = layout.admin_socket().display(),
        publish = ports.publish,
        bundle = ports.bundle,
        telemetry = ports.telemetry,
        anchors = layout.server("control-anchors.pem").display(),
        svid_ttl = times.svid_ttl.as_secs(),
        authority_ttl = times.authority_ttl.as_secs(),
        kubeconfig = layout.kube("kubeconfig").display(),
        uid = nix::unistd::getuid(),
        audit = layout.server("audit.log").display(),
    );
    write(&layout.server("server.yaml"), &yaml)
}

/// Writes `agent.yaml`.
pub(crate) fn write_agent(layout: &Layout, ports: Ports) -> anyhow::Result<()> {
    let yaml = format!(
        "\
trust_domain: {TRUST_DOMAIN}
cluster: {CLUSTER}
server:
  address: 127.0.0.1:{agents}
trust:
  anchors_file: {anchors}
node:
  token_file: {token}
  name: {node}
data_dir: {data}
csi:
  enabled: true
  kubelet_dir: {kubelet}
  socket_path: {csi_socket}
  volumes_dir: {volumes}
  # Pods are directories here: links need no privileges.
  mounter: link
shared_socket:
  path: {shell}
  mode: \"0600\"
admin_socket: {admin}
telemetry:
  listen: 127.0.0.1:{telemetry}
",
        agents = ports.agents,
        anchors = layout.server("control-anchors.pem").display(),
        token = layout.agent("token").display(),
        node = NODE,
        data = layout.agent("data").display(),
        kubelet = layout.kubelet().display(),
        csi_socket = layout.kubelet().join("csi.sock").display(),
        volumes = layout.agent("volumes").display(),
        shell = layout.shell_socket().display(),
        admin = layout.agent_admin_socket().display(),
        telemetry = ports.agent_telemetry,
    );
    write(&layout.agent("agent.yaml"), &yaml)
}

fn write(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
