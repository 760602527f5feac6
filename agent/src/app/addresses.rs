//! Where an agent can be reached.

use std::net::SocketAddr;
use std::path::PathBuf;

use signet_certs::id::TrustDomain;

/// Where the agent can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// Health and metrics.
    pub telemetry: SocketAddr,
    /// For `status` and `healthcheck`.
    pub admin_socket: PathBuf,
    /// For processes outside Kubernetes.
    pub shared_socket: Option<PathBuf>,
}

impl Addresses {
    pub(super) fn say(&self, trust_domain: &TrustDomain) {
        let shared_socket = self
            .shared_socket
            .as_deref()
            .map(|path| path.display().to_string());
        tracing::info!(
            %trust_domain,
            telemetry = %self.telemetry,
            admin_socket = %self.admin_socket.display(),
            shared_socket,
            "the agent is up"
        );
    }
}
