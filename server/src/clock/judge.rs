//! Which time it is, judged from three witnesses: the wall clock, elapsed time, and the `Date` of API servers (design §10).
//! Pure: the readings are arguments.
//!
//! *Adding is quick, removing waits.* Whatever signs uses [`Time::now`], which no single wrong clock can move: it is the
//! wall clock while that agrees with the anchor carried on by elapsed time, and the carried anchor while it does not. Whatever
//! destroys or lets go asks [`Time::removing`], which needs a confirmed anchor and a long time without a jump. In between,
//! what ends access is judged by [`Time::latest`] and what ends protection by [`Time::earliest`].
//!
//! | the wall clock | and the `Date` | then |
//! |---|---|---|
//! | agrees with the anchor | whatever | the wall clock is used; a `Date` that differs is an alarm |
//! | has parted from it | agrees with the wall clock for [`ADOPT_AFTER`] | the wall clock becomes the anchor for adding, unconfirmed |
//! | has parted from it | anything else | the anchor, carried on, is used |

use std::time::{Duration, SystemTime};

use super::time::{State, Time};

/// How far clocks may be apart and still agree, before drift.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Drift of elapsed time that is no disagreement, in parts per million, counted from the anchor.
const DRIFT_PPM: u32 = 500;
/// How long the wall clock and a `Date` must agree without a break before they overrule the anchor.
pub(crate) const ADOPT_AFTER: Duration = Duration::from_secs(60);
/// How far the time an admin confirms may be from this machine's.
pub(crate) const CONFIRM_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait after a jump before anything is removed.
pub(crate) const REMOVAL_DELAY: Duration = Duration::from_secs(24 * 3600);

/// One look at the machine's two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What the machine says the time is.
    pub(crate) wall: SystemTime,
    /// Time that has passed since some fixed moment of this process's machine, suspends included; nobody can set it.
    pub(crate) elapsed: Duration,
}

/// What was known before this process began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Past {
    /// The latest confirmed time that the store has seen: a lower bound; `None` in an empty store.
    pub(crate) mark: Option<SystemTime>,
    /// A jump was seen whose removal delay had not passed when the last process ended.
    pub(crate) jumped: bool,
    /// Whether an API server is configured whose `Date` can be waited for.
    pub(crate) second_clock: bool,
    /// How long after a jump nothing is removed, and how long an unconfirmed anchor must stand to be confirmed.
    pub(crate) removal_delay: Duration,
}

/// Something that must be audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockEvent {
    /// The wall clock parted from the anchor.
    Jumped {
        /// What it says.
        wall: SystemTime,
        /// What the anchor says.
        steady: SystemTime,
    },
    /// The wall clock agrees with the anchor again.
    Healed,
    /// Wall clock and API servers overruled the anchor: time for adding, unconfirmed.
    Adopted {
        /// The new time.
        wall: SystemTime,
        /// What the anchor before it said.
        steady: SystemTime,
    },
}

/// Why an admin's word is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotThisMachinesTime {
    /// What this machine says.
    pub(crate) wall: SystemTime,
}

/// A moment of the wall clock, tied to elapsed time.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    wall: SystemTime,
    elapsed: Duration,
}

impl Anchor {
    const fn of(reading: Reading) -> Self {
        Self {
            wall: reading.wall,
            elapsed: reading.elapsed,
        }
    }

    fn at(&self, elapsed: Duration) -> SystemTime {
        add(self.wall, elapsed.saturating_sub(self.elapsed))
    }

    /// Counted from the anchor and never from the last reading: a staircase of small steps leaves it like a large one.
    fn agrees(&self, reading: Reading) -> bool {
        let since = reading.elapsed.saturating_sub(self.elapsed);
        apart(self.at(reading.elapsed), reading.wall) <= TOLERANCE + since / (1_000_000 / DRIFT_PPM)
    }
}

