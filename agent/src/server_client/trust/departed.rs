//! Authorities that left because they were not to be trusted any more. Pure.

use std::time::{Duration, SystemTime};

use signet_certs::authority::AuthorityId;

use super::{FileWord, Said};

/// How long they are remembered: longer than any backup that somebody restores, and than any authority lives.
const REMEMBERED: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most that are remembered; the oldest give way.
const MOST: usize = 1024;

/// Most words that are remembered of one; further ones say the same.
const WORDS: usize = 4;

/// In order of leaving.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Departed(Vec<Gone>);

/// One that left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::server_client) struct Gone {
    pub(in crate::server_client) id: AuthorityId,
    /// When it was heard of.
    pub(super) since: SystemTime,
    /// By whom; none where that is not known.
    pub(super) said: Vec<Said>,
}

impl Gone {
    /// Somebody said it who is not distrusted since.
    fn counts(&self, file: &FileWord) -> bool {
        self.said.is_empty() || self.said.iter().any(|said| !file.voids(said))
    }

    fn hear(&mut self, said: &Said) {
        if !self.said.contains(said) && self.said.len() < WORDS {
            self.said.push(said.clone());
        }
    }
}

impl Departed {
    /// Those that were kept, with when each was heard of.
    pub(super) fn of(kept: Vec<Gone>) -> Self {
        Self(kept)
    }

    /// With those that a server names now; without those that are remembered for long enough, and without what those said whom the
    /// file distrusts.
    pub(in crate::server_client) fn with(
        &self,
        named: &[AuthorityId],
        said: &Said,
        file: &FileWord,
        now: SystemTime,
    ) -> Self {
        let mut all = self.0.clone();
        all.retain(|gone| {
            gone.counts(file) && now.duration_since(gone.since).unwrap_or_default() < REMEMBERED
        });
        for gone in &mut all {
            gone.said.retain(|said| !file.voids(said));
        }
        for id in named {
            match all.iter_mut().find(|gone| gone.id == *id) {
                // One without words counts whoever is distrusted, and goes on so.
                Some(known) if known.said.is_empty() => {}
                Some(known) => known.hear(said),
                None => all.push(Gone {
                    id: *id,
                    since: now,
                    said: Some(said.clone())
                        .filter(|said| !said.is_empty())
                        .into_iter()
                        .collect(),
                }),
            }
        }
        let excess = all.len().saturating_sub(MOST);
        all.drain(..excess);
        Self(all)
    }

    /// It may not come back.
    pub(in crate::server_client) fn contains(&self, id: &AuthorityId, file: &FileWord) -> bool {
        let known = self.0.iter().find(|gone| gone.id == *id);
        known.is_some_and(|gone| gone.counts(file)) && !file.stands_by(id)
    }

    /// With when each was heard of.
    pub(in crate::server_client) fn iter(&self) -> impl Iterator<Item = &Gone> {
        self.0.iter()
    }
}
