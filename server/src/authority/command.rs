//! What handles of the authority manager ask its worker for.

use signet_certs::authority::AuthorityKind;
use tokio::sync::{mpsc, oneshot};

use super::lifecycle::LifecycleError;
use super::rotation::RotationProgress;

/// A wish of an admin.
#[derive(Clone, Debug)]
pub(crate) struct RotateRequest {
    /// Which kind.
    pub kind: AuthorityKind,
    /// Take over as soon as the successor and its CRL are published, without waiting for them to spread. Audited.
    pub force: bool,
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
    },
}
