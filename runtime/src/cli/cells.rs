//! What stands in cells: times, and the lack of something.

use serde_json::Value;

/// For a cell without content.
#[must_use]
pub const fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `2026-11-21T08:00:00Z` for milliseconds since 1970; `null` for the zero that stands for "never".
#[must_use]
pub fn when(unix_ms: i64) -> Value {
    moment(unix_ms).map_or(Value::Null, Value::String)
}

/// As [`when`], with a dash for "never".
#[must_use]
pub fn when_text(unix_ms: i64) -> String {
    moment(unix_ms).unwrap_or_else(|| "-".to_owned())
}

fn moment(unix_ms: i64) -> Option<String> {
    let whole_seconds = jiff::Timestamp::from_second(unix_ms.div_euclid(1000)).ok()?;
    (unix_ms != 0).then(|| whole_seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_and_zero_is_never() {
        assert_eq!(when(1_800_999), "1970-01-01T00:30:00Z");
        assert_eq!(when_text(1_795_248_000_000), "2026-11-21T08:00:00Z");
        assert_eq!((when(0), when_text(0)), (Value::Null, "-".to_owned()));
        assert_eq!(when(i64::MAX), Value::Null);
    }
}
