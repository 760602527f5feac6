//! What the program says. It goes on whether or not anybody reads that.

use std::{io, os::fd::AsFd, time::Duration};

use anyhow::Context;
use signet_runtime::output::Lines;

/// Longest wait at the end for a reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Standard output and standard error. Clones are the same.
#[derive(Clone)]
pub(crate) struct Voice {
    out: Lines,
    err: Lines,
}

impl Voice {
    /// Begins to speak.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let unheard = |_| {};
        let out = Lines::to(io::stdout().as_fd(), Default::default(), unheard);
        let err = Lines::to(io::stderr().as_fd(), Default::default(), unheard);
        Ok(Self {
            out: out.context("cannot write to standard output")?,
            err: err.context("cannot write to standard error")?,
        })
    }

    /// For whoever started it.
    pub(crate) fn say(&self, text: &str) {
        self.out.push(format!("{text}\n").as_bytes());
    }

    /// What is not as it should be.
    pub(crate) fn warn(&self, text: &str) {
        self.err.push(format!("{text}\n").as_bytes());
    }

    /// Waits a moment for those who read.
    pub(crate) fn finish(&self) {
        self.out.flush(LAST_WORDS);
        self.err.flush(LAST_WORDS);
    }
}
