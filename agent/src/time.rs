//! The agent's time: the server's, carried on by elapsed time. The machine's own clock counts only before the server has
//! told any time, and for a server that the told time would keep away; else it is compared and reported. So a machine whose clock is set wrong, for a minute or for good,
//! goes on serving, and asks for nothing because of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::dates::{OutsideDates, WhoseClock};
use signet_certs::time::rfc3339;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::sync::Mutex;

/// What is told is late by the time it travels, and differs by as much: within this nothing is corrected.
const TRAVEL: Duration = Duration::from_secs(2);

/// A clock of the machine this far from the agent's time is worth a warning.
const WORRYING: Duration = Duration::from_secs(60);

/// How often the machine's clock is looked at.
const LOOK: Duration = Duration::from_secs(15);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct AgentTime {
    machine: Arc<dyn Clock>,
    told: Mutex<Option<Told>>,
    /// The dates of the certificate that the server showed last, where this time is outside of them.
    contradiction: Mutex<Option<OutsideDates>>,
}

/// What the server said, and when by elapsed time.
#[derive(Clone, Copy, Debug)]
struct Told {
    date: SystemTime,
    at: Duration,
}

/// A moment: by the agent's time, which may be corrected either way, and by elapsed time, which only grows. Certificates
/// are judged by the date; whoever waits counts elapsed time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The agent's time.
    pub date: SystemTime,
    /// Elapsed time.
    pub elapsed: Duration,
}

impl Moment {
    /// Of a clock.
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self {
            date: clock.now(),
            elapsed: clock.elapsed(),
        }
    }

    /// When a date comes, by elapsed time; at once when it has passed.
    pub(crate) fn reaches(&self, date: SystemTime) -> Duration {
        self.elapsed + date.duration_since(self.date).unwrap_or_default()
    }

    /// The date at a moment of elapsed time, as far as is known now.
    pub(crate) fn date_at(&self, elapsed: Duration) -> SystemTime {
        self.date + elapsed.saturating_sub(self.elapsed)
    }
}

