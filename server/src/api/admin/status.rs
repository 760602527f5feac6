//! What the server says of itself.

use signet_certs::time::unix_millis;
use signet_proto::admin as wire;
use signet_runtime::ready::Level;
use tonic::Status;

use super::{AdminService, convert, store_status};

impl AdminService {
    pub(super) async fn shown_status(&self) -> Result<wire::StatusResponse, Status> {
        let now = self.clock.now();
        let authorities = self.all_authorities(now).await?;
        let waits = self.authorities.current().borrow().has_prepared();
        let clock = self.clock.show();
        let earliest = self.clock.time().earliest;
        let denials = self.store.denials(false, earliest).await.map_err(store_status)?;
        let first_end = denials.iter().filter_map(|denial| denial.expires).min();
        Ok(wire::StatusResponse {
            trust_domain: self.trust_domain.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: unix_millis(self.started),
            now_unix_ms: unix_millis(now),
            ready: self.readiness.is_ready(Level::Serve),
            ready_issue: self.readiness.is_ready(Level::Issue),
            not_ready: convert::not_ready(&self.readiness),
            sequence_number: self.trust.borrow().sequence,
            policy_revision: self.rules.current().borrow().revision(),
            rules: Some(self.rules_standing()),
            svids_issued: self.metrics.issued_total(),
            svids_live: authorities.iter().map(|authority| authority.live_svids).sum(),
            agents_connected: u32::try_from(self.agents.connected()).unwrap_or(u32::MAX),
            key_exchanges: convert::key_exchanges(self.agents.key_exchanges()),
            agents_awaited: self.agents.awaited(waits.then(|| self.trust.borrow().sequence)),
            clusters: convert::clusters(self.attestor.clusters()),
            authorities,
            lists: convert::list_rooms(&self.publisher.room_use().borrow()),
            list_proofs: convert::list_proofs(&self.put_back.standing()),
            clock_state: clock.state.as_str().to_owned(),
            clock_reason: clock.reason,
            advice: self.advice.clone(),
            denials: u32::try_from(denials.len()).unwrap_or(u32::MAX),
            first_denial_ends_unix_ms: first_end.map_or(0, unix_millis),
        })
    }
}
