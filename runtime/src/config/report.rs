//! What is wrong with a configuration, all of it, and how `run` and `validate` say so.

use std::fmt;
use std::path::{Path, PathBuf};

use super::places::{Places, element_of};
use super::{ConfigError, Place};

/// Collects what a check finds, so that a person sees all of it at once.
#[derive(Clone, Debug)]
pub struct Findings {
    file: PathBuf,
    text: String,
    places: Places,
    /// Paths of the parts that could not be read.
    unread: Vec<String>,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
    notes: Vec<ConfigError>,
}

/// Says that an error is among the findings. Only [`Findings::error`] makes one, so nothing is refused without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(());

impl Findings {
    /// No findings yet about `file`.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        Self {
            file: file.into(),
            text: String::new(),
            places: Places::default(),
            unread: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The configuration cannot be used. `key` is written with dots and indices: `listen.agents`, `rules[2].name`.
    pub fn error(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Refused {
        let error = ConfigError::new(self.place(key), problem, remedy);
        self.errors.push(error);
        Refused(())
    }

    /// The configuration can be used, but someone should look at it.
    pub fn warn(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let warning = ConfigError::new(self.place(key), problem, remedy);
        self.warnings.push(warning);
    }

    /// Nothing is wrong with it; whoever checks the file is told what it means, and what follows.
    pub fn note(&mut self, key: &str, meaning: impl Into<String>, consequence: impl Into<String>) {
        let note = ConfigError::new(self.place(key), meaning, consequence);
        self.notes.push(note);
    }

    /// Refuses unless everything at and below `key` could be read. What could not has its default, so a check that holds
    /// several keys against each other asks first, or it would blame what nobody wrote.
    ///
    /// # Errors
    /// When something could not be read; it is among the findings.
    pub fn was_read(&self, key: &str) -> Result<(), Refused> {
        let is_at_or_below = |path: &String| {
            path.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.unread.iter().any(is_at_or_below) {
            return Err(Refused(()));
        }
        Ok(())
    }

    /// The key of an element of `list`, by its index among those that could be read.
    #[must_use]
    pub fn element(&self, list: &str, index: usize) -> String {
        let mut left = index;
        let mut at = 0;
        loop {
            let path = element_of(list, at);
            match (self.unread.contains(&path), left) {
                (true, _) => {}
                (false, 0) => return path,
                (false, _) => left -= 1,
            }
            at += 1;
        }
    }

    /// All that stands in the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn place(&self, key: &str) -> Place {
        Place::key(&self.file, key, self.places.nearest(key))
    }

    pub(super) fn locate(&mut self, places: Places) {
        self.places = places;
    }

    pub(super) fn read_from(&mut self, text: &str) {
        text.clone_into(&mut self.text);
    }

    pub(super) fn unread(&mut self, fault: &super::form::Fault) {
        self.errors
            .push(ConfigError::of_fault(&self.file, fault, &self.places));
        self.unread.push(fault.path.clone());
    }

    pub(super) fn cannot_be_read(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// The value, if nothing is wrong with it.
    pub(super) fn conclude<T>(self, checked: Option<T>) -> Result<(T, Report), Report> {
        match checked {
            Some(value) if self.errors.is_empty() => Ok((value, Report(self))),
            _ => Err(Report(self)),
        }
    }
}

/// The outcome of reading and checking a configuration. Its text has one line per finding, or says that all is well.
#[derive(Clone, Debug)]
pub struct Report(Findings);

impl Report {
    /// For those who find more.
    pub(super) fn reopened(self) -> Findings {
        self.0
    }

    /// Whether the configuration can be used.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.0.errors.is_empty()
    }

    /// What makes it unusable, in the order of the file where the parts of it cannot be read, then as it was checked.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.0.errors
    }

    /// What someone should look at.
    #[must_use]
    pub fn warnings(&self) -> &[ConfigError] {
        &self.0.warnings
    }

