//! What every command of both binaries owes to programs.

use clap::Command;
use serde_json::{Value, json};
use signet_tests::process::{Finished, binary, run};

/// Commands without an answer. `run` serves until it is told to stop; what it may write to standard output are the lines
/// of the audit log, which are JSON in any case. So does `write`, whose answer are the files.
const SILENT: [&str; 2] = ["run", "write"];

/// The commands that do something, each with the words that lead to it.
pub(crate) fn leaves(command: &Command) -> Vec<(String, &Command)> {
    let mut found = Vec::new();
    for child in command.get_subcommands() {
        if child.has_subcommands() {
            let below = leaves(child).into_iter();
            found.extend(below.map(|(name, leaf)| (format!("{} {name}", child.get_name()), leaf)));
        } else {
            found.push((child.get_name().to_owned(), child));
        }
    }
    found
}

fn takes_output_json(command: &Command) -> bool {
    command
        .get_arguments()
        .filter(|argument| argument.get_long() == Some("output"))
        .any(|argument| {
            let values = argument.get_possible_values();
            let json = values.iter().any(|value| value.get_name() == "json");
            json && argument.get_default_values() == ["table"]
        })
}

#[test]
fn every_command_takes_output_json() {
    for (command, expected) in [
        (
            signet_server::cli::command(),
            ["run", "validate", "ca rotate", "svid list", "agent list"],
        ),
        (
            signet_agent::cli::command(),
            ["run", "validate", "status", "healthcheck", "fetch x509"],
        ),
    ] {
        let leaves = leaves(&command);
        let program = command.get_name();
        for name in expected {
            assert!(
                leaves.iter().any(|(leaf, _)| leaf == name),
                "{program} has no {name}"
            );
        }
        for (name, leaf) in leaves {
            let silent = SILENT.contains(&name.as_str());
            assert_eq!(
                takes_output_json(leaf),
                !silent,
                "{program} {name}: --output json, with tables by default, unless it has no answer"
            );
        }
    }
}

async fn on(program: &str, words: &[&str], yaml: &str) -> Finished {
    let folder = signet_testkit::folder();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, yaml).unwrap();
    let config = ["--config", path.to_str().unwrap()];
    run(&binary(program), words.iter().chain(&config), &[])
        .await
        .unwrap()
}

/// Three faults of three kinds: a key that is not one, a value of the wrong form, a value that makes no sense.
fn faulty(program: &str) -> (&'static str, [(&'static str, u64); 3]) {
    match program {
        "signet-server" => (
            "trust_domain: example.org\nsvid:\n  tll: 1h\n  max_live: 1\ncrl: {max_bytes: lots}\n",
            [("svid.tll", 3), ("crl.max_bytes", 5), ("svid.max_live", 4)],
        ),
        _ => (
            "trust_domain: example.org\nclster: x\nserver:\n  address: nowhere\ntelemetry: {listen: here}\n",
            [("clster", 2), ("telemetry.listen", 5), ("server.address", 4)],
        ),
    }
}

#[tokio::test]
async fn validate_tells_programs_every_fault_at_once() {
    for program in ["signet-server", "signet-agent"] {
        let (yaml, expected) = faulty(program);
        let said = on(program, &["validate", "--output", "json"], yaml).await;
        assert_eq!(said.status.code(), Some(78), "{program}: {}", said.stderr);
        assert_eq!(said.stderr, "", "{program}");
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((&report["ok"], &report["warnings"]), (&json!(false), &json!([])));
        let errors = report["errors"].as_array().unwrap();
        let places: Vec<_> = errors
            .iter()
            .map(|error| (error["key"].as_str().unwrap(), error["line"].as_u64().unwrap()))
            .collect();
        assert_eq!(places, expected, "{program}");
        for error in errors {
            for part in ["message", "remedy"] {
                let text = error[part].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{program}: no {part} in {error}");
            }
        }
        let good = on(
            program,
            &["validate", "--file-only", "-o", "json"],
            "trust_domain: example.org\n",
        )
        .await;
        let report: Value = serde_json::from_str(&good.stdout).unwrap();
        assert!(good.status.success(), "{program}: {}", good.stderr);
        assert_eq!((&report["ok"], &report["errors"]), (&json!(true), &json!([])));
    }
}

#[tokio::test]
async fn validate_and_run_tell_people_the_same() {
    for program in ["signet-server", "signet-agent"] {
        let (yaml, expected) = faulty(program);
        for (words, prefix) in [
            ("validate", "error: ".to_owned()),
            ("run", format!("{program}: ")),
        ] {
            let said = on(program, &[words], yaml).await;
            assert_eq!(said.status.code(), Some(78), "{program} {words}: {}", said.stderr);
            assert_eq!(said.stdout, "", "{program} {words}");
            let lines: Vec<_> = said.stderr.lines().collect();
            assert_eq!(lines.len(), expected.len(), "{program} {words}: {}", said.stderr);
            for (line, (key, at)) in lines.into_iter().zip(expected) {
                assert!(line.starts_with(&prefix), "{program} {words}: {line}");
                assert!(
                    line.contains(&format!("config.yaml:{at}:")) && line.contains(&format!(": {key}: ")),
                    "{program} {words}: {line}"
                );
            }
        }
    }
}
