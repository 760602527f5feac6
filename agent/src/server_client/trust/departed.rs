//! Authorities that left because they were not to be trusted any more. Pure.

use std::time::{Duration, SystemTime};

use signet_certs::authority::AuthorityId;

/// How long they are remembered: longer than any backup that somebody restores, and than any authority lives.
const REMEMBERED: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most that are remembered; the oldest give way.
const MOST: usize = 1024;

/// In order of leaving.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Departed(Vec<(AuthorityId, SystemTime)>);

impl Departed {
    /// Those that were kept, with when each was heard of.
    pub(super) fn of(kept: Vec<(AuthorityId, SystemTime)>) -> Self {
        Self(kept)
    }

    /// With those that the server names now; without those that are remembered for long enough.
    pub(super) fn with(&self, named: &[AuthorityId], now: SystemTime) -> Self {
        let mut all = self.0.clone();
        for id in named {
            if !all.iter().any(|(known, _)| known == id) {
                all.push((*id, now));
            }
        }
        all.retain(|(_, since)| now.duration_since(*since).unwrap_or_default() < REMEMBERED);
        let excess = all.len().saturating_sub(MOST);
        all.drain(..excess);
        Self(all)
    }

    /// It may not come back.
    pub(in crate::server_client) fn contains(&self, id: &AuthorityId) -> bool {
        self.0.iter().any(|(known, _)| known == id)
    }

    /// With when each was heard of.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(AuthorityId, SystemTime)> {
        self.0.iter()
    }
}