/// Owner of the anchors. One for each process.
#[derive(Debug)]
pub(crate) struct Judge {
    past: Past,
    /// What removing rests on.
    confirmed: Option<Anchor>,
    /// What adding rests on while the confirmed anchor is overruled or there is none.
    provisional: Option<Anchor>,
    /// Since when wall clock and `Date` agree against the anchor.
    overruling_since: Option<Duration>,
    last_jump: Option<Duration>,
    /// The mark, carried on since a start that was ahead of it: the two clocks may have been wrong together, in which case
    /// only so much time has passed.
    floor: Option<Anchor>,
    parted: bool,
}

impl Judge {
    /// A judge that knows only the past.
    pub(crate) const fn new(past: Past) -> Self {
        Self {
            past,
            confirmed: None,
            provisional: None,
            overruling_since: None,
            last_jump: None,
            floor: None,
            parted: false,
        }
    }

    /// One look. `date` is what the API servers say the time is at this moment, if they were heard lately. What is returned
    /// beside the time has happened with this look.
    pub(crate) fn look(&mut self, reading: Reading, date: Option<SystemTime>) -> (Time, Option<ClockEvent>) {
        if self.confirmed.is_none()
            && self.provisional.is_none()
            && let Err(state) = self.start(reading, date)
        {
            return (self.untrusted(reading, state), None);
        }
        let event = self.follow(reading, date);
        self.confirm_by_standing(reading);
        (self.time(reading), event)
    }

    /// Whether an admin says what this machine does.
    ///
    /// # Errors
    /// The two differ by more than [`CONFIRM_WITHIN`].
    pub(crate) fn check_said(&self, said: SystemTime, reading: Reading) -> Result<(), NotThisMachinesTime> {
        if apart(said, reading.wall) > CONFIRM_WITHIN {
            return Err(NotThisMachinesTime { wall: reading.wall });
        }
        Ok(())
    }

    /// An admin says what time it is. It ends this one disagreement and shortens no delay. True when time went back.
    ///
    /// # Errors
    /// This machine's clock says something else: it has to be set first.
    pub(crate) fn confirm(
        &mut self,
        said: SystemTime,
        reading: Reading,
    ) -> Result<bool, NotThisMachinesTime> {
        self.check_said(said, reading)?;
        let before = [self.confirmed, self.provisional]
            .into_iter()
            .flatten()
            .map(|anchor| anchor.at(reading.elapsed))
            .chain(self.past.mark)
            .max();
        let back = before.is_some_and(|before| !self.agrees_with_any(reading) && reading.wall < before);
        if self.parted || self.confirmed.is_none() {
            self.last_jump = Some(reading.elapsed);
        }
        self.confirmed = Some(Anchor::of(reading));
        (self.provisional, self.overruling_since, self.parted) = (None, None, false);
        self.floor = None;
        Ok(back)
    }

    /// Whether a jump's delay is still running; to be kept for the next process.
    pub(crate) fn is_waiting_after_jump(&self, reading: Reading) -> bool {
        self.parted || !self.jump_is_past(reading)
    }

    fn start(&mut self, reading: Reading, date: Option<SystemTime>) -> Result<(), State> {
        let behind = self
            .past
            .mark
            .is_some_and(|mark| add(reading.wall, TOLERANCE) < mark);
        match date {
            Some(date) if apart(date, reading.wall) <= TOLERANCE => {
                self.confirmed = Some(Anchor::of(reading));
            }
            Some(_) => return Err(State::SecondClockDiffers),
            None if behind => return Err(State::BehindMark),
            None if self.past.second_clock => return Err(State::WaitingForSecondClock),
            None => self.provisional = Some(Anchor::of(reading)),
        }
        // Hours in which this process did not run are no jump; more than the delay may be one.
        let far = self
            .past
            .mark
            .is_some_and(|mark| apart(mark, reading.wall) > self.past.removal_delay);
        if self.past.jumped || behind || far {
            self.last_jump = Some(reading.elapsed);
        }
        let ahead = self.past.mark.filter(|mark| add(*mark, TOLERANCE) < reading.wall);
        self.floor = ahead.map(|wall| Anchor {
            wall,
            ..Anchor::of(reading)
        });
        Ok(())
    }

