//! What a revocation would do.

use signet_certs::time::from_unix_millis;

use super::kept::Kept;
use super::revoking::{Entry, Key, key};
use crate::store::room::Waiting;
use crate::store::{RevokeError, RevokeRequest, Revoked, RevokedSvid};

impl Kept {
    /// See [`Revocations::would_revoke`](crate::store::Revocations::would_revoke).
    pub(super) fn would_revoke(&self, request: &RevokeRequest) -> Result<Revoked, RevokeError> {
        request.check()?;
        let entries = self.entries(request)?;
        let is_entered = |svid: &RevokedSvid| {
            let entry = self.revocations.get(&key(svid));
            entry.is_some_and(|entry| entry.entered)
        };
        let fresh = entries.iter().filter(|entry| !is_entered(&entry.svid));
        let fresh: Vec<_> = fresh
            .map(|Entry { svid }| Waiting {
                key: key(svid),
                class: request.class(),
                not_after: svid.not_after.unwrap_or_else(|| from_unix_millis(i64::MAX)),
                weight: request.weight(),
            })
            .collect();
        let left = request.rooms.iter().flat_map(|room| {
            let inside = |key: &Key| room.authorities.contains(&key.0);
            let mut waiting = self.waiting(request.earliest, inside);
            waiting.retain(|one| fresh.iter().all(|fresh| fresh.key != one.key));
            waiting.extend(fresh.iter().filter(|one| inside(&one.key)).cloned());
            self.used(room).admit(waiting).1
        });
        let left: Vec<Key> = left.map(|one| one.key).collect();
        let svids = entries.into_iter().map(|Entry { svid }| RevokedSvid {
            waits: left.contains(&key(&svid)),
            ..svid
        });
        let mut svids: Vec<_> = svids.collect();
        svids.sort_by_key(|svid| svid.serial);
        let target = request.denies();
        let mut denials = self
            .denials
            .values()
            .filter(|denial| Some(&denial.target) == target.as_ref());
        Ok(Revoked {
            svids,
            denial: denials.find(|denial| denial.satisfies(request)).cloned(),
            revision: self.revision,
        })
    }
}
