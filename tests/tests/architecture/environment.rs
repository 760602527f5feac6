//! Which variables of the environment the programs look at: the ones of the table, and nowhere but through it.

use signet_runtime::environment::{VARIABLES, Variable};
use signet_tests::repository::{SourceFile, root, rust_files};

use crate::{paths::named, tokens::shipped};

/// The home of the table, and the library for workloads, which stands without the rest.
const HOMES: [&str; 2] = ["runtime/src/environment.rs", "workload/src/endpoint.rs"];
/// What reads the environment.
const READERS: [&str; 7] = [
    "var",
    "var_os",
    "vars",
    "vars_os",
    "temp_dir",
    "home_dir",
    "option_env",
];

/// Names of functions of `std::env` that shipped code of a file calls.
fn reads(text: &str) -> Vec<String> {
    let named = named(&shipped(text)).into_iter();
    let reader = |parts: &[String]| {
        let (last, before) = parts.split_last()?;
        let is_reader =
            before.last().is_some_and(|module| module == "env") && READERS.contains(&last.as_str());
        is_reader.then(|| last.clone())
    };
    named.filter_map(|path| reader(&path.parts)).collect()
}

/// The binaries and what they consist of; the box of the tests gives its parts an environment of their own.
fn is_shipped(path: &str) -> bool {
    path.contains("src/")
        && !path.starts_with("tests/")
        && !path.starts_with("testkit/")
        && !path.ends_with("tests.rs")
        && !path.contains("/tests/")
}

#[test]
fn the_environment_is_read_through_the_table() {
    for home in HOMES {
        assert!(
            root().join(home).is_file(),
            "{home} is not there: remove it from HOMES"
        );
    }
    for SourceFile { path, text } in rust_files().unwrap() {
        if !is_shipped(&path) || HOMES.contains(&path.as_str()) {
            continue;
        }
        assert_eq!(reads(&text), [""; 0], "{path}: use signet_runtime::environment");
        // The command line reads variables as well.
        let literal = text.lines().find(|line| line.contains("env = \""));
        assert_eq!(
            literal, None,
            "{path}: name a constant of signet_runtime::environment"
        );
    }
    assert_eq!(reads("fn f() { std::env::var(\"X\") }"), ["var"]);
    assert_eq!(reads("use std::env::{self, var_os};"), ["var_os"]);
}

#[test]
fn every_variable_of_a_command_line_is_in_the_table() {
    for command in [signet_server::cli::command(), signet_agent::cli::command()] {
        let mut commands = vec![&command];
        while let Some(command) = commands.pop() {
            for name in command.get_arguments().filter_map(clap::Arg::get_env) {
                let name = name.to_str().unwrap();
                assert!(VARIABLES.iter().any(|variable| variable.name == name), "{name}");
            }
            commands.extend(command.get_subcommands());
        }
    }
}

#[test]
fn the_documentation_has_the_table_of_variables() {
    let page = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let section = page.split("\n## ").find(|part| part.starts_with("Environment\n"));
    let rows = section.unwrap().lines().filter(|line| line.starts_with("| `"));
    let row = |variable: &Variable| {
        let Variable { name, who, meaning } = variable;
        format!("| `{name}` | {who} | {meaning} |")
    };
    assert_eq!(
        rows.collect::<Vec<_>>(),
        VARIABLES.iter().map(row).collect::<Vec<_>>()
    );
}
