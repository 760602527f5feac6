//! Lists as evidence about the store itself: which ones it has kept, and such as it should have and lacks.

use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlNumber;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::StoreFuture;
use crate::audit_event::AuditEvent;

/// So many lists of each authority are remembered by number: weeks of renewals.
pub(crate) const LISTS_KNOWN: u64 = 1024;

/// What a store keeps of lists as evidence.
pub(crate) trait Proofs: Send + Sync {
    /// SHA-256 of the list that this store has kept under a number; none where that is none of the last [`LISTS_KNOWN`] of
    /// its authority.
    fn list_digest(&self, authority: AuthorityId, number: CrlNumber) -> StoreFuture<'_, Option<[u8; 32]>>;

    /// Keeps a proof and, where it is a new one, its line of the audit log.
    fn keep_proof(&self, proof: ListProof, line: AuditEvent) -> StoreFuture<'_, ()>;

    /// Every proof that is kept, in no order.
    fn proofs(&self) -> StoreFuture<'_, Vec<ListProof>>;

    /// Which of these certificates this store has revoked, listed, and let go of since they had ended: a list that names them says
    /// nothing new.
    fn let_go(
        &self,
        authority: AuthorityId,
        serials: Vec<SerialNumber>,
    ) -> StoreFuture<'_, Vec<SerialNumber>>;

    /// Lets go of a proof that proves nothing any more.
    fn drop_proof(&self, authority: AuthorityId, sha256: [u8; 32]) -> StoreFuture<'_, ()>;
}

/// A list that an authority of this store has signed and that the store lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListProof {
    /// Who signed it.
    pub authority: AuthorityId,
    /// Its number.
    pub number: CrlNumber,
    /// SHA-256 of `der`.
    pub sha256: [u8; 32],
    /// The list itself.
    pub der: Bytes,
    /// The agent that handed it over.
    pub agent: SpiffeId,
    /// When it did.
    pub found_at: SystemTime,
}
