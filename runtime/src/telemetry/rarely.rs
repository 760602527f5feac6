//! Lines that callers can cause, in any number: each place of the code tells some of one caller at once and then one in a while, and so
//! for all callers together. What is left out is counted, and the number told.
//!
//! Which lines a caller can cause changes with every change of the code, so all of them pass here. The audit log has its own way out,
//! and its own samples.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::bucket::{Buckets, Rate};
use crate::sync::Mutex;

/// Lines of one place about one caller.
const CALLERS: Rate = Rate {
    per_second: 0.1,
    burst: 8.0,
};
/// Lines of one place about all callers: a node of 250 pods, each of which has something to say when the node starts, is within it.
const PLACES: Rate = Rate {
    per_second: 1.0,
    burst: 512.0,
};
/// Callers that are told apart at once; those beyond share.
const MOST_CALLERS: usize = 8_192;
/// Shortest time between two tellings of what was left out.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// The fields that say whom a line is about, the first of them that it has; a line without is about nobody in particular.
const WHO: &[&str] = &[
    "agent",
    "caller",
    "workload",
    "volume",
    "volume_id",
    "pod",
    "spiffe_id",
    "peer",
    "address",
    "cluster",
    "authority",
    "authority_id",
    "listener",
    "door",
    "path",
];
/// The target of lines that say what is missing from the log.
pub(super) const NEVER_LEFT_OUT: &str = module_path!();
/// More of a caller's name tells nobody apart, and is kept by nobody.
const NAME_BYTES: usize = 256;

/// Lets some of each kind of line through, and counts the others. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Rarely(Arc<Lines>);

#[derive(Debug)]
struct Lines {
    callers: Buckets<(Identifier, String)>,
    places: Buckets<Identifier>,
    left_out: Mutex<HashMap<Identifier, LeftOut>>,
}

/// What was left out at one place since that was told.
#[derive(Debug)]
struct LeftOut {
    metadata: &'static Metadata<'static>,
    message: String,
    /// Whom the last of them was about.
    last: String,
    lines: u64,
}

impl Default for Rarely {
    fn default() -> Self {
        Self(Arc::new(Lines {
            callers: Buckets::new(CALLERS, MOST_CALLERS),
            places: Buckets::new(PLACES, MOST_CALLERS),
            left_out: Mutex::default(),
        }))
    }
}

impl Rarely {
    /// Tells how many lines were left out at each place, once in a while, for ever.
    pub async fn tell(self) {
        loop {
            tokio::time::sleep(TOLD_EVERY).await;
            self.tell_now();
        }
    }

    /// Tells how many lines were left out at each place since the last time.
    pub fn tell_now(&self) {
        let left_out = std::mem::take(&mut *self.0.left_out.lock());
        for LeftOut {
            metadata,
            message,
            last,
            lines,
        } in left_out.into_values()
        {
            let module = metadata.target();
            tracing::warn!(
                module,
                what = message,
                last,
                left_out = lines,
                "lines were left out"
            );
        }
    }

    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // What somebody asked for to look closely comes in full, and so does what is said here.
        if *metadata.level() > Level::INFO || metadata.target() == NEVER_LEFT_OUT {
            return true;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let (place, caller) = (metadata.callsite(), said.who);
        if self.0.callers.take((place.clone(), caller.clone())).is_ok()
            && self.0.places.take(place.clone()).is_ok()
        {
            return true;
        }
        let mut left_out = self.0.left_out.lock();
        let known = left_out.entry(place).or_insert_with(|| LeftOut {
            metadata,
            message: said.message,
            last: String::new(),
            lines: 0,
        });
        known.lines += 1;
        known.last = caller;
        false
    }
}

impl<S: Subscriber> Layer<S> for Rarely {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.admits(event)
    }
}

/// What a line says, and about whom.
#[derive(Debug)]
struct Said {
    message: String,
    who: String,
    /// Place of the field that says so among [`WHO`].
    rank: usize,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            message: String::new(),
            who: String::new(),
            rank: WHO.len(),
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = short(format_args!("{value:?}"));
        } else if let Some(rank) = WHO.iter().position(|name| *name == field.name())
            && rank < self.rank
        {
            self.rank = rank;
            self.who = short(format_args!("{value:?}"));
        }
    }
}

/// The beginning of a text, which is written no further than that.
fn short(text: fmt::Arguments<'_>) -> String {
    let mut short = Short(String::new());
    // It fails where it is cut off.
    let _ = short.write_fmt(text);
    short.0
}

struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = NAME_BYTES.saturating_sub(self.0.len());
        let cut = text.floor_char_boundary(room);
        self.0.push_str(text.get(..cut).unwrap_or_default());
        if cut < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::Connection;
    use crate::telemetry::LogFormat;
    use crate::telemetry::captured::Captured;

    /// The lines that `work` leaves.
    fn lines(rarely: &Rarely, work: impl FnOnce()) -> Vec<String> {
        let log = Captured::new(LogFormat::Text, "trace", rarely.clone());
        work();
        log.lines()
    }

    fn skewed(agent: &str, skew_ms: u64) {
        tracing::warn!(agent, skew_ms, "an agent's clock is off");
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_leaves_few_lines_and_a_number_and_takes_nobody_elses() {
        let rarely = Rarely::default();
        let told = lines(&rarely, || (0..1000).for_each(|n| skewed("a", n)));
        assert_eq!(told.len(), 8);
        let others = lines(&rarely, || {
            skewed("b", 1);
            (0..1000).for_each(|_| tracing::error!("nobody in particular"));
            (0..20).for_each(|_| tracing::debug!(agent = "a", "looked at closely"));
        });
        assert_eq!(others.len(), 1 + 8 + 20);
        let left_out = lines(&rarely, || rarely.tell_now());
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        let skewed_out = left_out.iter().find(|line| line.contains("clock is off"));
        let line = skewed_out.unwrap_or_else(|| panic!("{left_out:?}"));
        assert!(
            line.contains("left_out=992") && line.contains("last=\"a\""),
            "{line}"
        );
        assert!(lines(&rarely, || rarely.tell_now()).is_empty(), "it is told once");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(lines(&rarely, || (0..9).for_each(|n| skewed("a", n))).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_of_ever_new_names_has_what_one_place_has() {
        let rarely = Rarely::default();
        let renamed = || (0..5000).for_each(|n| skewed(&format!("{n}{}", "x".repeat(5000)), n));
        assert_eq!(lines(&rarely, renamed).len(), 512);
        assert!(
            rarely
                .0
                .left_out
                .lock()
                .values()
                .all(|left_out| left_out.last.len() <= NAME_BYTES)
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            lines(&rarely, || (0..500).for_each(|n| skewed(&format!("{n}b"), n))).len(),
            60
        );
    }

    /// Whoever connects anew for each line is the same caller all the same.
    #[tokio::test(start_paused = true)]
    async fn the_spans_of_a_line_make_no_other_caller_of_it() {
        let rarely = Rarely::default();
        let told = lines(&rarely, || {
            for n in 0..100 {
                let connection = Connection::new("agents").with(n);
                connection.call("/x/Hello").in_scope(|| skewed("a", n));
            }
        });
        assert_eq!(told.len(), 8);
        assert!(told[7].contains("peer=7}:call{rpc=\"Hello\" number="), "{told:?}");
    }
}
