//! What comes before a bundle where a control authority's key is taken to be stolen: its thief can say what a server says, so a bundle
//! proves nothing to agents before a file has told them whom not to believe, and this server shows another certificate.

use std::collections::BTreeSet;
use std::time::Duration;

use signet_certs::authority::{AuthorityId, AuthorityKind};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::authority::{AuthorityView, ViewedAuthority};

/// A file that cannot be written holds nobody up for longer: whoever is connected hears by the bundle.
const LONGEST: Duration = Duration::from_secs(5);

/// What has been done first. Whoever does a part of it says so here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Firsts {
    /// Whom the file of control anchors names as distrusted.
    pub named: BTreeSet<AuthorityId>,
    /// That file could not be written, and is tried again.
    pub unwritten: bool,
    /// The authority of the certificate that agents see; nothing before there is one.
    pub own: Option<AuthorityId>,
}

/// The control authorities that are on their way out in an emergency.
fn on_their_way_out(view: &AuthorityView) -> impl Iterator<Item = AuthorityId> {
    let control = view.kind(AuthorityKind::Control).authorities.iter();
    control
        .filter(|viewed| viewed.state.out_at().is_some())
        .map(ViewedAuthority::id)
}

impl Firsts {
    /// Whether all is done that comes before a bundle of these authorities.
    fn are_done(&self, view: &AuthorityView) -> bool {
        on_their_way_out(view).all(|id| self.named.contains(&id) && self.own != Some(id))
    }
}

/// Holds a bundle up until what comes first is done, or has been waited for long enough.
#[derive(Debug)]
pub(super) struct Gate {
    firsts: watch::Receiver<Firsts>,
    held_since: Option<Instant>,
    /// It has given up waiting.
    is_late: bool,
}

impl Gate {
    pub(super) const fn new(firsts: watch::Receiver<Firsts>) -> Self {
        Self {
            firsts,
            held_since: None,
            is_late: false,
        }
    }

    /// Whether a bundle of these authorities may go out at `now`.
    pub(super) fn opens(&mut self, view: &AuthorityView, now: Instant) -> bool {
        if self.firsts.borrow_and_update().are_done(view) {
            (self.held_since, self.is_late) = (None, false);
            return true;
        }
        let since = *self.held_since.get_or_insert(now);
        if now < since + LONGEST {
            return false;
        }
        if !std::mem::replace(&mut self.is_late, true) {
            tracing::error!(
                "the bundle goes out before the anchors file names who is distrusted, or before this server has another certificate"
            );
        }
        true
    }

    /// When it opens at the latest; nothing where it holds nobody up.
    pub(super) fn at_latest(&self) -> Option<Instant> {
        let since = self.held_since.filter(|_| !self.is_late);
        since.map(|since| since + LONGEST)
    }

    /// Something more was done.
    pub(super) async fn changed(&mut self) {
        if self.firsts.changed().await.is_err() {
            // Nobody is left who would say so.
            std::future::pending::<()>().await;
        }
    }
}