    /// Compares the wall clock with the anchors.
    fn follow(&mut self, reading: Reading, date: Option<SystemTime>) -> Option<ClockEvent> {
        if self.confirmed.is_some_and(|anchor| anchor.agrees(reading)) {
            self.provisional = None;
            return self.heal();
        }
        if self.provisional.is_some_and(|anchor| anchor.agrees(reading)) {
            return self.heal();
        }
        self.last_jump = Some(reading.elapsed);
        let steady = self.steady(reading);
        if date.is_none_or(|date| apart(date, reading.wall) > TOLERANCE) {
            self.overruling_since = None;
            return self.part(reading, steady);
        }
        let since = *self.overruling_since.get_or_insert(reading.elapsed);
        if reading.elapsed.saturating_sub(since) < ADOPT_AFTER {
            return self.part(reading, steady);
        }
        self.provisional = Some(Anchor::of(reading));
        (self.overruling_since, self.parted) = (None, false);
        Some(ClockEvent::Adopted {
            wall: reading.wall,
            steady,
        })
    }

    fn heal(&mut self) -> Option<ClockEvent> {
        self.overruling_since = None;
        std::mem::take(&mut self.parted).then_some(ClockEvent::Healed)
    }

    fn part(&mut self, reading: Reading, steady: SystemTime) -> Option<ClockEvent> {
        let first = !std::mem::replace(&mut self.parted, true);
        first.then_some(ClockEvent::Jumped {
            wall: reading.wall,
            steady,
        })
    }

    /// An anchor that nothing has contradicted for long enough is as good as a confirmed one.
    fn confirm_by_standing(&mut self, reading: Reading) {
        let stood = |anchor: Anchor| {
            reading.elapsed.saturating_sub(anchor.elapsed) >= self.past.removal_delay
                && self.jump_is_past(reading)
        };
        if !self.parted && self.provisional.is_some_and(stood) {
            self.confirmed = self.provisional.take();
        }
    }

    fn time(&self, reading: Reading) -> Time {
        let now = if self.parted {
            self.steady(reading)
        } else {
            reading.wall
        };
        let confirmed = self.confirmed.map_or(now, |anchor| anchor.at(reading.elapsed));
        // Within the tolerance they are one time; the clocks' small differences are not told apart.
        let other = if apart(confirmed, now) <= TOLERANCE {
            now
        } else {
            confirmed
        };
        let state = match (self.parted, self.provisional) {
            (true, _) => State::Steady,
            (false, Some(_)) => State::Unconfirmed,
            (false, None) => State::Confirmed,
        };
        Time {
            now,
            earliest: self.floor(reading).map_or(now, |floor| floor.min(now)).min(other),
            latest: now.max(other),
            state,
            removing: (state == State::Confirmed && self.jump_is_past(reading)).then_some(now.min(other)),
        }
    }

    fn untrusted(&self, reading: Reading, state: State) -> Time {
        let mark = self.past.mark.unwrap_or(reading.wall);
        Time {
            now: reading.wall.max(mark),
            earliest: reading.wall.min(mark),
            latest: reading.wall.max(mark),
            state,
            removing: None,
        }
    }

    /// As long as the start's agreement is all that speaks against it.
    fn floor(&self, reading: Reading) -> Option<SystemTime> {
        let floor = self.floor?;
        let passed = reading.elapsed.saturating_sub(floor.elapsed);
        (passed < self.past.removal_delay).then(|| floor.at(reading.elapsed))
    }

    /// The anchor that adding rests on, carried on.
    fn steady(&self, reading: Reading) -> SystemTime {
        self.provisional
            .or(self.confirmed)
            .map_or(reading.wall, |anchor| anchor.at(reading.elapsed))
    }

    fn agrees_with_any(&self, reading: Reading) -> bool {
        [self.confirmed, self.provisional]
            .into_iter()
            .flatten()
            .any(|anchor| anchor.agrees(reading))
    }

    fn jump_is_past(&self, reading: Reading) -> bool {
        self.last_jump
            .is_none_or(|jump| reading.elapsed.saturating_sub(jump) >= self.past.removal_delay)
    }
}

fn add(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by).unwrap_or(time)
}

/// The distance between two times, either way.
pub(crate) fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests;
