//! The server's time. Everything that signs, records, publishes or lets go asks [`TrustedClock`], never the machine.
//!
//! [`judge`] holds the rules and [`dates`] the second witness, both pure; `watch` looks at least every few seconds, so that
//! a jump is seen while nobody asks, writes what has happened to the audit log, and raises the store's mark.

pub(crate) mod dates;
pub(crate) mod judge;
pub(crate) mod time;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::time::rfc3339;
use signet_runtime::clock::Clock;
use signet_runtime::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

use self::dates::{Dates, Told};
pub(crate) use self::judge::REMOVAL_DELAY;
pub(crate) use self::judge::{ClockEvent, NotThisMachinesTime, Past, TOLERANCE};
use self::judge::{Judge, Reading};
pub(crate) use self::time::{State, Time};

/// The one clock of the server. As a [`Clock`] it tells the time to sign and publish by.
pub struct TrustedClock {
    machine: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    state: watch::Sender<State>,
}

struct Inner {
    judge: Judge,
    dates: Dates,
    /// What has happened and is not audited yet.
    events: Vec<ClockEvent>,
}

/// The clock as a person sees it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// How the clocks stand.
    pub(crate) state: State,
    /// What the machine says.
    pub(crate) wall: SystemTime,
    /// What the server goes by.
    pub(crate) steady: SystemTime,
    /// What each API server said.
    pub(crate) api_servers: Vec<Told>,
    /// One sentence: which clocks differ, and what to do.
    pub(crate) reason: String,
    /// The API servers tell another time than the one the server goes by.
    pub(crate) contradicted: bool,
}

/// Why an admin's word is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotConfirmed {
    /// This machine says something else.
    NotThisMachinesTime(NotThisMachinesTime),
    /// API servers do.
    Contradicted {
        /// What this machine says.
        wall: SystemTime,
        /// Who says what instead.
        told: Vec<Told>,
    },
}

/// What came of an admin's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// Time went back by it: what was trusted until a date is then asked anew.
    pub(crate) went_back: bool,
    /// The API servers against whose time it was said.
    pub(crate) against: Vec<Told>,
}

impl TrustedClock {
    /// A clock that knows only what the store remembers.
    pub(crate) fn new(machine: Arc<dyn Clock>, past: Past) -> Self {
        Self {
            machine,
            inner: Mutex::new(Inner {
                judge: Judge::new(past),
                dates: Dates::default(),
                events: Vec::new(),
            }),
            state: watch::Sender::new(State::WaitingForSecondClock),
        }
    }

    /// A clock that a second one agreed with when it was made: what a server has after an ordinary start.
    #[must_use]
    pub fn agreed(machine: Arc<dyn Clock>) -> Self {
        let now = machine.now();
        let clock = Self::new(
            machine,
            Past {
                mark: None,
                jumped: false,
                second_clock: true,
                removal_delay: REMOVAL_DELAY,
            },
        );
        clock.heard("", now, Duration::ZERO);
        clock.time();
        clock
    }

    /// How the clocks stand; changes when a look finds them otherwise.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// One look: the time, and how sure it is. Whoever waits for [`state`](Self::state) hears of it, whoever looked.
    pub(crate) fn time(&self) -> Time {
        let reading = self.reading();
        let time = self.lock().look(reading);
        self.state
            .send_if_modified(|state| std::mem::replace(state, time.state) != time.state);
        time
    }

