//! Output for people: aligned columns, ages.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use crate::error::one_line;

/// A table in plain text. Cells are shown with control characters replaced, since many hold what others wrote.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    #[must_use]
    pub fn new(heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(|head| one_line(head)).collect()],
        }
    }

    /// Adds a row. Missing cells are empty; cells beyond the heads are shown too.
    pub fn row<I>(&mut self, cells: I) -> &mut Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.rows
            .push(cells.into_iter().map(|cell| one_line(cell.as_ref())).collect());
        self
    }

    /// Whether there is no row below the heads.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The text: columns two spaces apart, every line ended, no trailing blanks.
    #[must_use]
    pub fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing into a String cannot fail.
                let _ = write!(line, "{cell:<width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell: &String| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }
}

/// How long ago `then` was, in at most two units: `12s`, `5m30s`, `3h12m`, `8d2h`; the future reads `in 5m`.
#[must_use]
pub fn age(now: SystemTime, then: SystemTime) -> String {
    match now.duration_since(then) {
        Ok(past) => brief(past),
        Err(future) => format!("in {}", brief(future.duration())),
    }
}

/// A duration in at most two units, rounded down.
#[must_use]
pub fn brief(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = duration.as_secs();
    let Some(first) = UNITS.iter().position(|(size, _)| seconds >= *size) else {
        return "0s".into();
    };
    let (size, name) = UNITS[first];
    let mut text = format!("{}{name}", seconds / size);
    if let Some((smaller, name)) = UNITS.get(first + 1)
        && seconds % size / smaller > 0
    {
        let _ = write!(text, "{}{name}", seconds % size / smaller);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let mut table = Table::new(&["ID", "STATE", ""]);
        assert!(table.is_empty());
        table.row(["a", "active"]).row(["längere", "old", "x"]);
        assert_eq!(
            table.render(),
            "ID       STATE\na        active\nlängere  old     x\n"
        );
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\u{1b}[2Jevil\nline"]);
        assert_eq!(table.render(), "NAME\n?[2Jevil line\n");
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000);
        let past = |seconds| age(now, now - Duration::from_secs(seconds));
        assert_eq!(past(0), "0s");
        assert_eq!(past(59), "59s");
        assert_eq!(past(330), "5m30s");
        assert_eq!(past(3_600), "1h");
        assert_eq!(past(3_659), "1h");
        assert_eq!(past(698_523), "8d2h");
        assert_eq!(age(now, now + Duration::from_secs(300)), "in 5m");
    }
}
