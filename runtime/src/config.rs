//! One YAML file per binary: unknown keys refused, every error one line with its place and the remedy.

mod duration;
mod error;
mod report;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_saphyr::{MergeKeyPolicy, Options};

pub use self::duration::{HumanDuration, ParseDurationError};
pub use self::error::{ConfigError, Place};
pub use self::report::{Findings, Report, Validate, load_valid, validate};

/// Largest configuration file that is read, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Reads a configuration file. `T` should carry `#[serde(deny_unknown_fields)]` and, since every key has a working
/// default, `#[serde(default)]`; an empty file then is a complete configuration.
///
/// # Errors
/// When the file is missing, larger than [`MAX_BYTES`], no YAML, or does not fit `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &read(path)?)
}

/// Like [`load`], for text that came from elsewhere; `name` stands for the file in errors.
///
/// # Errors
/// When the text is no YAML or does not fit `T`.
pub fn parse<T: DeserializeOwned>(name: &Path, text: &str) -> Result<T, ConfigError> {
    // An empty document would be null, which no struct accepts.
    let text = if is_blank(text) { "{}" } else { text };
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| ConfigError::from_yaml(name, &error))
}

fn read(path: &Path) -> Result<String, ConfigError> {
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
    use std::path::PathBuf;

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
        format: Option<crate::telemetry::LogFormat>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Listen {
        agents: String,
        admins: String,
    }

    fn error(text: &str) -> String {
        let error = parse::<Sample>(Path::new("server.yaml"), text)
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    #[test]
    fn a_full_file_and_an_empty_one_are_read() {
        let text = "trust_domain: example.org\nsvid_ttl: 90m\nlisten:\n  agents: 0.0.0.0:8443\nlimit: 7\nenabled: true\nformat: json\n";
        let sample: Sample = parse(Path::new("x"), text).unwrap();
        assert_eq!(sample.svid_ttl.get().as_secs(), 5_400);
        assert_eq!(sample.listen.agents, "0.0.0.0:8443");
        assert_eq!((sample.limit, sample.enabled), (7, true));
        for empty in ["", "\n# nothing set\n", "---\n"] {
            assert_eq!(parse::<Sample>(Path::new("x"), empty).unwrap(), Sample::default());
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
        assert_eq!(
            error("trust_domain: a\nlisten:\n  agnets: x\n"),
            "server.yaml:3:3: unknown key `agnets`; did you mean `agents`?"
        );
        assert_eq!(
            error("zzz: 1\n"),
            "server.yaml:1:1: unknown key `zzz`; the keys here are trust_domain, svid_ttl, listen, limit, enabled, format"
        );
    }

    #[test]
    fn a_bad_duration_says_how_to_write_one() {
        assert_eq!(
            error("limit: 1\nsvid_ttl: 90\n"),
            "server.yaml:2:11: `90` is not a duration: it has no unit; write for example 90s, 2m, 1h30m or 7d"
        );
        assert!(error("svid_ttl: -5m\n").contains("`-5m` is not a duration"));
        assert!(error("svid_ttl: [1]\n").starts_with("server.yaml:1:11: "));
    }

    #[test]
    fn a_wrong_type_says_what_was_expected() {
        assert_eq!(
            error("limit: lots\n"),
            "server.yaml:1:8: expected a whole number from 0 to 65535; correct the value"
        );
        assert!(error("limit: 70000\n").starts_with("server.yaml:1:8: "));
        assert_eq!(
            error("enabled: 3\n"),
            "server.yaml:1:10: expected true or false; correct the value"
        );
        assert!(error("enabled: yes\n").contains("true or false"));
        assert!(error("listen: here\n").starts_with("server.yaml:1:9: "));
        assert_eq!(
            error("format: jsno\n"),
            "server.yaml:1:9: unknown value `jsno`; did you mean `json`?"
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
            "a: &a {limit: 1}\n<<: *a\n",
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
        let missing = load::<Sample>(&path).unwrap_err().to_string();
        assert!(
            missing.ends_with("server.yaml: no such file; create it or name another with --config"),
            "{missing}"
        );
        std::fs::write(&path, "#".repeat(1_048_577)).unwrap();
        let huge = load::<Sample>(&path).unwrap_err().to_string();
        assert!(huge.contains("larger than 1048576 bytes"), "{huge}");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let binary = load::<Sample>(&path).unwrap_err().to_string();
        assert!(binary.contains("not UTF-8"), "{binary}");
        let folder = load::<Sample>(&PathBuf::from(directory.path()))
            .unwrap_err()
            .to_string();
        assert!(folder.contains("directory"), "{folder}");
    }
}
