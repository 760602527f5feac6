use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

const START: u64 = 1_800_000_000;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn past() -> Past {
    Past {
        mark: Some(at(START)),
        jumped: false,
        second_clock: true,
        removal_delay: REMOVAL_DELAY,
    }
}

/// A machine on which true time passes by itself and the two clocks are set by hand.
struct World {
    judge: Judge,
    passed: u64,
    wall_off: i64,
    date_off: Option<i64>,
}

impl World {
    fn new(past: Past) -> Self {
        Self {
            judge: Judge::new(past),
            passed: 0,
            wall_off: 0,
            date_off: Some(0),
        }
    }

    fn shifted(&self, off: i64) -> SystemTime {
        at((START + self.passed).saturating_add_signed(off))
    }

    fn reading(&self) -> Reading {
        Reading {
            wall: self.shifted(self.wall_off),
            elapsed: Duration::from_secs(self.passed),
        }
    }

    fn look(&mut self) -> (Time, Option<ClockEvent>) {
        let date = self.date_off.map(|off| self.shifted(off));
        let reading = self.reading();
        self.judge.look(reading, date)
    }

    /// Lets time pass, looking every ten seconds; the last answer.
    fn pass(&mut self, seconds: u64) -> Time {
        let mut time = self.look().0;
        for _ in 0..seconds / 10 {
            self.passed += 10;
            time = self.look().0;
        }
        time
    }

    fn error(&self, time: Time) -> Duration {
        apart(time.now, self.shifted(0))
    }
}

/// A start that a second clock agrees to is confirmed and may remove at once.
#[test]
fn a_start_with_two_clocks_that_agree_is_confirmed() {
    let time = World::new(past()).look().0;
    assert_eq!(time.state, State::Confirmed);
    assert_eq!(time.adding(), Ok(at(START)));
    assert_eq!(time.removing(), Some(at(START)));
}

/// Without trusted time nothing is signed, and the best guess never lies before the mark.
#[test]
fn a_start_waits_for_its_second_clock() {
    let mut world = World::new(past());
    world.date_off = None;
    assert_eq!(world.look().0.adding(), Err(State::WaitingForSecondClock));
    world.wall_off = -(HOUR as i64);
    let time = world.look().0;
    assert_eq!(time.adding(), Err(State::BehindMark));
    assert_eq!(time.now, at(START), "the mark");
    world.date_off = Some(0);
    assert_eq!(world.look().0.adding(), Err(State::SecondClockDiffers));
    world.wall_off = 0;
    assert_eq!(world.look().0.state, State::Confirmed);
}

/// Where no API server is configured, a start ahead of the mark serves at once and removes after the delay.
#[test]
fn a_start_without_a_second_clock_is_unconfirmed_for_a_day() {
    let mut world = World::new(Past {
        second_clock: false,
        ..past()
    });
    world.date_off = None;
    let time = world.look().0;
    assert_eq!(time.state, State::Unconfirmed);
    assert!(time.adding().is_ok() && time.removing().is_none());
    assert_eq!(world.pass(DAY - 10).state, State::Unconfirmed);
    let time = world.pass(10);
    assert_eq!(time.state, State::Confirmed);
    assert!(time.removing().is_some());
    world.wall_off = -(HOUR as i64);
    assert_eq!(world.look().0.state, State::Steady);
}

/// One wrong clock, however far and long, moves nothing; right again, everything goes on at once, but for removing.
#[test]
fn one_wrong_clock_moves_nothing() {
    for off in [
        400 * DAY as i64,
        8 * DAY as i64,
        2 * HOUR as i64,
        -(DAY as i64),
        -(6 * MINUTE as i64),
    ] {
        for date in [None, Some(0), Some(-off)] {
            let mut world = World::new(past());
            world.pass(HOUR);
            (world.wall_off, world.date_off) = (off, date);
            let (time, event) = world.look();
            assert!(matches!(event, Some(ClockEvent::Jumped { .. })), "{off} {date:?}");
            assert_eq!(time.state, State::Steady);
            assert_eq!(world.error(time), Duration::ZERO);
            let time = world.pass(3 * HOUR);
            assert_eq!((time.state, world.error(time)), (State::Steady, Duration::ZERO));
            assert_eq!(time.removing(), None);
            (world.wall_off, world.date_off) = (0, Some(0));
            let (time, event) = world.look();
            assert_eq!((time.state, event), (State::Confirmed, Some(ClockEvent::Healed)));
            assert_eq!(time.removing(), None, "a jump was just seen");
            assert!(world.pass(DAY).removing().is_some());
        }
    }
}

