//! A moment outside an authority's life, or outside that of its list.

use std::time::SystemTime;

use super::{AuthorityCertificate, AuthorityId};
use crate::dates::{OutsideDates, WhoseClock};

/// An authority was to be used outside its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authority {authority} {dates}: {}", if dates.has_ended() { "rotate it, or set the clock" } else { "set the clock, or wait" })]
pub struct OutsideLife {
    /// Which.
    pub authority: AuthorityId,
    /// Its life, and the moment.
    pub dates: OutsideDates,
}

impl OutsideLife {
    /// The same, by another's clock.
    #[must_use]
    pub fn by(self, clock: WhoseClock) -> Self {
        Self {
            dates: self.dates.by(clock),
            ..self
        }
    }
}

impl AuthorityCertificate {
    /// Whether `now` is within its life.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.check_valid_at(now).is_ok()
    }

    /// As [`is_valid_at`](Self::is_valid_at), with the reason.
    ///
    /// # Errors
    /// [`OutsideLife`].
    pub fn check_valid_at(&self, now: SystemTime) -> Result<(), OutsideLife> {
        OutsideDates::check(self.not_before(), self.not_after(), now).map_err(|dates| OutsideLife {
            authority: self.id(),
            dates,
        })
    }

    /// Says that it has ended by `now`.
    pub(crate) fn expired(&self, now: SystemTime) -> OutsideLife {
        OutsideLife {
            authority: self.id(),
            dates: OutsideDates {
                not_before: self.not_before(),
                not_after: self.not_after(),
                now,
                clock: WhoseClock::Here,
            },
        }
    }
}
