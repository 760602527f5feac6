//! What the server says against the agent's own certificate, on its way to the node attestor.

use futures_util::FutureExt as _;
use signet_certs::serial::SerialNumber;
use signet_runtime::sync::Mutex;
use tokio::sync::Notify;

use super::ServerError;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Objections {
    wake: Notify,
    /// The one that was called revoked last.
    revoked: Mutex<Option<SerialNumber>>,
}

impl Objections {
    /// Takes note of why a call failed, if it was for the certificate.
    pub(crate) fn hear(&self, error: &ServerError) {
        match error {
            ServerError::Unauthenticated(_) => {}
            ServerError::Revoked { serial, .. } => *self.revoked.lock() = Some(*serial),
            ServerError::Refused(_) | ServerError::Unavailable { .. } => return,
        }
        self.wake.notify_one();
    }

    /// What was heard and not waited for yet counts for nothing.
    pub(crate) fn forget(&self) {
        let _ = self.wake.notified().now_or_never();
    }

    /// Waits for the next; one that came before it was waited for is not lost.
    pub(crate) async fn heard(&self) {
        self.wake.notified().await;
    }

    /// The server called this very certificate revoked. A late word about its predecessor says nothing.
    pub(crate) fn call_revoked(&self, serial: &SerialNumber) -> bool {
        *self.revoked.lock() == Some(*serial)
    }
}