impl AgentTime {
    /// The machine's time, until another is told.
    pub(crate) fn new(machine: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            machine,
            told: Mutex::default(),
            contradiction: Mutex::default(),
        })
    }

    /// What the server says that it is now.
    pub(crate) fn tell(&self, date: SystemTime) {
        *self.contradiction.lock() = None;
        let at = self.machine.elapsed();
        // Where the system does not tell elapsed time, the machine's clock is all there is.
        if at.is_zero() {
            return;
        }
        let mut told = self.told.lock();
        let known = told.map(|told| told.date + at.saturating_sub(told.at));
        if known.is_none_or(|known| apart(known, date) > TRAVEL) {
            *told = Some(Told { date, at });
        }
    }

    /// The server proved itself by a certificate that this time is outside of. Returns what follows from that, for a person.
    pub(crate) fn contradicted(&self, dates: OutsideDates) -> String {
        *self.contradiction.lock() = Some(dates);
        conclusion(dates)
    }

    /// Whose clock this goes by.
    pub(crate) fn whose(&self) -> WhoseClock {
        if self.told.lock().is_some() {
            WhoseClock::Server
        } else {
            WhoseClock::Machine
        }
    }

    /// Says when the machine's clock parts from the agent's time and when it is right again, until draining starts.
    pub(crate) async fn watch(self: Arc<Self>, drain: Drain) {
        let mut worried = false;
        loop {
            let skew = self.skew();
            if (skew > WORRYING) != worried {
                worried = !worried;
                let seconds = skew.as_secs();
                if worried {
                    tracing::warn!(
                        seconds,
                        machine = rfc3339(self.machine.now()),
                        server = rfc3339(self.now()),
                        "this machine's clock and the server's differ: the server's counts here, but synchronise them"
                    );
                } else {
                    tracing::info!(seconds, "this machine's clock is right again");
                }
            }
            tokio::select! {
                () = drain.signalled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The machine's clock itself.
    pub(crate) fn of_the_machine(&self) -> Arc<dyn Clock> {
        self.machine.clone()
    }

    /// What the machine's clock says, which is reported.
    pub(crate) fn machine(&self) -> SystemTime {
        self.machine.now()
    }

    /// How far the machine's clock is from the agent's time, either way.
    pub(crate) fn skew(&self) -> Duration {
        apart(self.machine.now(), self.now())
    }

    /// Whether one of the two, the machine's clock or what was told, must be wrong.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.skew() > WORRYING
    }

    /// What there is to say about the machine's clock, for a person; empty when it is right.
    pub(crate) fn problem(&self) -> String {
        let (machine, own) = (self.machine.now(), self.now());
        let skew = apart(machine, own);
        if skew <= WORRYING {
            let contradiction = *self.contradiction.lock();
            return contradiction.map(described).unwrap_or_default();
        }
        let way = if machine > own { "ahead of" } else { "behind" };
        format!(
            "this machine's says {} and the server's {}: it is {} s {way} the server's, which counts; synchronise it",
            rfc3339(machine),
            rfc3339(own),
            skew.as_secs()
        )
    }
}

fn described(dates: OutsideDates) -> String {
    format!("{}; the server's certificate {dates}", conclusion(dates))
}

/// A server shows a certificate whose dates it is within by its own clock.
fn conclusion(dates: OutsideDates) -> String {
    let time = match dates.clock {
        WhoseClock::Server => "the time that the server told before",
        WhoseClock::Machine | WhoseClock::Here => "this machine's clock",
    };
    let seconds = dates.distance().as_secs();
    if dates.has_ended() {
        format!(
            "{time} is at least {seconds} s ahead of the server's, or the server lives on with a dead certificate: \
             synchronise both machines"
        )
    } else {
        format!(
            "{time} is at least {seconds} s behind the server's, or that one is ahead: synchronise both machines"
        )
    }
}

impl Clock for AgentTime {
    fn now(&self) -> SystemTime {
        let told = *self.told.lock();
        told.map_or_else(
            || self.machine.now(),
            |told| told.date + self.machine.elapsed().saturating_sub(told.at),
        )
    }

    fn elapsed(&self) -> Duration {
        self.machine.elapsed()
    }
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other)
        .or_else(|_| other.duration_since(one))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use signet_runtime::clock::FakeClock;
    use signet_testkit::{MINUTE, at};

    use super::*;

    /// Elapsed time of a new clock is zero, which means that there is none.
    async fn machine() -> FakeClock {
        let clock = FakeClock::new(at(0));
        tokio::time::advance(MINUTE).await;
        clock
    }

    #[tokio::test(start_paused = true)]
    async fn the_machines_time_counts_until_the_server_has_told_one() {
        let clock = machine().await;
        let time = AgentTime::new(Arc::new(clock.clone()));
        clock.set_offset(7200);
        assert_eq!(time.now(), at(60 + 7200));
        time.tell(at(60));
        assert_eq!(time.now(), at(60));
        assert!(time.problem().contains("7200 s ahead"), "{}", time.problem());
        for offset in [-7200, 400 * 86_400, 0] {
            clock.set_offset(offset);
            assert_eq!(time.now(), at(60));
        }
        assert!(time.problem().is_empty());
        tokio::time::advance(MINUTE).await;
        assert_eq!(time.now(), at(120));
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_corrects_it_either_way_but_not_for_the_travel_of_a_message() {
        let time = AgentTime::new(Arc::new(machine().await));
        for told in [60, 4000, 60] {
            time.tell(at(told));
            assert_eq!(time.now(), at(told));
            time.tell(at(told + 1));
            assert_eq!(time.now(), at(told));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_elapsed_time_the_machines_clock_is_all_there_is() {
        let clock = FakeClock::new(at(0));
        let time = AgentTime::new(Arc::new(clock.clone()));
        time.tell(at(7200));
        assert_eq!(time.now(), at(0));
    }
}
