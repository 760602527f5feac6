//! Rows of the ledger, denials and lists, as admins ask for them.

use signet_certs::authority::AuthorityKind;
use signet_proto::admin as wire;
use tonic::Status;

use super::{AdminService, convert, store_status};
use crate::{store::SvidFilter, trust::PublishedAuthority};

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
            unexpired_at: None,
            limit: request.limit,
        };
        let page = self.store.list(filter).await.map_err(store_status)?;
        Ok(wire::ListSvidsResponse {
            svids: page.rows.iter().map(convert::svid).collect(),
            truncated: page.truncated,
        })
    }

    pub(super) async fn listed_denials(&self, lifted: bool) -> Result<wire::ListDenialsResponse, Status> {
        let denials = self.store.denials(lifted, self.clock.time().earliest);
        let denials = denials.await.map_err(store_status)?;
        Ok(wire::ListDenialsResponse {
            denials: denials.iter().map(convert::denial).collect(),
        })
    }

    pub(super) async fn lifted(&self, denial: &str, author: &str) -> Result<wire::AllowResponse, Status> {
        let denial = self.store.allow(denial, author, self.clock.now());
        let denial = denial.await.map_err(store_status)?;
        self.agents.all_affected();
        Ok(wire::AllowResponse {
            denial: Some(convert::denial(&denial)),
        })
    }

    /// The lists that are in force.
    pub(super) fn lists(&self) -> wire::ShowCrlsResponse {
        let trust = self.trust.borrow().clone();
        let of = |(kind, published): (&AuthorityKind, &Vec<PublishedAuthority>)| {
            let crls = published.iter().map(|one| convert::crl(kind.as_str(), one));
            crls.collect::<Vec<_>>()
        };
        let crls = trust.kinds.iter().flat_map(of).collect();
        wire::ShowCrlsResponse { crls }
    }
}
