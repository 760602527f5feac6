//! Revocations that no admin has asked for, one certificate each: they deny nothing, and enter lists behind all others.

use std::sync::Arc;

use signet_certs::crl::RevocationReason;

use crate::{
    agents::Agents,
    clock::TrustedClock,
    metrics::Metrics,
    publisher::Publisher,
    store::{LedgerRow, Origin, RevokeError, RevokeRequest, RevokeTarget, Store, StoreError},
};

/// In audit lines.
const AUTHOR: &str = "system";

/// Revokes what its holder has no use for any more.
pub(crate) struct Unasked {
    /// Has the certificates.
    pub store: Arc<dyn Store>,
    /// Puts on a list what is revoked.
    pub publisher: Publisher,
    /// Whose streams end with a revoked certificate.
    pub agents: Arc<Agents>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
}

impl Unasked {
    /// Revokes the certificate of this row; the audit line says why in this `comment`.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn revoke(&self, row: &LedgerRow, comment: String) -> Result<(), StoreError> {
        let time = self.clock.time();
        let request = RevokeRequest {
            target: RevokeTarget::Serial {
                serial: row.serial,
                authority: Some(row.authority),
                expires_by: None,
            },
            reason: RevocationReason::CessationOfOperation,
            comment,
            author: AUTHOR.to_owned(),
            origin: Origin::Automatic,
            invalid_since: None,
            keep_issuing: true,
            denial_expires: None,
            rooms: self.publisher.rooms(),
            now: time.now,
            earliest: time.earliest,
        };
        match self.store.revoke(request).await {
            Ok(revoked) => {
                self.metrics.revoked(revoked.fresh);
                self.agents.after(&revoked);
                self.publisher.revocation_changed(revoked.revision);
                Ok(())
            }
            Err(RevokeError::Store(error)) => Err(error),
            // It has ended meanwhile: what is read from the ledger is known, and so is its authority.
            Err(RevokeError::Expired(_) | RevokeError::UnknownSerial | RevokeError::UnknownAuthority(_)) => {
                Ok(())
            }
        }
    }
}
