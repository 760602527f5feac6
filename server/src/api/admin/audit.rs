//! By what the audit log is verified, from the one who knows.

use signet_proto::admin as wire;
use tonic::Status;

use super::{AdminService, store_status};

impl AdminService {
    /// The key of the log, and how far it has come where it is written.
    pub(super) async fn shown_audit(&self) -> Result<wire::ShowAuditResponse, Status> {
        // The head first: a newer cursor vouches for no less.
        let head = self.store.head().await.map_err(store_status)?;
        let end = self.store.cursor().await.map_err(store_status)?;
        Ok(wire::ShowAuditResponse {
            server_id: self.store.info().server_id.clone(),
            public_key: self.audit_key.to_base64(),
            sequence: end.sequence,
            hash: end.hash.to_vec().into(),
            head: head.unwrap_or_default(),
        })
    }
}
