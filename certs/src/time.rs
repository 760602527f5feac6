//! Conversions of wall time. No clock is read here: every time is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

/// 9999-12-31T23:59:59Z, the last second X.509 can express.
const LATEST: i64 = 253_402_300_799;
/// 1950-01-01T00:00:00Z, the first second X.509 can express.
const EARLIEST: i64 = -631_152_000;

/// Whole seconds since 1970, rounded down; negative before.
#[must_use]
pub fn unix_seconds(t: SystemTime) -> i64 {
    unix_millis(t).div_euclid(1000)
}

/// Whole milliseconds since 1970, rounded down; negative before.
#[must_use]
pub fn unix_millis(t: SystemTime) -> i64 {
    match t.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
            if before.subsec_nanos() % 1_000_000 == 0 {
                -whole
            } else {
                (-whole).saturating_sub(1)
            }
        }
    }
}

/// The time `ms` milliseconds after 1970, clamped to the years 1950–9999 that X.509 can express.
#[must_use]
pub fn from_unix_millis(ms: i64) -> SystemTime {
    let ms = ms.clamp(EARLIEST * 1000, LATEST * 1000 + 999);
    let distance = Duration::from_millis(ms.unsigned_abs());
    if ms < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// The time `s` seconds after 1970, clamped to the years 1950–9999 that X.509 can express.
#[must_use]
pub fn from_unix_seconds(s: i64) -> SystemTime {
    from_unix_millis(s.clamp(EARLIEST, LATEST) * 1000)
}

/// `2026-11-21T08:00:00Z`: UTC, whole seconds.
#[must_use]
pub fn rfc3339(t: SystemTime) -> String {
    to_datetime(t).format(&Rfc3339).unwrap_or_default()
}

/// `t` cut to the whole second, as certificates state it.
pub(crate) fn whole_seconds(t: SystemTime) -> SystemTime {
    from_unix_seconds(unix_seconds(t))
}

/// The calendar form that rcgen takes.
pub(crate) fn to_datetime(t: SystemTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_seconds(t).clamp(EARLIEST, LATEST))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Reads an RFC 3339 time in UTC (`2026-11-21T19:47:36Z`).
///
/// # Errors
/// When the text is anything else.
pub fn parse_rfc3339(text: &str) -> Result<SystemTime, ::time::error::Parse> {
    OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_as_rfc3339() {
        assert_eq!(rfc3339(from_unix_seconds(1_795_000_000)), "2026-11-18T11:06:40Z");
        assert_eq!(rfc3339(from_unix_seconds(i64::MAX)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(from_unix_seconds(i64::MIN)), "1950-01-01T00:00:00Z");
    }

    #[test]
    fn rounds_down_on_both_sides_of_1970() {
        assert_eq!(unix_millis(UNIX_EPOCH - Duration::from_micros(1)), -1);
        assert_eq!(unix_millis(UNIX_EPOCH + Duration::from_micros(1)), 0);
        assert_eq!(unix_seconds(UNIX_EPOCH - Duration::from_millis(1)), -1);
    }

    proptest! {
        #[test]
        fn millis_survive_a_round_trip(ms in EARLIEST * 1000..LATEST * 1000) {
            prop_assert_eq!(unix_millis(from_unix_millis(ms)), ms);
        }
    }
}
