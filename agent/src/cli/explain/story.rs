//! The steps that were taken, in order, each with its time and its verdict.

use std::time::{Duration, SystemTime};

use signet_runtime::clock::{Clock as _, SystemClock};
use tokio::time::Instant;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is as it should be.
    Fine,
    /// It is why there is no identity.
    Fails,
    /// Worth knowing, and in nobody's way.
    Note,
}

impl State {
    /// For programs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Fails => "fails",
            Self::Note => "note",
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) state: State,
    pub(super) says: String,
    /// What to do; empty where there is nothing.
    pub(super) remedy: String,
    /// When it began.
    pub(super) at: SystemTime,
    /// `None` for what was told by another step.
    pub(super) took: Option<Duration>,
}

/// Why a step fails, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) says: String,
    pub(super) remedy: String,
}

impl Fault {
    pub(super) fn new(says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            says: says.into(),
            remedy: remedy.into(),
        }
    }
}

/// What a step finds, in words, beside what the next one needs.
pub(super) type Checked<T> = Result<(T, String), Fault>;

/// When a step began.
pub(super) type Began = (SystemTime, Instant);

/// All steps.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) steps: Vec<Step>,
    /// When the identity was asked for.
    pub(super) waited: Option<Began>,
}

impl Story {
    pub(super) fn begin(&self) -> Began {
        (SystemClock.now(), Instant::now())
    }

    /// Takes a step; `None` where it fails.
    pub(super) fn step<T>(&mut self, name: &'static str, check: impl FnOnce() -> Checked<T>) -> Option<T> {
        let began = self.begin();
        let checked = check();
        self.since(name, began, checked)
    }

    /// Takes down a step that began then.
    pub(super) fn since<T>(&mut self, name: &'static str, began: Began, checked: Checked<T>) -> Option<T> {
        self.take(name, began.0, Some(began.1.elapsed()), checked)
    }

    /// Takes down what another step has told.
    pub(super) fn told<T>(&mut self, name: &'static str, checked: Checked<T>) -> Option<T> {
        self.take(name, SystemClock.now(), None, checked)
    }

    /// Takes down a step.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        at: SystemTime,
        took: Option<Duration>,
        checked: Checked<T>,
    ) -> Option<T> {
        let (state, says, remedy, next) = match checked {
            Ok((next, says)) => (State::Fine, says, String::new(), Some(next)),
            Err(Fault { says, remedy }) => (State::Fails, says, remedy, None),
        };
        self.steps.push(Step {
            name,
            state,
            says,
            remedy,
            at,
            took,
        });
        next
    }

    /// Takes down something worth knowing.
    pub(super) fn note(&mut self, name: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        self.steps.push(Step {
            name,
            state: State::Note,
            says: says.into(),
            remedy: remedy.into(),
            at: SystemClock.now(),
            took: None,
        });
    }

    /// The first step that fails.
    pub(super) fn fails(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.state == State::Fails)
    }
}
