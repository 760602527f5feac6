//! Where rules come from: the configuration file, read as it is at the moment.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use signet_runtime::config;

use crate::rules::WrittenRules;

/// A file, and who knows how to read rules in it.
#[derive(Clone)]
pub(crate) struct Source {
    path: PathBuf,
    check: Arc<Check>,
}

type Check = dyn Fn(&str) -> Result<Checked, String> + Send + Sync;

/// What a sound file says.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Its rules.
    pub rules: WrittenRules,
    /// Keys beside them that have changed since the start.
    pub restart_for: Vec<String>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// Why the rules of a file are not in force.
#[derive(Clone, Debug)]
pub(super) struct Unusable {
    /// For people.
    pub(super) problem: String,
    /// The rules, where only those of admins stand in their way.
    pub(super) rules: Option<WrittenRules>,
}

impl Unusable {
    /// Of which no rules are known.
    pub(super) fn all(problem: String) -> Self {
        Self { problem, rules: None }
    }
}

/// All of the file, or why it cannot be read.
pub(super) type Reading = Result<Arc<str>, String>;

impl Source {
    /// `check` judges the text of a file; its error is for people and names the place.
    pub(crate) fn new(
        path: &Path,
        check: impl Fn(&str) -> Result<Checked, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            path: path.to_owned(),
            check: Arc::new(check),
        }
    }

    /// Blocks.
    pub(super) fn read(&self) -> Reading {
        // Opening a pipe would wait for its writer.
        if self
            .path
            .metadata()
            .is_ok_and(|found| !found.is_file() && !found.is_dir())
        {
            return Err(format!("{}: it is no file", self.path.display()));
        }
        let text = config::read(&self.path).map_err(|error| error.to_string())?;
        Ok(text.into())
    }

    /// Takes a moment for thousands of rules: blocks.
    pub(super) fn check(&self, text: &str) -> Result<Checked, String> {
        (self.check)(text)
    }
}