    /// The same for programs: `{"ok": …, "file": …, "errors": […], "warnings": […], "notes": […]}`; see [`ConfigError::to_json`].
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let all = |found: &[ConfigError]| found.iter().map(ConfigError::to_json).collect::<Vec<_>>();
        serde_json::json!({
            "ok": self.is_ok(),
            "file": self.0.file.display().to_string(),
            "errors": all(&self.0.errors),
            "warnings": all(&self.0.warnings),
            "notes": all(&self.0.notes),
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
        for note in &self.0.notes {
            writeln!(f, "note: {note}")?;
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

    use super::super::{Configuration, load};
    use super::*;
    use crate::telemetry::LogFormat;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Raw {
        low: u32,
        high: u32,
        name: String,
        words: Vec<Word>,
    }

    #[derive(Debug, Deserialize)]
    struct Word(String);

    #[derive(Debug)]
    struct Range {
        high: u32,
    }

    impl Configuration for Range {
        type Raw = Raw;

        fn check(raw: Raw, findings: &mut Findings) -> Result<Self, Refused> {
            let mut checked = Ok(Self { high: raw.high });
            if raw.low > raw.high && findings.was_read("high").is_ok() {
                checked = Err(findings.error("low", "greater than high", "swap them"));
            }
            for (index, word) in raw.words.iter().enumerate() {
                if word.0.len() > 3 {
                    let key = findings.element("words", index);
                    findings.error(&key, "too long", "use three letters");
                }
            }
            if raw.name.len() > 3 {
                findings.error("name", "too long", "use three letters");
            }
            if raw.high > 100 {
                findings.warn("high", "unusually high", "50 is common");
            }
            if raw.high == 50 {
                findings.note("high", "is half of all", "the rest stays free");
            }
            checked
        }

        fn log_format(&self) -> LogFormat {
            LogFormat::Text
        }
    }

    fn loaded(text: &str) -> (Result<(Range, Report), Report>, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        (load(&path), path)
    }

    #[test]
    fn every_finding_is_shown_with_its_line() {
        let (loaded, path) = loaded("low: 200\nhigh: 101\nname: long\n");
        let (report, shown) = (loaded.unwrap_err(), path.display());
        assert_eq!(
            report.to_string(),
            format!(
                "error: {shown}:1:1: low: greater than high; swap them\n\
                 error: {shown}:3:1: name: too long; use three letters\n\
                 warning: {shown}:2:1: high: unusually high; 50 is common\n"
            )
        );
        let json = report.to_json();
        assert_eq!(json["ok"], false);
        assert_eq!(
            (&json["errors"][1]["key"], &json["errors"][1]["line"]),
            (&"name".into(), &3.into())
        );
    }

    #[test]
    fn warnings_leave_it_usable() {
        let (value, report) = loaded("high: 101\n").0.unwrap();
        assert!(
            report.is_ok() && report.to_string().ends_with(": ok\n"),
            "{report}"
        );
        assert_eq!((value.high, report.warnings().len()), (101, 1));
    }

    #[test]
    fn notes_are_told_to_people_and_programs() {
        let (loaded, path) = loaded("high: 50\n");
        let (_, report) = loaded.unwrap();
        let shown = path.display();
        assert_eq!(
            report.to_string(),
            format!("note: {shown}:1:1: high: is half of all; the rest stays free\n{shown}: ok\n")
        );
        assert_eq!(report.to_json()["notes"][0]["message"], "is half of all");
    }

    #[test]
    fn what_cannot_be_read_is_shown_beside_what_makes_no_sense() {
        let report = loaded("hihg: 1\nlow: x\nname: long\n").0.unwrap_err();
        let keys: Vec<_> = report.to_json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["key"].clone())
            .collect();
        assert_eq!(keys, ["hihg", "low", "name"], "{report}");
        assert!(report.to_string().contains("did you mean `high`?"));
        // `low` is above the default of what could not be read; that is nobody's fault.
        let report = loaded("high: x\nlow: 7\n").0.unwrap_err();
        assert_eq!(report.errors().len(), 1, "{report}");
    }

    #[test]
    fn elements_keep_their_place_when_others_cannot_be_read() {
        let report = loaded("words: [[a], b, long, [c], longer]\n").0.unwrap_err();
        let text = report.to_string();
        for place in ["words[0]", "words[2]", "words[3]", "words[4]"] {
            assert!(text.contains(place), "{text}");
        }
        assert_eq!(report.errors().len(), 4, "{text}");
    }

    #[test]
    fn a_file_that_is_not_there_is_the_only_finding() {
        let report = load::<Range>(Path::new("/nowhere/c.yaml")).unwrap_err();
        assert_eq!(report.errors().len(), 1);
        assert_eq!(report.to_json()["errors"][0]["key"], serde_json::Value::Null);
    }
}
