//! The progress of a rotation, for the admin who asked. The rotation itself does not depend on anyone listening.

use std::time::SystemTime;

use signet_certs::authority::{AuthorityId, AuthorityKind};
use tokio::sync::mpsc;

use super::spread::SpreadStatus;
use super::state::AuthoritySet;

/// Steps kept for a reader that is slow. Counts are skipped when fewer than two places are left, so that the last step
/// always finds one.
pub(super) const PROGRESS_CAPACITY: usize = 32;

/// One step of a rotation. A stream that ends before `Activated` means that the server is stopping (the rotation goes
/// on after its restart), or that the new authority was taken away again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RotationProgress {
    /// The successor is journalled and on its way into the bundle.
    Prepared {
        /// The successor.
        authority: AuthorityId,
        /// The one that signs until it takes over.
        previous: Option<AuthorityId>,
    },
    /// The bundle spreads.
    Spreading {
        /// The successor.
        authority: AuthorityId,
        /// Live agents.
        live: usize,
        /// Live agents that reported the bundle with the successor.
        confirmed: usize,
        /// The successor does not take over before this, unless forced.
        not_before: SystemTime,
        /// From then on silence no longer delays it.
        at_latest: SystemTime,
    },
    /// The successor signs. Nothing follows.
    Activated {
        /// The successor.
        authority: AuthorityId,
        /// The one that signed before; it is Old now.
        previous: Option<AuthorityId>,
    },
}

/// An admin who waits for a rotation to end.
pub(super) struct Watcher {
    pub(super) kind: AuthorityKind,
    target: AuthorityId,
    previous: Option<AuthorityId>,
    last: Option<SpreadStatus>,
    progress: mpsc::Sender<RotationProgress>,
}

impl Watcher {
    /// Watches the prepared authority of `set`; `None` when there is none.
    pub(super) fn new(
        kind: AuthorityKind,
        set: &AuthoritySet,
        progress: mpsc::Sender<RotationProgress>,
    ) -> Option<Self> {
        let target = set.prepared()?.id();
        let previous = set.active().map(super::state::AuthorityRecord::id);
        // The channel is fresh; a reader that is already gone is noticed by `update`.
        let _ = progress.try_send(RotationProgress::Prepared {
            authority: target,
            previous,
        });
        Some(Self {
            kind,
            target,
            previous,
            last: None,
            progress,
        })
    }

    /// Tells what is new. False: over, or nobody listens.
    pub(super) fn update(&mut self, set: &AuthoritySet, status: Option<SpreadStatus>) -> bool {
        let authority = self.target;
        if set.active().is_some_and(|active| active.id() == authority) {
            let _ = self.progress.try_send(RotationProgress::Activated {
                authority,
                previous: self.previous,
            });
            return false;
        }
        if set.prepared().is_none_or(|prepared| prepared.id() != authority) {
            return false;
        }
        if let Some(status) = status.filter(|status| self.last != Some(*status)) {
            self.last = Some(status);
            if self.progress.capacity() >= 2 {
                let _ = self.progress.try_send(spreading(authority, &status));
            }
        }
        !self.progress.is_closed()
    }
}

fn spreading(authority: AuthorityId, status: &SpreadStatus) -> RotationProgress {
    RotationProgress::Spreading {
        authority,
        live: status.live,
        confirmed: status.confirmed,
        not_before: status.not_before,
        at_latest: status.at_latest,
    }
}
