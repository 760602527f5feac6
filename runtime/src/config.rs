//! One YAML file per binary: unknown keys refused, everything that is wrong with it said at once, each with its place and
//! the remedy.
//!
//! A file is read into a raw type, which says what may be written, and checked into a [`Configuration`], whose values are
//! known to make sense. The raw type never leaves the module that checks it.

mod differing;
mod duration;
mod error;
mod form;
mod places;
mod report;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_saphyr::{MergeKeyPolicy, Options};

use self::places::Places;
use crate::telemetry::LogFormat;
use crate::trial::{self, Trial, Weight};

pub use self::differing::differing_keys;
pub use self::duration::{HumanDuration, ParseDurationError};
pub use self::error::{ConfigError, Place};
pub use self::report::{Findings, Refused, Report};

/// Largest configuration file that is read, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// A configuration that is known to make sense.
pub trait Configuration: Sized {
    /// The file as written. It carries `#[serde(deny_unknown_fields, default)]`: every key has a default, so that a faulty
    /// one can be left out while the others are read and checked.
    type Raw: DeserializeOwned;

    /// Judges all of it and adds to `findings` whatever is wrong or unwise. Reads no files and opens no sockets.
    ///
    /// # Errors
    /// When some part cannot be made; other errors may be among the findings though it can.
    fn check(raw: Self::Raw, findings: &mut Findings) -> Result<Self, Refused>;

    /// How diagnostic logs are written.
    fn log_format(&self) -> LogFormat;
}

/// Reads and checks a configuration. The report of a good one holds its warnings.
///
/// # Errors
/// Everything that is wrong: the file is missing, larger than [`MAX_BYTES`], no YAML, does not fit [`Configuration::Raw`],
/// or makes no sense.
pub fn load<C: Configuration>(path: &Path) -> Result<(C, Report), Report> {
    match read(path) {
        Ok(text) => check(path, &text),
        Err(error) => {
            let mut findings = Findings::new(path);
            findings.cannot_be_read(error);
            findings.conclude(None)
        }
    }
}

/// As [`load`], of a text that was read from `path`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check<C: Configuration>(path: &Path, text: &str) -> Result<(C, Report), Report> {
    let mut findings = Findings::new(path);
    let checked = parse::<C::Raw>(text, &mut findings).and_then(|raw| C::check(raw, &mut findings).ok());
    findings.conclude(checked)
}

/// Whether what another process holds, or what comes later, is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doubts {
    /// As warnings.
    Told,
    /// A process that starts finds out for itself.
    LeftToTheStart,
}

/// As [`load`], and tries what the configuration names on this machine.
///
/// # Errors
/// Everything that is wrong, the paths that cannot be used among it.
pub fn load_and_try<C: Configuration>(
    path: &Path,
    trials: impl FnOnce(&C) -> Vec<Trial<'_>>,
    doubts: Doubts,
) -> Result<(C, Report), Report> {
    let (config, report) = load::<C>(path)?;
    let mut findings = report.reopened();
    for found in trial::all(&trials(&config)) {
        match (found.weight, doubts) {
            (Weight::Fault, _) => {
                findings.error(&found.key, found.problem, found.remedy);
            }
            (Weight::Advice, _) | (Weight::Doubt, Doubts::Told) => {
                findings.warn(&found.key, found.problem, found.remedy);
            }
            (Weight::Doubt, Doubts::LeftToTheStart) => {}
        }
    }
    findings.conclude(Some(config))
}

/// Reads `text` as far as it can be read.
fn parse<T: DeserializeOwned>(text: &str, findings: &mut Findings) -> Option<T> {
    // An empty document would be null, which no struct accepts.
    let text = if is_blank(text) { "{}" } else { text };
    let (value, faults) = form::read(text, options);
    findings.locate(Places::of(text, options()));
    findings.read_from(text);
    for fault in &faults {
        findings.unread(fault);
    }
    value
}

/// The text of a configuration file. Blocks.
///
/// # Errors
/// It is missing, unreadable, no file, larger than [`MAX_BYTES`], or not UTF-8.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error: &io::Error| ConfigError::unreadable(path, error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::new(
            Place::file(path),
            format!("the file is larger than {MAX_BYTES} bytes"),
            "is it the right file?",
        ));
    }
    Ok(text)
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    })
}

