//! Numbers of the lists of authorities that are held no more: should one come back, its list may not be an older one. Pure.

use signet_certs::authority::AuthorityId;
use signet_certs::crl::{Crl, CrlError, CrlNumber};

use super::HeldAuthority;

/// Most that are remembered; the oldest give way. Authorities come and go by the month.
const MOST: usize = 256;

/// In order of leaving, by the numbers of one epoch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct LeftLists(Vec<(AuthorityId, CrlNumber)>);

impl LeftLists {
    /// Those that were kept.
    pub(super) fn of(kept: Vec<(AuthorityId, CrlNumber)>) -> Self {
        Self(kept)
    }

    /// After `held` was replaced by `now`.
    pub(super) fn after<'a>(
        &self,
        held: impl Iterator<Item = &'a HeldAuthority>,
        now: impl Iterator<Item = &'a HeldAuthority> + Clone,
    ) -> Self {
        // One that is back without a list may still not bring an older one.
        let is_held = |id: &AuthorityId| {
            let mut with_lists = now.clone().filter(|authority| authority.crl.is_some());
            with_lists.any(|authority| authority.certificate.id() == *id)
        };
        let newly = held.filter_map(|held| Some((held.certificate.id(), held.crl.as_ref()?.number())));
        let newly: Vec<_> = newly.collect();
        // One that was back without a list, and got one by an update whose bundle was not believed, is known with an older number.
        let is_newly = |id: &AuthorityId| newly.iter().any(|(newly, _)| newly == id);
        let known = self.0.iter().copied().filter(|(id, _)| !is_newly(id));
        let all = known.chain(newly.iter().copied());
        let mut left: Vec<_> = all.filter(|(id, _)| !is_held(id)).collect();
        let excess = left.len().saturating_sub(MOST);
        left.drain(..excess);
        Self(left)
    }

    /// Refuses a list that is older than the one that was held when its authority left.
    ///
    /// # Errors
    /// [`CrlError::Rollback`].
    pub(super) fn check(&self, offered: &Crl) -> Result<(), CrlError> {
        let left = self.0.iter().find(|(id, _)| *id == offered.authority_id());
        match left {
            Some((_, held)) if offered.number() < *held => Err(CrlError::Rollback {
                held: *held,
                offered: offered.number(),
            }),
            _ => Ok(()),
        }
    }

    /// In order of leaving.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(AuthorityId, CrlNumber)> {
        self.0.iter()
    }
}
