//! What a person reads when the configuration is wrong.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_saphyr::{Error as YamlError, MessageFormatter, UserMessageFormatter};

use super::form::Fault;
use super::places::Places;
use crate::error::one_line;

/// Where in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: PathBuf,
    line_and_column: Option<(u64, u64)>,
    key: Option<String>,
}

impl Place {
    /// The file as a whole.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self {
            file: path.into(),
            line_and_column: None,
            key: None,
        }
    }

    /// A key of the file, written with dots and indices: `listen.agents`, `rules[2].name`. Line and column are counted
    /// from 1; there are none for a key that the file does not have and that stands in nothing it has.
    #[must_use]
    pub fn key(path: &Path, key: impl Into<String>, line_and_column: Option<(u64, u64)>) -> Self {
        Self {
            line_and_column,
            key: Some(key.into()).filter(|key| !key.is_empty()),
            ..Self::file(path)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.line_and_column {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        Ok(())
    }
}

/// A configuration that cannot be used: one line that says where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    place: Place,
    problem: String,
    remedy: String,
}

impl ConfigError {
    /// An error found by whoever validates a configuration. `problem` says what is wrong, `remedy` what to do.
    #[must_use]
    pub fn new(place: Place, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            place,
            problem: joined(&problem.into()),
            remedy: joined(&remedy.into()),
        }
    }

    /// For programs: `{"key": …, "line": …, "column": …, "message": …, "remedy": …}`, `null` where there is nothing.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let position = self.place.line_and_column;
        serde_json::json!({
            "key": self.place.key,
            "line": position.map(|(line, _)| line),
            "column": position.map(|(_, column)| column),
            "message": self.problem,
            "remedy": Some(&self.remedy).filter(|remedy| !remedy.is_empty()),
        })
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let (problem, remedy) = match error.kind() {
            io::ErrorKind::NotFound => ("no such file".into(), "create it or name another with --config"),
            io::ErrorKind::PermissionDenied => ("no permission to read it".into(), "check owner and mode"),
            io::ErrorKind::InvalidData => ("not UTF-8 text".into(), "is it the right file?"),
            io::ErrorKind::IsADirectory => ("it is a directory".into(), "name the file in it"),
            _ => (error.to_string(), "is it the right file?"),
        };
        Self::new(Place::file(path), problem, remedy)
    }

    /// A part of the file that cannot be read.
    pub(super) fn of_fault(path: &Path, fault: &Fault, places: &Places) -> Self {
        let error = innermost(&fault.error);
        let of_value = || error.location().map(|at| (at.line(), at.column()));
        let of_key = || places.nearest(&fault.path);
        let position = match error {
            // serde says these of the key, after the parser has gone on.
            YamlError::SerdeUnknownField { .. } | YamlError::SerdeMissingField { .. } => {
                of_key().or_else(of_value)
            }
            _ => of_value().or_else(of_key),
        };
        let (problem, remedy) = explain(error);
        Self::new(Place::key(path, fault.path.as_str(), position), problem, remedy)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

fn innermost(error: &YamlError) -> &YamlError {
    match error.without_snippet() {
        YamlError::AliasError { error, .. } => innermost(error),
        error => error,
    }
}

fn explain(error: &YamlError) -> (String, String) {
    let correct = || "correct the value".to_owned();
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), nearest(field, expected, "keys"))
        }
        YamlError::SerdeUnknownVariant {
            variant, expected, ..
        } => (
            format!("unknown value `{variant}`"),
            nearest(variant, expected, "values"),
        ),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => (
            format!("the key `{key}` is given twice"),
            "remove one of them".into(),
        ),
        YamlError::SerdeMissingField { field, .. } => {
            (format!("the key `{field}` is missing"), "add it".into())
        }
        YamlError::InvalidScalar { ty, .. } => (format!("expected {}", type_name(ty)), correct()),
        YamlError::InvalidBooleanStrict { .. } => ("expected true or false".into(), correct()),
        YamlError::SerdeInvalidType {
            unexpected, expected, ..
        } => (format!("expected {expected}, found {unexpected}"), correct()),
        YamlError::MultipleDocuments { .. } => (
            "a second document begins here".into(),
            "keep one `---` at most".into(),
        ),
        // Messages of our own types (HumanDuration and the like) end with their remedy.
        YamlError::Message { msg, .. } => match msg.rsplit_once("; ") {
            Some((problem, remedy)) => (problem.to_owned(), remedy.to_owned()),
            None => (msg.clone(), correct()),
        },
        other => (
            UserMessageFormatter.format_message(other).into_owned(),
            "correct the YAML".into(),
        ),
    }
}

/// Rust's names of types mean nothing to an operator.
fn type_name(name: &str) -> String {
    let whole = |low: i128, high: u128| format!("a whole number from {low} to {high}");
    match name {
        "bool" | "boolean" => "true or false".into(),
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" | "usize" | "u128" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        other => other.into(),
    }
}

/// Suggests the nearest of the valid names, or lists them when none is near.
fn nearest(given: &str, valid: &[&str], what: &str) -> String {
    let near = valid
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&given.to_lowercase(), name), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= (name.len().max(given.len()) / 3).max(1));
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if valid.is_empty() => format!("there are no {what} here"),
        None => format!("the {what} here are {}", valid.join(", ")),
    }
}

/// One line of what may have several: parsers show the place in the text.
fn joined(text: &str) -> String {
    one_line(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_listed() {
        let valid = ["trust_domain", "listen", "ttl"];
        assert_eq!(
            nearest("trustdomain", &valid, "keys"),
            "did you mean `trust_domain`?"
        );
        assert_eq!(nearest("Listen", &valid, "keys"), "did you mean `listen`?");
        assert_eq!(nearest("tll", &valid, "keys"), "did you mean `ttl`?");
        assert_eq!(
            nearest("port", &valid, "keys"),
            "the keys here are trust_domain, listen, ttl"
        );
        assert_eq!(nearest("port", &[], "keys"), "there are no keys here");
    }

    #[test]
    fn errors_are_one_line_with_place_and_remedy() {
        let place = |position| Place::key(Path::new("server.yaml"), "ca.ttl", position);
        let error =
            |position| ConfigError::new(place(position), "shorter than\nsix leaves", "raise it above 6h");
        assert_eq!(
            error(None).to_string(),
            "server.yaml: ca.ttl: shorter than six leaves; raise it above 6h"
        );
        assert_eq!(
            error(Some((3, 5))).to_string(),
            "server.yaml:3:5: ca.ttl: shorter than six leaves; raise it above 6h"
        );
        let json = error(Some((3, 5))).to_json();
        assert_eq!(
            json,
            serde_json::json!({
                "key": "ca.ttl", "line": 3, "column": 5, "message": "shorter than six leaves", "remedy": "raise it above 6h",
            })
        );
    }
}
