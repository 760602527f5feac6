//! Node agents as last attested.

use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::StoreFuture;

/// What a store keeps of node agents.
pub(crate) trait AttestedAgents: Send + Sync {
    /// Remembers an agent; replaces what was known of the same SPIFFE ID.
    fn record_agent(&self, agent: AgentRow) -> StoreFuture<'_, ()>;

    /// Every agent whose certificate has not been expired for more than a day, by SPIFFE ID.
    fn agents(&self) -> StoreFuture<'_, Vec<AgentRow>>;
}

/// A node agent as last attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentRow {
    /// `spiffe://<td>/signet/agent/<cluster>/<node-uid>`.
    pub spiffe_id: SpiffeId,
    /// Name of the cluster in the configuration.
    pub cluster: String,
    /// The node's name in its cluster.
    pub node_name: String,
    /// The node's UID in its cluster.
    pub node_uid: String,
    /// Serial of the agent's newest certificate.
    pub serial: SerialNumber,
    /// Authority that signed it.
    pub authority: AuthorityId,
    /// When the node was last attested.
    pub attested_at: SystemTime,
    /// When the newest certificate expires.
    pub expires_at: SystemTime,
}
