//! What is answered to whoever asks for the time.

use std::time::{Duration, SystemTime};

/// The answer to one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    /// The time to sign, record and publish by. Without trust it is the best guess, and good for showing only.
    pub(crate) now: SystemTime,
    /// The earliest time it may be: by this, protection ends.
    pub(crate) earliest: SystemTime,
    /// The latest time it may be: by this, access ends.
    pub(crate) latest: SystemTime,
    /// How sure that is.
    pub(crate) state: State,
    /// By which keys, rows, list entries and denials that have ended may go, if anything may.
    pub(super) removing: Option<SystemTime>,
}

impl Time {
    /// The time to sign by; the reason why there is none.
    pub(crate) fn adding(&self) -> Result<SystemTime, State> {
        if self.state.is_trusted() {
            Ok(self.now)
        } else {
            Err(self.state)
        }
    }

    /// The time, where it is confirmed.
    pub(crate) fn confirmed(&self) -> Option<SystemTime> {
        (self.state == State::Confirmed).then_some(self.now)
    }

    /// Whether what ended at `not_after` has been over for longer than `grace`, by the latest time it may be. What has not ended
    /// by the time in use is not over: two clocks that were wrong together at a start can put the latest time years ahead for
    /// a day, and what is signed once they are right must count.
    pub(crate) fn is_over_for(&self, not_after: SystemTime, grace: Duration) -> bool {
        not_after < self.now && not_after.checked_add(grace).is_none_or(|end| end < self.latest)
    }

    /// The time to remove by, if anything may be removed.
    pub(crate) const fn removing(&self) -> Option<SystemTime> {
        self.removing
    }
}

/// How the clocks stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Just started: no API server has told its time yet.
    WaitingForSecondClock,
    /// Just started, behind the time the store has seen; a second clock or an admin has to agree.
    BehindMark,
    /// Just started, and the API servers tell another time.
    SecondClockDiffers,
    /// The wall clock is used; nothing but itself speaks for it yet.
    Unconfirmed,
    /// The wall clock is used, and its anchor is confirmed.
    Confirmed,
    /// The wall clock has jumped: the anchor, carried on by elapsed time, is used.
    Steady,
}

impl State {
    /// Whether certificates may be signed.
    pub(crate) const fn is_trusted(self) -> bool {
        matches!(self, Self::Unconfirmed | Self::Confirmed | Self::Steady)
    }

    /// Name in metrics, JSON and audit lines.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForSecondClock => "waiting_for_second_clock",
            Self::BehindMark => "behind_mark",
            Self::SecondClockDiffers => "second_clock_differs",
            Self::Unconfirmed => "unconfirmed",
            Self::Confirmed => "confirmed",
            Self::Steady => "steady",
        }
    }
}
