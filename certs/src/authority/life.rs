//! A moment outside an authority's life, in words that name both times: whoever reads them sees which clock to look at.

use std::time::SystemTime;

use super::{AuthorityCertificate, AuthorityId};
use crate::time::rfc3339;

/// An authority was to be used outside its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutsideLife {
    /// It has ended.
    #[error(
        "authority {authority} expired at {}, and by this clock it is {}: rotate it, or set the clock",
        rfc3339(*.not_after), rfc3339(*.now)
    )]
    Expired {
        /// Which.
        authority: AuthorityId,
        /// Its last second.
        not_after: SystemTime,
        /// The moment it was to be used.
        now: SystemTime,
    },
    /// It has not begun.
    #[error(
        "authority {authority} begins at {}, and by this clock it is {}: set the clock, or wait",
        rfc3339(*.not_before), rfc3339(*.now)
    )]
    NotYetValid {
        /// Which.
        authority: AuthorityId,
        /// Its first second.
        not_before: SystemTime,
        /// The moment it was to be used.
        now: SystemTime,
    },
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
        if now < self.not_before() {
            return Err(OutsideLife::NotYetValid {
                authority: self.id(),
                not_before: self.not_before(),
                now,
            });
        }
        if now > self.not_after() {
            return Err(self.expired(now));
        }
        Ok(())
    }

    /// Says that it has ended by `now`.
    pub(crate) fn expired(&self, now: SystemTime) -> OutsideLife {
        OutsideLife::Expired {
            authority: self.id(),
            not_after: self.not_after(),
            now,
        }
    }
}
