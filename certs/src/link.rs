//! Links: how trust in the control plane follows a rotation that a reader slept through.
//!
//! When a successor is prepared, the acting control authority certifies its key. Whoever holds only the older authority walks
//! from it over such links to a newer one, adds that, and verifies its peer as always. A walk and no path building: no leaf is
//! judged by a chain with an intermediate, and each link is one statement of one authority about one key.

use std::time::{Duration, SystemTime};

use crate::authority::{self, AuthorityCertificate, AuthorityId};
use crate::certificate::Certificate;
use crate::id::TrustDomain;
#[cfg(feature = "issue")]
mod create;
#[cfg(feature = "issue")]
pub use create::create_link;

/// How long after its end an authority may still be walked from, and how long the links that it made are valid.
pub const WALK_AFTER_END: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most links that a server sends and a reader walks. Authorities that live for 30 days hand over every 25: from one that ended 90 days
/// ago four lead to the one that signs.
pub const MAX_LINKS: usize = 5;
/// The application protocol that a client offers to be sent links. A server never selects it.
pub const LINKS_PROTOCOL: &[u8] = b"signet-links/1";

/// What `links` lead to from `anchors` at `now`: the authorities at which a walk arrived, in the order walked, each as its link
/// shows it. Nothing leads from an anchor that ended more than [`WALK_AFTER_END`] ago, over a link that is not valid now or of
/// another trust domain, or from, over or to an authority that is `refused`. At most [`MAX_LINKS`] links are looked at, the first
/// ones.
#[must_use]
pub fn walk(
    anchors: &[AuthorityCertificate],
    links: &[AuthorityCertificate],
    trust_domain: &TrustDomain,
    refused: impl Fn(&AuthorityId) -> bool,
    now: SystemTime,
) -> Vec<AuthorityCertificate> {
    let usable = |link: &&AuthorityCertificate| {
        link.is_valid_at(now) && link.trust_domain() == Some(trust_domain) && !refused(&link.id())
    };
    let looked_at = links.iter().take(MAX_LINKS).filter(usable);
    let mut open: Vec<(&AuthorityCertificate, Certificate<'_>)> = looked_at
        .filter_map(|link| Some((link, Certificate::parse(link.der()).ok()?)))
        .collect();
    let starts: Vec<&AuthorityCertificate> = anchors
        .iter()
        .filter(|anchor| !refused(&anchor.id()) && last_walk(anchor).is_none_or(|last| now <= last))
        .collect();
    let mut reached: Vec<AuthorityCertificate> = Vec::new();
    // Each round takes a link away, so loops end.
    loop {
        let known = |id: AuthorityId| reached.iter().any(|authority| authority.id() == id);
        let next = open.iter().position(|(link, parsed)| {
            let mut makers = starts.iter().copied().chain(&reached);
            !known(link.id()) && makers.any(|maker| is_made_by(parsed, maker))
        });
        let Some(next) = next else { return reached };
        reached.push(open.swap_remove(next).0.clone());
    }
}

/// The last moment at which `authority` may be walked from; none where time does not reach that far.
fn last_walk(authority: &AuthorityCertificate) -> Option<SystemTime> {
    authority.not_after().checked_add(WALK_AFTER_END)
}

/// Whether `maker` made this link.
fn is_made_by(link: &Certificate<'_>, maker: &AuthorityCertificate) -> bool {
    link.authority_key_id == Some(maker.key_id()) && authority::is_made_by(link, maker)
}

#[cfg(test)]
mod tests;
