//! A moment outside the dates of a certificate, a list or a token, in words from which whoever reads them sees which clock to look
//! at.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::time::rfc3339;

#[cfg(test)]
mod tests;

/// Whose clock told a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhoseClock {
    /// The one that counts where it is said.
    #[default]
    Here,
    /// The machine's.
    Machine,
    /// The server's.
    Server,
}

impl fmt::Display for WhoseClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "the clock that counts here",
            Self::Machine => "this machine's clock",
            Self::Server => "the server's clock",
        })
    }
}

/// Something with a first and a last moment was to be used before the one or after the other. Shown, it goes on after what it is
/// about: "the certificate has expired: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct OutsideDates {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
    /// When it was to be used.
    pub now: SystemTime,
    /// Who says that it was then.
    pub clock: WhoseClock,
}

impl OutsideDates {
    /// Both bounds count as inside, as in X.509 (RFC 5280 §4.1.2.5).
    ///
    /// # Errors
    /// `now` is outside, by the clock that counts here.
    pub fn check(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Result<(), Self> {
        if not_before <= now && now <= not_after {
            return Ok(());
        }
        Err(Self {
            not_before,
            not_after,
            now,
            clock: WhoseClock::Here,
        })
    }

    /// The same, by another's clock.
    #[must_use]
    pub fn by(self, clock: WhoseClock) -> Self {
        Self { clock, ..self }
    }

    /// It is over; else it has not begun.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.now >= self.not_before
    }

    /// How far outside: by so much a clock is wrong at least, if it is a clock that is wrong.
    #[must_use]
    pub fn distance(&self) -> Duration {
        let distance = if self.has_ended() {
            self.now.duration_since(self.not_after)
        } else {
            self.not_before.duration_since(self.now)
        };
        distance.unwrap_or_default()
    }
}

impl fmt::Display for OutsideDates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, way) = if self.has_ended() {
            ("has expired", "later")
        } else {
            ("is not valid yet", "earlier")
        };
        write!(
            f,
            "{what}: its dates are {} to {}, and by {} it is {}, {} s {way}",
            rfc3339(self.not_before),
            rfc3339(self.not_after),
            self.clock,
            rfc3339(self.now),
            self.distance().as_secs(),
        )
    }
}
