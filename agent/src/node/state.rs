//! How the node stands, and why it does not.

use std::path::PathBuf;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use thiserror::Error;

use crate::server_client::ServerError;

/// The agent's certificate, without its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NodeIdentity {
    /// `spiffe://<td>/signet/agent/<cluster>/<node uid>`.
    pub spiffe_id: SpiffeId,
    /// Of the certificate.
    pub serial: SerialNumber,
    /// Who signed it.
    pub authority: AuthorityId,
    /// When it began.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// Kubernetes' name of the node.
    pub node_name: String,
    /// UID of the node object.
    pub node_uid: String,
}

/// How the node stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NodeState {
    /// The newest certificate, also when it has expired since.
    pub identity: Option<NodeIdentity>,
    /// Why the last attestation failed; empty when it did not.
    pub problem: String,
}

/// Why an attestation failed. All of it is tried again: tokens, clocks and servers change.
#[derive(Debug, Error)]
pub(crate) enum NodeError {
    /// The projected token cannot be read.
    #[error("{}: {problem}; the agent's pod needs a projected service account token there", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The server said no, or was not reached.
    #[error("the node is not attested: {0}")]
    Server(#[from] ServerError),
    /// The server's answer is not usable.
    #[error("the server's certificate for this node is not usable: {0}")]
    Unusable(String),
}