/// A `Date` alone against both is an alarm of somebody else's: it moves nothing here.
#[test]
fn a_wrong_second_clock_moves_nothing() {
    let mut world = World::new(past());
    world.pass(MINUTE);
    world.date_off = Some(7 * DAY as i64);
    let time = world.pass(HOUR);
    assert_eq!(
        (time.state, world.error(time)),
        (State::Confirmed, Duration::ZERO)
    );
    assert!(time.removing().is_some());
}

/// Covers INV-16: a start in a wrong time that both clocks told is left within a minute of both being right, and within
/// that minute of a break nothing is adopted.
#[test]
fn two_clocks_overrule_a_wrong_anchor_after_a_minute() {
    let mut world = World::new(past());
    (world.wall_off, world.date_off) = (DAY as i64, Some(DAY as i64));
    world.pass(10 * MINUTE);
    (world.wall_off, world.date_off) = (0, Some(0));
    assert_eq!(world.pass(50).state, State::Steady);
    world.date_off = None;
    world.pass(10);
    world.date_off = Some(0);
    assert_eq!(world.pass(50).state, State::Steady, "the break began it anew");
    let time = world.pass(10);
    assert_eq!(
        (time.state, world.error(time)),
        (State::Unconfirmed, Duration::ZERO)
    );
    assert_eq!(time.earliest, time.now);
    assert!(time.latest > time.now);
    assert_eq!(time.removing(), None);
    let time = world.pass(DAY);
    assert_eq!((time.state, time.latest), (State::Confirmed, time.now));
}

/// Two clocks that lie together for a while are believed for adding alone, and forgotten when the wall clock comes back.
#[test]
fn what_two_wrong_clocks_told_is_never_removed_by() {
    let mut world = World::new(past());
    world.pass(HOUR);
    (world.wall_off, world.date_off) = (400 * DAY as i64, Some(400 * DAY as i64));
    let time = world.pass(2 * HOUR);
    assert_eq!((time.state, time.removing()), (State::Unconfirmed, None));
    assert_eq!(time.earliest, world.shifted(0));
    (world.wall_off, world.date_off) = (0, None);
    let time = world.look().0;
    assert_eq!((time.state, time.now), (State::Confirmed, world.shifted(0)));
}

#[test]
fn an_admin_confirms_only_what_this_machine_says() {
    let mut world = World::new(past());
    world.date_off = None;
    world.wall_off = -(HOUR as i64);
    world.look();
    let reading = world.reading();
    assert_eq!(
        world.judge.confirm(world.shifted(0), reading),
        Err(NotThisMachinesTime { wall: reading.wall })
    );
    assert_eq!(
        world.judge.confirm(reading.wall, reading),
        Ok(true),
        "it goes back"
    );
    let time = world.look().0;
    assert_eq!((time.state, time.removing()), (State::Confirmed, None));
    world.wall_off = 0;
    assert_eq!(
        world.look().0.state,
        State::Steady,
        "the next disagreement is its own"
    );
    let reading = world.reading();
    assert_eq!(world.judge.confirm(reading.wall, reading), Ok(false));
    assert_eq!(world.judge.confirm(reading.wall, reading), Ok(false));
}

/// A jump whose delay was still running survives a restart, and a start far from the mark is one.
#[test]
fn the_delay_after_a_jump_survives_a_restart() {
    let mut world = World::new(past());
    world.pass(HOUR);
    world.wall_off = HOUR as i64;
    world.look();
    world.wall_off = 0;
    world.look();
    assert!(world.judge.is_waiting_after_jump(world.reading()));
    let mut again = World::new(Past {
        jumped: true,
        ..past()
    });
    assert_eq!(again.look().0.removing(), None);
    assert!(again.pass(DAY).removing().is_some());
    assert!(!again.judge.is_waiting_after_jump(again.reading()));
    let mut far = World::new(past());
    (far.wall_off, far.date_off) = (8 * DAY as i64, Some(8 * DAY as i64));
    assert_eq!(far.look().0.removing(), None);
}

