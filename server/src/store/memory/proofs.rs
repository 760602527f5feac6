//! Lists as evidence about the store.

use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlNumber;
use signet_certs::serial::SerialNumber;

use super::MemoryStore;
use crate::audit_event::AuditEvent;
use crate::store::{ListProof, Proofs, StoreFuture};

impl Proofs for MemoryStore {
    fn list_digest(&self, authority: AuthorityId, number: CrlNumber) -> StoreFuture<'_, Option<[u8; 32]>> {
        self.look(move |kept| kept.list_digest(authority, number))
    }

    fn keep_proof(&self, proof: ListProof, line: AuditEvent) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            if !kept.proofs.iter().any(|known| known.sha256 == proof.sha256) {
                kept.proofs.push(proof);
                kept.audit(vec![line]);
            }
            Ok(())
        })
    }

    fn proofs(&self) -> StoreFuture<'_, Vec<ListProof>> {
        self.look(|kept| kept.proofs.clone())
    }

    fn let_go(
        &self,
        authority: AuthorityId,
        serials: Vec<SerialNumber>,
    ) -> StoreFuture<'_, Vec<SerialNumber>> {
        self.look(move |kept| {
            let is_over = |serial: &SerialNumber| {
                let row = kept.revocations.get(&(authority, *serial));
                row.is_some_and(|row| row.listed)
            };
            serials.into_iter().filter(is_over).collect()
        })
    }

    fn drop_proof(&self, authority: AuthorityId, sha256: [u8; 32]) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            kept.proofs
                .retain(|proof| proof.authority != authority || proof.sha256 != sha256);
            Ok(())
        })
    }
}
