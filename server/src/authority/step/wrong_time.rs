//! What was made for another time than the one that is.

use std::time::SystemTime;

use super::last_leaf_bound;
use crate::authority::state::{AuthorityRecord, AuthoritySet, AuthorityState};

impl AuthoritySet {
    /// A prepared authority whose own life is over can no longer take over.
    pub(super) fn retire_unused(&mut self, now: SystemTime) {
        for record in &mut self.authorities {
            if matches!(record.state, AuthorityState::Prepared { .. }) && record.is_over(now) {
                record.state = AuthorityState::Old {
                    leaves_until: now,
                    drained_at: None,
                };
            }
        }
    }

    /// What was made while the clock was ahead cannot sign yet. An older authority that still can takes its place again, and
    /// the early one ends like any other that was replaced.
    pub(super) fn reinstate(&mut self, now: SystemTime) {
        for record in &mut self.authorities {
            if matches!(record.state, AuthorityState::Prepared { .. }) && record.is_early(now) {
                record.state = AuthorityState::Old {
                    leaves_until: now,
                    drained_at: None,
                };
            }
        }
        let early = |record: &AuthorityRecord| record.state == AuthorityState::Active && record.is_early(now);
        let usable = |record: &&mut AuthorityRecord| {
            let drained = match record.state {
                AuthorityState::Old { drained_at, .. } => drained_at.is_some_and(|at| at <= now),
                _ => true,
            };
            !drained && !record.is_useless(now)
        };
        if !self.authorities.iter().any(early) {
            return;
        }
        let Some(id) = self
            .authorities
            .iter_mut()
            .filter(usable)
            .max_by_key(|record| record.authority.not_after)
            .map(|record| record.id())
        else {
            return;
        };
        for record in &mut self.authorities {
            if record.state == AuthorityState::Active {
                record.state = AuthorityState::Old {
                    leaves_until: last_leaf_bound(record, now),
                    drained_at: None,
                };
            } else if record.id() == id {
                // Whatever was found out about its leaves was found out by the wrong time.
                record.state = AuthorityState::Active;
            }
        }
    }
}