/// A start that both clocks put ahead of the mark may be one where both are wrong: only so much time has passed as has been seen to.
#[test]
fn what_had_not_ended_by_the_mark_is_protected_for_a_day_after_a_start() {
    let mut world = World::new(past());
    (world.wall_off, world.date_off) = (2 * HOUR as i64, Some(2 * HOUR as i64));
    let time = world.look().0;
    assert_eq!((time.state, time.earliest), (State::Confirmed, at(START)));
    assert_eq!(
        time.removing(),
        Some(time.now),
        "hours in which nobody ran are no jump"
    );
    assert_eq!(world.pass(HOUR).earliest, at(START + HOUR));
    let time = world.pass(DAY);
    assert_eq!(time.earliest, time.now);
    let mut short = World::new(past());
    short.wall_off = MINUTE as i64;
    let time = short.look().0;
    assert_eq!(time.earliest, time.now, "within the tolerance they are one time");
    let mut confirmed = World::new(past());
    (confirmed.wall_off, confirmed.date_off) = (2 * HOUR as i64, Some(2 * HOUR as i64));
    let said = confirmed.look().0.now;
    confirmed.judge.confirm(said, confirmed.reading()).unwrap();
    assert_eq!(confirmed.look().0.earliest, said, "an admin knows better");
}

/// A start with both clocks far ahead is believed; once they are right, what is signed by the right time is not over.
///
/// Covers INV-16.
#[test]
fn what_is_signed_after_a_start_far_ahead_is_not_over() {
    let (mut world, week) = (World::new(past()), Duration::from_secs(7 * DAY));
    (world.wall_off, world.date_off) = (400 * DAY as i64, Some(400 * DAY as i64));
    assert_eq!(world.look().0.state, State::Confirmed);
    (world.wall_off, world.date_off) = (0, Some(0));
    let time = world.pass(2 * MINUTE);
    assert_eq!(
        (time.now, time.latest),
        (world.shifted(0), world.shifted(400 * DAY as i64))
    );
    assert!(!time.is_over_for(time.now + week / 7, week));
    assert!(
        time.is_over_for(time.now - Duration::from_secs(1), week),
        "by the latest time"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Wall(i64),
    Slew(i64),
    Date(Option<i64>),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let far = -(DAY as i64)..(400 * DAY as i64);
    prop_oneof![
        2 => far.clone().prop_map(Step::Wall),
        3 => (-290i64..290).prop_map(Step::Slew),
        1 => Just(Step::Wall(0)),
        2 => prop_oneof![Just(None), Just(Some(0)), far.prop_map(Some)].prop_map(Step::Date),
        4 => (1u64..60).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever the wall clock does, in leaps or in a staircase, while no second clock goes with it: the time used stays
    /// within the tolerance of the truth, and nothing is removed by another.
    #[test]
    fn the_wall_clock_alone_never_moves_the_time(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(past());
        world.pass(0);
        for step in steps {
            match step {
                Step::Wall(off) => world.wall_off = off,
                Step::Slew(off) => world.wall_off = world.wall_off.saturating_add(off),
                // Never with a wrong wall clock: right, or silent.
                Step::Date(date) => world.date_off = date.filter(|off| *off == 0),
                Step::Pass(tens) => { world.pass(tens * 10); }
            }
            let time = world.look().0;
            let allowed = TOLERANCE + Duration::from_secs(world.passed / 2000);
            prop_assert!(world.error(time) <= allowed);
            prop_assert!(time.removing().is_none_or(|now| apart(now, world.shifted(0)) <= allowed));
            prop_assert!(time.state.is_trusted());
        }
    }

    /// Covers INV-16: whatever the clocks were, a minute after both are right the time used is right, and stays so.
    #[test]
    fn right_clocks_are_believed_within_a_minute(steps in prop::collection::vec(step(), 1..60), lone in any::<bool>()) {
        let mut world = World::new(Past { second_clock: !lone, ..past() });
        for step in steps {
            match step {
                Step::Wall(off) => world.wall_off = off,
                Step::Slew(off) => world.wall_off = world.wall_off.saturating_add(off),
                Step::Date(date) => world.date_off = date,
                Step::Pass(tens) => { world.pass(tens * 10); }
            }
            let time = world.look().0;
            prop_assert!(time.earliest <= time.now && time.now <= time.latest);
        }
        (world.wall_off, world.date_off) = (0, Some(0));
        let allowed = TOLERANCE + Duration::from_secs(world.passed / 2000 + 1);
        for _ in 0..3 {
            let time = world.pass(MINUTE);
            prop_assert!(time.adding().is_ok());
            prop_assert!(world.error(time) <= allowed, "{:?}", time);
        }
    }
}
