//! What handles of the authority manager ask its worker for.

use signet_certs::authority::AuthorityKind;
use signet_certs::signer::SignatureAlgorithm;
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::lifecycle::LifecycleError;
use super::rotation::RotationProgress;

/// A wish of an admin.
#[derive(Clone, Debug)]
pub(crate) struct RotateRequest {
    /// Which kind.
    pub kind: AuthorityKind,
    /// Take over as soon as the successor and its CRL are published, without waiting for them to spread. Audited.
    pub force: bool,
    /// What the successor's key shall sign with; nothing leaves that to the settings.
    pub algorithm: Option<SignatureAlgorithm>,
    /// Who wants it.
    pub author: String,
}

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    /// Rotate one kind.
    Rotate {
        request: RotateRequest,
        progress: mpsc::Sender<RotationProgress>,
        reply: oneshot::Sender<Result<(), LifecycleError>>,
        /// Whose wish it is, for the log.
        story: Span,
    },
}
