//! Checks that go beyond syntax, and what `validate` prints.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{ConfigError, Place, load};

/// A configuration that can judge itself.
pub trait Validate {
    /// Adds what is wrong or unwise to `findings`. Reads no files and opens no sockets unless the key names one.
    fn validate(&self, findings: &mut Findings);
}

/// Collects what a validation finds, so that a person sees all of it at once.
#[derive(Clone, Debug)]
pub struct Findings {
    file: PathBuf,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl Findings {
    /// No findings yet about `file`.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        Self {
            file: file.into(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The configuration cannot be used. `key` is written with dots: `listen.agents`.
    pub fn error(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.errors
            .push(ConfigError::new(Place::key(&self.file, key), problem, remedy));
    }

    /// The configuration can be used, but someone should look at it.
    pub fn warn(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.warnings
            .push(ConfigError::new(Place::key(&self.file, key), problem, remedy));
    }
}

/// Reads and validates a configuration.
///
/// # Errors
/// The first thing that makes it unusable. Warnings are returned beside the value, to be logged.
pub fn load_valid<T: DeserializeOwned + Validate>(path: &Path) -> Result<(T, Vec<ConfigError>), ConfigError> {
    let value: T = load(path)?;
    let mut findings = Findings::new(path);
    value.validate(&mut findings);
    match findings.errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok((value, findings.warnings)),
    }
}

/// Reads and validates a configuration and says everything there is to say about it.
#[must_use]
pub fn validate<T: DeserializeOwned + Validate>(path: &Path) -> Report {
    let mut findings = Findings::new(path);
    match load::<T>(path) {
        Ok(value) => value.validate(&mut findings),
        Err(error) => findings.errors.push(error),
    }
    Report(findings)
}

/// The outcome of a validation. Its text has one line per finding, or says that all is well.
#[derive(Clone, Debug)]
pub struct Report(Findings);

impl Report {
    /// Whether the configuration can be used.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.0.errors.is_empty()
    }

    /// The exit code that goes with it: [`exit::OK`](crate::exit::OK) or [`exit::CONFIG`](crate::exit::CONFIG).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.is_ok() {
            crate::exit::OK
        } else {
            crate::exit::CONFIG
        }
    }

    /// The same for programs: `{"ok": …, "errors": […], "warnings": […]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let lines = |found: &[ConfigError]| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        serde_json::json!({
            "ok": self.is_ok(),
            "errors": lines(&self.0.errors),
            "warnings": lines(&self.0.warnings),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.0.errors {
            writeln!(f, "error: {error}")?;
        }
        for warning in &self.0.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if self.is_ok() {
            writeln!(f, "{}: ok", self.0.file.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        low: u32,
        high: u32,
    }

    impl Validate for Sample {
        fn validate(&self, findings: &mut Findings) {
            if self.low > self.high {
                findings.error("low", "greater than high", "swap them");
            }
            if self.high > 100 {
                findings.warn("high", "unusually high", "50 is common");
            }
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn every_finding_is_shown() {
        let (_directory, path) = file("low: 200\nhigh: 101\n");
        let report = validate::<Sample>(&path);
        let shown = path.display();
        assert_eq!(
            report.to_string(),
            format!(
                "error: {shown}: low: greater than high; swap them\nwarning: {shown}: high: unusually high; 50 is common\n"
            )
        );
        assert_eq!(report.exit_code(), 78);
        assert_eq!(report.to_json()["ok"], false);
        assert!(load_valid::<Sample>(&path).is_err());
    }

    #[test]
    fn warnings_leave_it_usable() {
        let (_directory, path) = file("high: 101\n");
        let report = validate::<Sample>(&path);
        assert!(
            report.is_ok() && report.to_string().ends_with(": ok\n"),
            "{report}"
        );
        let (value, warnings) = load_valid::<Sample>(&path).unwrap();
        assert_eq!((value.high, warnings.len()), (101, 1));
    }

    #[test]
    fn what_cannot_be_read_is_the_only_finding() {
        let (_directory, path) = file("hihg: 1\n");
        assert!(
            validate::<Sample>(&path)
                .to_string()
                .contains("did you mean `high`?")
        );
    }
}
