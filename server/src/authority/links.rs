//! Links between control authorities that followed each other, pure: what is kept of them, and which lead to an authority.
//!
//! One is made when a successor is prepared, by the authority that is active then, and by no other. They are public, and outlive the
//! authorities that they join.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::authority::{
    AuthorityCertificate, AuthorityError, AuthorityId, AuthorityKind, X509Authority,
};
use signet_certs::link::{MAX_LINKS, create_link};
use signet_certs::serial::SerialNumber;

/// Most that are kept, the newest: what a reader walks, from each of a few that never came to sign.
const MOST: usize = 16;

/// The statement of one authority about the key of its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Who made it.
    pub by: AuthorityId,
    /// Whose key it certifies.
    pub to: AuthorityId,
    /// Its last second.
    pub not_after: SystemTime,
    /// DER.
    pub certificate: Arc<[u8]>,
}

impl Link {
    /// The acting authority certifies its successor's key.
    ///
    /// # Errors
    /// When it ended too long ago, or its key does not sign.
    pub(super) fn make(
        acting: &X509Authority,
        successor: &AuthorityCertificate,
        serial: SerialNumber,
        not_before: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let made = create_link(acting, successor, serial, not_before)?;
        Ok(Self {
            by: acting.certificate().id(),
            to: made.id(),
            not_after: made.not_after(),
            certificate: made.der().into(),
        })
    }

    /// Its certificate, if that is the one described.
    pub(super) fn certificate(&self) -> Option<AuthorityCertificate> {
        let certificate = AuthorityCertificate::from_der(&self.certificate).ok()?;
        (certificate.id() == self.to && certificate.not_after() == self.not_after).then_some(certificate)
    }
}

/// The links that are kept, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links(Vec<Link>);

/// Whether authorities of this kind certify their successors: those by which agents that slept through a rotation find the server.
/// Workloads are told of theirs by whoever serves them.
pub(super) fn has_links(kind: AuthorityKind) -> bool {
    match kind {
        AuthorityKind::X509 => false,
        AuthorityKind::Control => true,
    }
}

impl Links {
    /// Those that were kept.
    pub(super) fn of(kept: Vec<Link>) -> Self {
        Self(kept)
    }

    /// With one more.
    pub(super) fn add(&mut self, link: Link) {
        self.0.push(link);
        let excess = self.0.len().saturating_sub(MOST);
        self.0.drain(..excess);
    }

    /// Without those that have ended, by a time that is settled.
    pub(super) fn let_go(&mut self, settled: SystemTime) {
        self.0.retain(|link| link.not_after >= settled);
    }

    /// Without those that this authority made, and those that lead to it.
    pub(super) fn remove(&mut self, authority: AuthorityId) {
        self.0.retain(|link| link.by != authority && link.to != authority);
    }

    /// When the next one has ended.
    pub(super) fn next_end(&self) -> Option<SystemTime> {
        let last = self.0.iter().map(|link| link.not_after).min()?;
        last.checked_add(Duration::from_secs(1))
    }

    /// Who certified this authority's key.
    pub(super) fn maker_of(&self, authority: AuthorityId) -> Option<AuthorityId> {
        self.0
            .iter()
            .find(|link| link.to == authority)
            .map(|link| link.by)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    /// Those that lead to `authority` at `now`, the last one of the way first; as many as a reader walks. What leads elsewhere, to
    /// an authority that never came to sign, takes nobody's place.
    pub(super) fn leading_to(&self, authority: AuthorityId, now: SystemTime) -> Vec<&Link> {
        let mut way: Vec<&Link> = Vec::new();
        let mut target = authority;
        while way.len() < MAX_LINKS {
            let valid = self
                .0
                .iter()
                .filter(|link| link.to == target && link.not_after >= now);
            let Some(link) = valid.max_by_key(|link| link.not_after) else {
                break;
            };
            way.push(link);
            target = link.by;
        }
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> AuthorityId {
        AuthorityId::from_bytes([number; 20])
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn link(by: u8, to: u8, end: u64) -> Link {
        Link {
            by: id(by),
            to: id(to),
            not_after: at(end),
            certificate: Arc::from([by, to]),
        }
    }

    fn links(all: impl IntoIterator<Item = Link>) -> Links {
        let mut links = Links::default();
        all.into_iter().for_each(|link| links.add(link));
        links
    }

    fn way(links: &Links, to: u8, now: u64) -> Vec<(AuthorityId, AuthorityId)> {
        let way = links.leading_to(id(to), at(now));
        way.iter().map(|link| (link.by, link.to)).collect()
    }

    #[test]
    fn the_last_five_links_that_lead_to_an_authority_are_sent() {
        let all = links((1..10).map(|number| link(number, number + 1, 100)));
        let last_five = [(9, 10), (8, 9), (7, 8), (6, 7), (5, 6)].map(|(by, to)| (id(by), id(to)));
        assert_eq!(way(&all, 10, 0), last_five);
        assert_eq!(way(&all, 2, 0), [(id(1), id(2))]);
        assert_eq!(way(&all, 1, 0), []);
    }

    /// One prepared ahead of time never came to sign, and one before it was replaced by the same authority.
    #[test]
    fn what_leads_elsewhere_takes_no_place() {
        let all = links([link(1, 2, 100), link(2, 7, 900), link(2, 8, 900), link(2, 3, 100)]);
        assert_eq!(way(&all, 3, 100), [(id(2), id(3)), (id(1), id(2))]);
    }

    #[test]
    fn a_link_that_has_ended_leads_nowhere_and_goes_by_settled_time() {
        let mut all = links([link(1, 2, 50), link(2, 3, 100)]);
        assert_eq!(way(&all, 3, 51), [(id(2), id(3))]);
        assert_eq!(all.next_end(), Some(at(51)));
        all.let_go(at(50));
        assert_eq!(all.iter().count(), 2);
        all.let_go(at(51));
        assert_eq!(all, links([link(2, 3, 100)]));
    }

    #[test]
    fn a_circle_of_links_ends() {
        assert_eq!(way(&links([link(1, 2, 9), link(2, 1, 9)]), 1, 0).len(), MAX_LINKS);
    }

    #[test]
    fn no_number_of_rotations_fills_the_store() {
        let all = links((0..200).map(|number| link(number, number + 1, 100)));
        assert_eq!(all.iter().count(), MOST);
        assert_eq!(way(&all, 200, 0).len(), MAX_LINKS);
    }
}
