//! What a revocation would do.

use signet_certs::time::from_unix_millis;

use super::kept::Kept;
use super::revoking::{Entry, Key, key};
use crate::store::room::{Waiting, weight};
use crate::store::{RevokeError, RevokeRequest, Revoked, RevokedSvid};

impl Kept {
    /// See [`Revocations::would_revoke`](crate::store::Revocations::would_revoke).
    pub(super) fn would_revoke(&self, request: &RevokeRequest) -> Result<Revoked, RevokeError> {
        request.check()?;
        let entries = self.entries(request)?;
        let candidates = entries
            .iter()
            .filter_map(|Entry { svid }| self.candidate(request, svid));
        let fresh: Vec<_> = candidates
            .filter(|one| one.not_after > request.earliest)
            .collect();
        let is_new = |entry: &&Entry| !self.revocations.contains_key(&key(&entry.svid));
        let new = entries.iter().filter(is_new).count();
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
            fresh: new,
            denial: denials.find(|denial| denial.satisfies(request)).cloned(),
            revision: self.revision,
        })
    }

    /// How it would wait for room; `None` where a list names it. What waits already keeps its date, and its class where that is better.
    fn candidate(&self, request: &RevokeRequest, svid: &RevokedSvid) -> Option<Waiting<Key>> {
        let stored = self.revocations.get(&key(svid));
        if stored.is_some_and(|entry| entry.entered) {
            return None;
        }
        let not_after = stored.map_or(svid.not_after, |entry| entry.not_after);
        Some(Waiting {
            key: key(svid),
            class: stored.map_or_else(|| request.class(), |entry| entry.class.min(request.class())),
            not_after: not_after.unwrap_or_else(|| from_unix_millis(i64::MAX)),
            weight: stored.map_or_else(|| request.weight(), |entry| weight(entry.invalid_since.is_some())),
        })
    }
}