/// Strict where YAML is loose: no merge keys, no tags of others, `yes` is a word and not a truth value. Duplicate keys
/// are an error by default.
fn options() -> Options {
    serde_saphyr::options! {
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        strict_booleans: true,
        with_snippet: false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        trust_domain: String,
        svid_ttl: HumanDuration,
        listen: Listen,
        limit: u16,
        enabled: bool,
        format: Option<LogFormat>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Listen {
        agents: String,
        admins: String,
    }

    /// What is said about the one fault of a text.
    fn error(text: &str) -> String {
        let mut findings = Findings::new(Path::new("server.yaml"));
        let value = parse::<Sample>(text, &mut findings);
        let report = findings.conclude(value).unwrap_err();
        assert_eq!(report.errors().len(), 1, "{report}");
        let error = report.errors()[0].to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    fn good(text: &str) -> Sample {
        let mut findings = Findings::new(Path::new("server.yaml"));
        let value = parse(text, &mut findings);
        findings.conclude(value).unwrap().0
    }

    #[test]
    fn a_full_file_and_an_empty_one_are_read() {
        let text = "trust_domain: example.org\nsvid_ttl: 90m\nlisten:\n  agents: 0.0.0.0:8443\nlimit: 7\nenabled: true\nformat: json\n";
        let sample = good(text);
        assert_eq!(sample.svid_ttl.get().as_secs(), 5_400);
        assert_eq!(sample.listen.agents, "0.0.0.0:8443");
        assert_eq!((sample.limit, sample.enabled), (7, true));
        for empty in ["", "\n# nothing set\n", "---\n"] {
            assert_eq!(good(empty), Sample::default());
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
        assert_eq!(
            error("trust_domain: a\nlisten:\n  agnets: x\n"),
            "server.yaml:3:3: listen.agnets: unknown key `agnets`; did you mean `agents`?"
        );
        assert_eq!(
            error("zzz: 1\n"),
            "server.yaml:1:1: zzz: unknown key `zzz`; the keys here are trust_domain, svid_ttl, listen, limit, enabled, format"
        );
    }

    #[test]
    fn a_bad_duration_says_how_to_write_one() {
        assert_eq!(
            error("limit: 1\nsvid_ttl: 90\n"),
            "server.yaml:2:11: svid_ttl: `90` is not a duration: it has no unit; write for example 90s, 2m, 1h30m or 7d"
        );
        assert!(error("svid_ttl: -5m\n").contains("`-5m` is not a duration"));
        assert!(error("svid_ttl: [1]\n").starts_with("server.yaml:1:11: "));
    }

    #[test]
    fn a_wrong_type_says_what_was_expected() {
        assert_eq!(
            error("limit: lots\n"),
            "server.yaml:1:8: limit: expected a whole number from 0 to 65535; correct the value"
        );
        assert!(error("limit: 70000\n").starts_with("server.yaml:1:8: "));
        assert_eq!(
            error("enabled: 3\n"),
            "server.yaml:1:10: enabled: expected true or false; correct the value"
        );
        assert!(error("enabled: yes\n").contains("true or false"));
        assert!(error("listen: here\n").starts_with("server.yaml:1:9: "));
        assert_eq!(
            error("format: jsno\n"),
            "server.yaml:1:9: format: unknown value `jsno`; did you mean `json`?"
        );
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        assert_eq!(
            error("limit: 1\nenabled: true\nlimit: 2\n"),
            "server.yaml:3:1: the key `limit` is given twice; remove one of them"
        );
    }

    #[test]
    fn broken_yaml_merge_keys_and_second_documents_are_refused() {
        for text in [
            "listen: {agents: x\n",
            "listen: &a {agents: x}\n<<: *a\n",
            "limit: 1\n---\nlimit: 2\n",
            "limit: !x 1\n",
        ] {
            assert!(error(text).starts_with("server.yaml:"), "{text}");
        }
    }

    #[test]
    fn a_missing_file_and_a_huge_one_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.yaml");
        let missing = read(&path).unwrap_err().to_string();
        assert!(
            missing.ends_with("server.yaml: no such file; create it or name another with --config"),
            "{missing}"
        );
        std::fs::write(&path, "#".repeat(1_048_577)).unwrap();
        let huge = read(&path).unwrap_err().to_string();
        assert!(huge.contains("larger than 1048576 bytes"), "{huge}");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let binary = read(&path).unwrap_err().to_string();
        assert!(binary.contains("not UTF-8"), "{binary}");
        let folder = read(directory.path()).unwrap_err().to_string();
        assert!(folder.contains("directory"), "{folder}");
    }
}
