//! What is found in a log.

use std::fmt;

use serde::Serialize;

/// So many faults are told one by one; the others are counted.
const TOLD: usize = 1_000;

/// Which line of which file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Place {
    /// As it was given.
    pub file: String,
    /// Counted from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// In what way a log is not whole.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// A line that no server wrote.
    Foreign,
    /// Lines are missing between two that are there.
    Removed,
    /// A line, or the one before it, is not what it was.
    Changed,
    /// A line stands behind one that was written later.
    Moved,
    /// Something vouches for lines behind the end of the log.
    CutOff,
    /// A head that its key did not sign, or that another key signed.
    Forged,
    /// No head vouches for lines for which there should be one.
    Unsigned,
    /// There is no log, or nothing that could be one.
    NoLog,
}

/// One way in which a log is not whole.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Fault {
    /// Which.
    pub kind: FaultKind,
    /// Where it shows.
    #[serde(flatten)]
    pub at: Option<Place>,
    /// What is the matter, for people.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(place) => write!(f, "{place}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// All of them, in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    told: Vec<Fault>,
    more: u64,
}

impl Faults {
    /// One more.
    pub(super) fn add(&mut self, kind: FaultKind, at: impl Into<Option<Place>>, problem: String) {
        if self.told.len() < TOLD {
            let at = at.into();
            self.told.push(Fault { kind, at, problem });
        } else {
            self.more += 1;
        }
    }

    /// Those that are told one by one.
    pub(crate) fn told(&self) -> &[Fault] {
        &self.told
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.told.len() as u64 + self.more
    }
}

/// The log of one server.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct ServerLog {
    /// Whose: the first member of its lines.
    pub server: String,
    /// Different lines.
    pub lines: u64,
    /// How many lines were there already, as after a crash, or when files overlap.
    pub repeated: u64,
    /// The sequences of its first line and of its last.
    pub first: u64,
    pub last: u64,
    /// When these were written.
    pub first_time: String,
    pub last_time: String,
    /// The boots of these: how often the server was started.
    pub first_boot: u64,
    pub last_boot: u64,
    /// Heads that were verified.
    pub heads: u64,
    /// Up to which sequence heads, or the server, vouch for it.
    pub vouched_to: Option<u64>,
    /// Ids of the keys that signed its heads.
    pub keys: Vec<String>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// By server.
    pub servers: Vec<ServerLog>,
    /// Beginnings of lines: a server ended while it wrote them.
    pub halves: Vec<Place>,
    /// In what ways it is not whole.
    pub faults: Faults,
}