    /// The time to sign, record and publish by; a best guess where there is no trusted one.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.time().now
    }

    /// An API server answered a call that took `took` and dated its answer `date`.
    pub(crate) fn heard(&self, cluster: &str, date: SystemTime, took: Duration) {
        let elapsed = self.machine.elapsed();
        self.lock().dates.hear(cluster, date, took, elapsed);
    }

    /// An admin says what time it is, with `force` though the API servers tell another.
    ///
    /// # Errors
    /// When this machine's clock says something else, or the API servers do and it is not forced.
    pub(crate) fn confirm(&self, said: SystemTime, force: bool) -> Result<Confirmed, NotConfirmed> {
        self.time();
        let reading = self.reading();
        let confirmed = self.lock().confirm(said, force, reading);
        self.time();
        confirmed
    }

    /// What has happened since the last call.
    pub(crate) fn take_events(&self) -> Vec<ClockEvent> {
        std::mem::take(&mut self.lock().events)
    }

    /// Whether the next process has to wait before it removes anything.
    pub(crate) fn is_waiting_after_jump(&self) -> bool {
        let reading = self.reading();
        self.lock().judge.is_waiting_after_jump(reading)
    }

    /// For `clock show`, `status` and messages.
    pub(crate) fn show(&self) -> Shown {
        let time = self.time();
        let reading = self.reading();
        let inner = self.lock();
        let second = inner.dates.second_clock(reading.elapsed);
        let against = inner.dates.against(time.now, reading.elapsed);
        Shown {
            state: time.state,
            wall: reading.wall,
            steady: time.now,
            api_servers: inner.dates.told(reading.elapsed),
            reason: reason(&time, reading.wall, second, &against),
            contradicted: !against.is_empty(),
        }
    }

    fn reading(&self) -> Reading {
        Reading {
            wall: self.machine.now(),
            elapsed: self.machine.elapsed(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Inner {
    fn look(&mut self, reading: Reading) -> Time {
        let second = self.dates.second_clock(reading.elapsed);
        let (time, event) = self.judge.look(reading, second);
        self.events.extend(event);
        time
    }

    fn confirm(
        &mut self,
        said: SystemTime,
        force: bool,
        reading: Reading,
    ) -> Result<Confirmed, NotConfirmed> {
        let against = self.dates.against(reading.wall, reading.elapsed);
        // The machine's own word comes first: where that differs, force is of no use.
        let refused = self.judge.check_said(said, reading);
        refused.map_err(NotConfirmed::NotThisMachinesTime)?;
        if !against.is_empty() && !force {
            return Err(NotConfirmed::Contradicted {
                wall: reading.wall,
                told: against,
            });
        }
        let went_back = self.judge.confirm(said, reading);
        Ok(Confirmed {
            went_back: went_back.map_err(NotConfirmed::NotThisMachinesTime)?,
            against,
        })
    }
}

impl Clock for TrustedClock {
    fn now(&self) -> SystemTime {
        self.now()
    }

    fn elapsed(&self) -> Duration {
        self.machine.elapsed()
    }
}

impl fmt::Debug for TrustedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedClock").finish_non_exhaustive()
    }
}

/// Says which clocks differ and what ends it.
fn reason(time: &Time, wall: SystemTime, second: Option<SystemTime>, against: &[Told]) -> String {
    let (wall, now) = (rfc3339(wall), rfc3339(time.now));
    match (time.state, second) {
        (State::Confirmed | State::Unconfirmed, _) if !against.is_empty() => {
            format!(
                "{}, this machine says {wall} and is believed: set the clock that is wrong",
                dates::say(against)
            )
        }
        (State::Confirmed, _) => String::new(),
        (State::Unconfirmed, _) => {
            "nothing but this machine speaks for its time yet: nothing is removed for the first day"
                .to_owned()
        }
        (State::Steady, Some(date)) => format!(
            "this machine's clock says {wall}, time carried on since it was last confirmed says {now}, the API servers say {}: \
             set this machine's clock",
            rfc3339(date)
        ),
        (State::Steady, None) => format!(
            "this machine's clock says {wall}, time carried on since it was last confirmed says {now}: set this machine's clock, \
             or if it is right run `signet-server clock confirm {wall}`"
        ),
        (State::WaitingForSecondClock, _) => format!(
            "this machine's clock says {wall} and no API server has told its time since the start: nothing is issued before; \
             if it is right and no API server can be reached, run `signet-server clock confirm {wall}`"
        ),
        (State::BehindMark, _) => format!(
            "this machine's clock says {wall}, and this server has already seen {now}: set the clock, or if it is right run \
             `signet-server clock confirm {wall}`"
        ),
        (State::SecondClockDiffers, date) => format!(
            "this machine's clock says {wall}, the API servers say {}: set the clock that is wrong, or if it is theirs run \
             `signet-server clock confirm {wall} --force`",
            date.map_or_else(|| "nothing".to_owned(), rfc3339)
        ),
    }
}

#[cfg(test)]
mod tests {
    use signet_runtime::clock::FakeClock;

    use super::*;

    fn waiting() -> TrustedClock {
        let machine = FakeClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_600));
        let past = Past {
            mark: None,
            jumped: false,
            second_clock: true,
            removal_delay: REMOVAL_DELAY,
        };
        TrustedClock::new(Arc::new(machine), past)
    }

    #[tokio::test]
    async fn an_admin_stands_against_the_api_servers_only_by_force_and_it_is_said_as_long_as_they_differ() {
        let clock = waiting();
        let (wall, far) = (clock.machine.now(), Duration::from_secs(86_400));
        clock.heard("dev", wall + far, Duration::ZERO);
        let Err(NotConfirmed::Contradicted { told, .. }) = clock.confirm(wall, false) else {
            panic!("it was taken, or refused for another reason");
        };
        assert_eq!(told[0].cluster, "dev");
        assert!(!clock.time().state.is_trusted());
        assert!(clock.show().reason.contains("--force"), "{}", clock.show().reason);
        for force in [false, true] {
            let refused = clock.confirm(wall + far, force).unwrap_err();
            assert!(
                matches!(refused, NotConfirmed::NotThisMachinesTime(_)),
                "{refused:?}"
            );
        }

        let against = clock.confirm(wall, true).unwrap().against;
        assert_eq!(against[0].cluster, told[0].cluster);
        let shown = clock.show();
        assert!(shown.contradicted && shown.state == State::Confirmed);
        assert!(
            shown.reason.starts_with("the API server of `dev` says "),
            "{}",
            shown.reason
        );

        clock.heard("dev", wall, Duration::ZERO);
        let shown = clock.show();
        assert_eq!((shown.contradicted, shown.reason.as_str()), (false, ""));
        assert!(clock.confirm(wall, false).unwrap().against.is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_trusted_clock_hears_of_it_from_any_look() {
        let looks: [fn(&TrustedClock); 3] = [
            |clock| {
                clock.time();
            },
            |clock| drop(clock.show()),
            |clock| {
                clock.confirm(clock.machine.now(), false).unwrap();
            },
        ];
        for look in looks {
            let clock = waiting();
            let mut state = clock.state();
            assert_eq!(*state.borrow_and_update(), State::WaitingForSecondClock);
            clock.heard("", clock.machine.now(), Duration::ZERO);
            look(&clock);
            assert!(state.has_changed().unwrap() && state.borrow_and_update().is_trusted());
        }
    }
}
