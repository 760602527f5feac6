//! How something goes on that takes its time, on standard error: a bar in place on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use super::{complain, printable};

/// Cells of a bar.
const CELLS: u64 = 20;
/// A longer line would begin another one on a narrow terminal, and stay there.
const WIDTH: usize = 78;

/// Tells how one thing goes on.
#[derive(Debug, Default)]
pub struct Narration {
    is_told: bool,
    is_terminal: bool,
    /// A bar stands in the last line.
    is_drawn: bool,
    last: String,
    /// What the last state was made of.
    parts: Vec<String>,
}

impl Narration {
    /// On standard error, so that standard output stays one answer.
    #[must_use]
    pub fn on_stderr() -> Self {
        Self {
            is_told: true,
            is_terminal: io::stderr().is_terminal(),
            is_drawn: false,
            last: String::new(),
            parts: Vec::new(),
        }
    }

    /// For a program that tells its own story.
    #[must_use]
    pub fn untold() -> Self {
        Self::default()
    }

    /// Something that stays to be read. What was said last is not said again.
    pub fn line(&mut self, text: &str) {
        self.clear();
        if self.is_told && self.last != text {
            text.clone_into(&mut self.last);
            complain(&format!("{text}\n"));
        }
    }

    /// How far it is: `done` of `all`, in a few words, for there is room for no more. On a terminal in place of what was said so before, and
    /// each part once, above it; elsewhere one `line`.
    pub fn state(&mut self, done: u64, all: u64, words: &str, parts: Vec<String>, line: &str) {
        if !self.is_terminal {
            return self.line(line);
        }
        self.clear();
        for part in news(&self.parts, &parts) {
            complain(&format!("{part}\n"));
        }
        self.parts = parts;
        draw(&format!("\r{}\x1b[K", bar(done, all, words)));
        self.is_drawn = true;
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            draw("\r\x1b[K");
        }
    }
}

impl Drop for Narration {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What was not said a moment ago.
fn news<'a>(before: &[String], now: &'a [String]) -> impl Iterator<Item = &'a String> {
    now.iter().filter(|part| !before.contains(part))
}

fn draw(text: &str) {
    let mut stderr = io::stderr().lock();
    // Where that is not taken there is nobody else to tell.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// One line: nothing of `text` moves the cursor.
fn bar(done: u64, all: u64, text: &str) -> String {
    let full = done.min(all).saturating_mul(CELLS);
    let full = full.checked_div(all).unwrap_or_default();
    let cells: String = (0..CELLS)
        .map(|cell| if cell < full { '#' } else { '-' })
        .collect();
    let line = format!("[{cells}] {}", printable(text).replace('\n', " "));
    line.chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_and_stays_one_line() {
        assert_eq!(bar(0, 3, "0 of 3"), "[--------------------] 0 of 3");
        assert_eq!(bar(1, 4, "1 of 4"), "[#####---------------] 1 of 4");
        assert_eq!(bar(9, 4, "done"), "[####################] done");
        assert_eq!(bar(0, 0, "nobody"), "[--------------------] nobody");
        let parts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (before, now) = (parts(&["a", "b"]), parts(&["b", "c"]));
        assert_eq!(
            news(&before, &now).collect::<Vec<_>>(),
            ["c"],
            "each is said once"
        );
        let long = bar(1, 2, &format!("a\r\x1b[2Jb\nc{}", "x".repeat(200)));
        assert_eq!(long.chars().count(), WIDTH);
        assert!(!long.contains(char::is_control), "{long:?}");
    }
}
