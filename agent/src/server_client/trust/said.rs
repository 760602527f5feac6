//! By whom something was said, and what the anchors file says of that. Pure.

use std::collections::BTreeSet;

use signet_certs::authority::AuthorityId;

/// Authorities that are remembered of one word, the nearest first: years of rotations.
const MOST: usize = 64;

/// Over whose connection something was said: the control authority of the server's certificate, then the one over whose connection that
/// authority became known, and so on. Empty where that is not known, and where the anchors file itself vouches.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Said(Vec<AuthorityId>);

impl Said {
    /// By a server of this authority, which became known as `known` says.
    pub(in crate::server_client) fn by(server: AuthorityId, known: Option<&Self>) -> Self {
        let mut all = vec![server];
        let before = known.into_iter().flat_map(|known| &known.0);
        all.extend(before.filter(|id| **id != server).take(MOST - 1));
        Self(all)
    }

    /// As it was kept.
    pub(in crate::server_client) fn of(kept: Vec<AuthorityId>) -> Self {
        Self(kept)
    }

    /// Nothing is known of who said it.
    pub(in crate::server_client) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The nearest first.
    pub(in crate::server_client) fn iter(&self) -> impl Iterator<Item = &AuthorityId> {
        self.0.iter()
    }
}

/// What the anchors file says, as it was last read. It is above every server's word.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct FileWord {
    /// Whom it distrusts.
    pub distrusted: BTreeSet<AuthorityId>,
    /// Whose certificates it holds.
    pub listed: BTreeSet<AuthorityId>,
}

impl FileWord {
    /// Not to be trusted, whoever names it.
    pub(in crate::server_client) fn distrusts(&self, id: &AuthorityId) -> bool {
        self.distrusted.contains(id)
    }

    /// No server's word removes it. A file that distrusts somebody was written for an emergency and says who is left; one that distrusts
    /// nobody may only be old.
    pub(in crate::server_client) fn stands_by(&self, id: &AuthorityId) -> bool {
        !self.distrusted.is_empty() && self.listed.contains(id)
    }

    /// What was said so counts for nothing: whoever has the key of a distrusted authority may have said it, or have named who did.
    pub(in crate::server_client) fn voids(&self, said: &Said) -> bool {
        let mut judged = said.iter().map(|id| (self.distrusts(id), self.stands_by(id)));
        judged
            .find(|(distrusted, stands)| *distrusted || *stands)
            .is_some_and(|(distrusted, _)| distrusted)
    }
}
