//! What handles of the authority manager ask its worker for.

use signet_certs::authority::AuthorityKind;
use tokio::sync::oneshot;
use tracing::Span;

use super::lifecycle::LifecycleError;
use super::operation::Order;

/// A wish of an admin.
#[derive(Clone, Debug)]
pub(crate) struct OrderRequest {
    /// Which kind.
    pub kind: AuthorityKind,
    /// What.
    pub order: Order,
    /// Who wants it.
    pub author: String,
}

#[cfg(test)]
impl OrderRequest {
    /// An admin's rotation.
    pub(crate) fn rotation(kind: AuthorityKind, force: bool) -> Self {
        let order = Order::Rotate {
            force,
            algorithm: None,
            retire: false,
        };
        Self {
            kind,
            order,
            author: "admin".to_owned(),
        }
    }
}

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    /// Something of one kind.
    Order {
        request: OrderRequest,
        /// The number of the operation, once it is recorded.
        reply: oneshot::Sender<Result<u64, LifecycleError>>,
        /// Whose wish it is, for the log.
        story: Span,
    },
}
