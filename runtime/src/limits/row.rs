//! A bound as people read it.

use std::fmt::Write as _;
use std::time::Duration;

/// A row of the table of limits: what somebody may use of a process, and what he certainly gets of it. Its numbers come from the constants
/// that bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Whose allowance it is: `a pod`, `an agent`, `strangers of one address`.
    pub who: &'static str,
    /// Of what: `connections`, `bytes not taken yet`.
    pub what: &'static str,
    /// What he gets however much the others use; `none` where nobody has a sure part.
    pub share: String,
    /// What he never gets more of; `none` where only the sum is bounded.
    pub cap: String,
    /// The module that counts: `agent::sockets::budget`.
    pub counted: &'static str,
    /// The metric that moves when the bound is met, as `/metrics` shows it.
    pub metric: &'static str,
}

/// The rows as a table in Markdown, in their order.
#[must_use]
pub fn markdown(rows: &[Limit]) -> String {
    let mut table =
        "| who | what | share | cap | counted in | metric |\n|---|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let Limit {
            who,
            what,
            share,
            cap,
            counted,
            metric,
        } = row;
        // Writing into a string cannot fail.
        let _ = writeln!(
            table,
            "| {who} | {what} | {share} | {cap} | `{counted}` | `{metric}` |"
        );
    }
    table
}

/// A number of bytes in the largest unit that leaves it whole.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = |(_, size): &&(&str, u64)| bytes >= *size && bytes.is_multiple_of(*size);
    match units.iter().find(whole) {
        Some((unit, size)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}

/// A length of time in the largest unit that leaves it whole.
#[must_use]
pub fn time(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match (seconds, millis) {
        (_, 1..) => format!("{} ms", time.as_millis()),
        (1.., 0) if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        (1.., 0) if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_the_largest_whole_unit() {
        let sizes = [1023, 4096, 65_537, 3 << 20, 1 << 30].map(bytes);
        assert_eq!(sizes, ["1023 bytes", "4 KiB", "65537 bytes", "3 MiB", "1 GiB"]);
        let times = [0, 500, 1000, 90_000, 120_000, 7_200_000].map(|ms| time(Duration::from_millis(ms)));
        assert_eq!(times, ["0 s", "500 ms", "1 s", "90 s", "2 min", "2 h"]);
    }

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let row = Limit {
            who: "a pod",
            what: "connections",
            share: "8".to_owned(),
            cap: "64".to_owned(),
            counted: "agent::sockets::budget",
            metric: "signet_agent_refused_total",
        };
        let table = markdown(&[row.clone(), row]);
        assert_eq!(table.lines().count(), 4);
        let line =
            "| a pod | connections | 8 | 64 | `agent::sockets::budget` | `signet_agent_refused_total` |";
        assert_eq!(table.lines().filter(|found| *found == line).count(), 2);
    }
}
