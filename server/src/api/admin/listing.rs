//! Rows of the ledger, as admins ask for them.

use signet_proto::admin as wire;
use tonic::Status;

use super::{AdminService, convert, store_status};
use crate::store::SvidFilter;

impl AdminService {
    pub(super) async fn listed_svids(
        &self,
        request: wire::ListSvidsRequest,
    ) -> Result<wire::ListSvidsResponse, Status> {
        let text = |text: String| (!text.is_empty()).then_some(text);
        let spiffe_id_prefix = text(request.spiffe_id_prefix)
            .map(|id| self.id_or_path(&id))
            .transpose()?;
        let filter = SvidFilter {
            spiffe_id_prefix,
            spiffe_id: None,
            pod: text(request.pod),
            node: text(request.node),
            // As a revocation would find them.
            live_at: request.live.then(|| self.clock.time().earliest),
            limit: request.limit,
        };
        let page = self.store.list(filter).await.map_err(store_status)?;
        Ok(wire::ListSvidsResponse {
            svids: page.rows.iter().map(convert::svid).collect(),
            truncated: page.truncated,
        })
    }
}
