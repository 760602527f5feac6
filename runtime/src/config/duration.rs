//! Durations as people write them.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::friendly::SpanParser;
use jiff::{SignedDuration, SpanRelativeTo};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::error::excerpt;

/// Longest duration a configuration may name: a hundred years, so that adding it to any date stays in range.
const MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A duration written with units: `500ms`, `90s`, `2m`, `1h30m`, `7d`. A day has 24 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

/// Why a text is no duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not a duration: {problem}; write for example 90s, 2m, 1h30m or 7d")]
pub struct ParseDurationError {
    text: String,
    problem: String,
}

impl HumanDuration {
    /// Wraps a duration, for defaults.
    #[must_use]
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// A number of whole seconds, for defaults.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        parse(text).map(Self).map_err(|problem| ParseDurationError {
            // What was typed may be anything; a line of it is enough.
            text: excerpt(text, 40),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err("it has no unit".into());
    }
    let span = SpanParser::new()
        .parse_span(text)
        .map_err(|_| "it is not a number with a unit".to_owned())?;
    let signed: SignedDuration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "months and years differ in length".to_owned())?;
    let duration = Duration::try_from(signed).map_err(|_| "it is negative".to_owned())?;
    if duration > MAX {
        return Err("it is longer than a hundred years".into());
    }
    Ok(duration)
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 7] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ];
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        let mut text = String::new();
        for (size, unit) in UNITS {
            if rest >= size {
                write!(text, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        f.write_str(&text)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 90s, 2m, 1h30m or 7d")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_forms_are_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
            ("0s", 0),
        ] {
            assert_eq!(
                text.parse::<HumanDuration>().unwrap().get().as_millis(),
                millis,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_unclear_is_refused_with_the_reason() {
        for (text, reason) in [
            ("90", "no unit"),
            ("1.5", "no unit"),
            ("", "not a number"),
            ("soon", "not a number"),
            ("-5m", "negative"),
            ("1mo", "differ in length"),
            ("1y", "differ in length"),
            ("200000d", "hundred years"),
        ] {
            let error = text.parse::<HumanDuration>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = "x\n"
            .repeat(1_000)
            .parse::<HumanDuration>()
            .unwrap_err()
            .to_string();
        assert!(long.len() < 200 && !long.contains('\n'), "{long}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(seconds in 0_u64..3_000_000_000, nanos in 0_u32..1_000_000_000) {
            let duration = HumanDuration::new(Duration::new(seconds, nanos));
            prop_assert_eq!(duration.to_string().parse::<HumanDuration>().unwrap(), duration);
        }
    }
}
