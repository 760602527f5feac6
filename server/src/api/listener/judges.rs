//! What a connection may claim.

use std::sync::Arc;

use signet_certs::verify::VerifiedSvid;
use signet_runtime::source::Source;

use crate::{
    agents::{Agents, STREAM_AFTER_END},
    api::allowance::Caller,
    audit::AuditLog,
    clock::TrustedClock,
    store::{Generation, Standing},
};

/// Who says what a certificate is worth.
pub(crate) struct Judges {
    /// The registry of agents.
    pub agents: Arc<Agents>,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// Where refused certificates are told.
    pub audit: AuditLog,
}

/// What a connection may claim by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// An agent's place.
    Agent(Generation),
    /// A place for its trust stream.
    Guest,
    /// Nothing.
    Stranger,
}

impl Claim {
    pub(super) fn caller(self, svid: Option<&VerifiedSvid>, source: Source) -> Caller {
        match (self, svid) {
            (Self::Agent(_), Some(svid)) => Caller::Agent(svid.spiffe_id().clone()),
            (Self::Guest, Some(svid)) => Caller::Guest(svid.spiffe_id().clone()),
            (Self::Stranger, _) | (_, None) => Caller::Stranger(source),
        }
    }
}

impl Judges {
    /// The first use of a newer certificate is durable when this returns.
    pub(super) async fn claim(&self, svid: &VerifiedSvid) -> Claim {
        let time = self.clock.time();
        if time.is_over_for(svid.not_after(), STREAM_AFTER_END) {
            return Claim::Stranger;
        }
        let Ok(presented) = self.agents.present(svid, time.now, time.earliest).await else {
            // What is public stays open while the store cannot be asked.
            return self.agents.in_use(svid).map_or(Claim::Guest, Claim::Agent);
        };
        match presented.standing {
            Standing::Counts if svid.not_after() >= time.now => Claim::Agent(presented.generation),
            Standing::Counts | Standing::Unknown => Claim::Guest,
            Standing::Superseded | Standing::Revoked | Standing::Denied(_) => Claim::Stranger,
        }
    }
}
