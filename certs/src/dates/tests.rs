use super::*;
use crate::time::from_unix_seconds;

fn at(seconds: i64) -> SystemTime {
    from_unix_seconds(1_795_000_000 + seconds)
}

#[test]
fn both_bounds_are_inside() {
    for (now, is_inside) in [(-1, false), (0, true), (10, true), (11, false)] {
        assert_eq!(
            OutsideDates::check(at(0), at(10), at(now)).is_ok(),
            is_inside,
            "{now}"
        );
    }
}

#[test]
fn the_words_hold_both_bounds_the_moment_whose_clock_and_how_far() {
    let early = OutsideDates::check(at(0), at(10), at(-60)).unwrap_err();
    assert_eq!(
        early.by(WhoseClock::Machine).to_string(),
        "is not valid yet: its dates are 2026-11-18T11:06:40Z to 2026-11-18T11:06:50Z, and by this machine's clock it is \
         2026-11-18T11:05:40Z, 60 s earlier"
    );
    let late = OutsideDates::check(at(0), at(10), at(3610)).unwrap_err();
    assert_eq!(
        late.by(WhoseClock::Server).to_string(),
        "has expired: its dates are 2026-11-18T11:06:40Z to 2026-11-18T11:06:50Z, and by the server's clock it is \
         2026-11-18T12:06:50Z, 3600 s later"
    );
    assert!(late.has_ended() && !early.has_ended());
    assert_eq!(late.distance(), Duration::from_secs(3600));
}
