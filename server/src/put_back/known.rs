//! Which lists this store has kept.

use std::sync::Arc;

use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlNumber;

use super::judge::Claim;
use crate::store::Store;
use crate::trust::{PublishedAuthority, TrustSnapshot};

pub(super) struct KnownLists {
    store: Arc<dyn Store>,
}

impl KnownLists {
    pub(super) const fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The lists of a report that this store should have and lacks. Of authorities that are not published nothing can be
    /// said: agents may hold older bundles.
    pub(super) async fn claims(
        &self,
        snapshot: &TrustSnapshot,
        lists: &[(AuthorityId, CrlNumber, [u8; 32])],
    ) -> Vec<Claim> {
        let mut claims = Vec::new();
        for published in snapshot.all() {
            let id = published.certificate.id();
            let Some((_, number, sha256)) = lists.iter().find(|(authority, ..)| *authority == id) else {
                continue;
            };
            if self.lacks(published, *number, *sha256).await {
                claims.push(Claim {
                    authority: id,
                    number: *number,
                    own: published.crl.number(),
                    sha256: *sha256,
                });
            }
        }
        claims
    }

    /// Whether this store has never kept that list. Numbers from before it remembered any say nothing.
    pub(super) async fn lacks(
        &self,
        published: &PublishedAuthority,
        number: CrlNumber,
        sha256: [u8; 32],
    ) -> bool {
        let own = published.crl.number();
        if number > own {
            return true;
        }
        if number == own {
            return published.crl.sha256() != sha256;
        }
        let known = self.store.list_digest(published.certificate.id(), number).await;
        known.is_ok_and(|known| known.is_some_and(|known| known != sha256))
    }
}
