//! Thoughts that have one home. A word that shows a second one is refused with the way to the first.

use signet_tests::repository::{SourceFile, rust_files};

use crate::{paths::named, tokens::shipped};

/// The end of a path, the files that may name it, and what everybody else uses.
const HOMES: [(&[&str], &[&str], &str); 4] = [
    (
        &["fs", "rename"],
        &[
            "runtime/src/files.rs",
            "runtime/src/files/set.rs",
            "runtime/src/uds.rs",
        ],
        "signet_runtime::files, which knows about modes, syncing and what a killed process leaves",
    ),
    (&["PoisonError"], &[], "signet_runtime::sync"),
    (&["std", "sync", "Mutex"], &[], "signet_runtime::sync"),
    (
        &["fastrand"],
        // Those of `crash` are drawn from a seed.
        &[
            "runtime/src/files.rs",
            "runtime/src/pace.rs",
            "tests/src/crash.rs",
            "tests/src/crash/load.rs",
        ],
        "signet_runtime::pace::random_unit",
    ),
];

/// What leaves the span of its caller behind.
const SPAWNERS: [&[&str]; 2] = [&["tokio", "spawn"], &["task", "spawn_blocking"]];
/// Tasks that begin a story of their own, each in the span of a worker or a connection.
const BEGINNERS: [&str; 4] = [
    "server/src/api/listener.rs",
    "server/src/app.rs",
    "server/src/audit/emitter.rs",
    "server/src/audit/log.rs",
];

#[test]
fn what_is_spawned_takes_its_story_along() {
    for SourceFile { path, text } in rust_files().unwrap() {
        let is_shipped = ["server/src/", "agent/src/", "runtime/src/"]
            .iter()
            .any(|room| path.starts_with(room));
        let is_test = path.contains("/suite/") || path.contains("tests") || path.ends_with("/fixtures.rs");
        if !is_shipped || is_test || path == "runtime/src/spans.rs" {
            continue;
        }
        let shipped = shipped(&text);
        let named = named(&shipped);
        let count = |end: &[&str]| {
            named
                .iter()
                .filter(|path| path.parts.windows(end.len()).any(|part| part == end))
                .count()
        };
        let spawned: usize = SPAWNERS.iter().map(|end| count(end)).sum();
        let instrumented = shipped
            .windows(2)
            .filter(|two| two[0].text == "." && two[1].text == "instrument")
            .count();
        if BEGINNERS.contains(&path.as_str()) {
            assert!(
                (1..=instrumented).contains(&spawned),
                "{path}: {spawned} spawned, {instrumented} in a span"
            );
        } else {
            assert_eq!(
                spawned, 0,
                "{path}: use signet_runtime::spans::spawn, spawn_blocking or Drain"
            );
        }
    }
}

/// The ways to the homes of what shipped code of a file names elsewhere.
fn astray(path: &str, text: &str) -> Vec<&'static str> {
    let named = named(&shipped(text));
    let stray = |(end, homes, _): &&(&[&str], &[&str], &str)| {
        let names = |parts: &[String]| parts.windows(end.len()).any(|part| part == *end);
        !homes.contains(&path) && named.iter().any(|path| names(&path.parts))
    };
    HOMES
        .iter()
        .filter(stray)
        .map(|(_, _, instead)| *instead)
        .collect()
}

#[test]
fn a_thought_that_has_a_home_is_not_thought_again() {
    for SourceFile { path, text } in rust_files().unwrap() {
        let free = !path.contains("src/") || path.ends_with("/tests.rs");
        assert!(
            free || astray(&path, &text).is_empty(),
            "{path}: use {:?}",
            astray(&path, &text)
        );
    }
}

#[test]
fn the_search_for_second_homes_reads_every_form() {
    let found = |text: &str| astray("server/src/x.rs", text).len();
    for text in [
        "fn f() { std::fs::rename(a, b) }",
        "use std::fs;\nfn f() { fs::rename(a, b) }",
        "use std::{fs::{self, rename}, path::Path};",
        "use std::sync::{Arc, Mutex};",
        "fn f() { lock().unwrap_or_else(std::sync::PoisonError::into_inner) }",
        "fn f() { fastrand::f64() }",
    ] {
        assert_eq!(found(text), 1, "{text}");
    }
    for text in [
        "#[serde(rename = \"x\")] struct X;",
        "use tokio::sync::Mutex;",
        "#[cfg(test)]\nmod tests {\n    use std::sync::Mutex;\n}",
    ] {
        assert_eq!(found(text), 0, "{text}");
    }
    assert_eq!(
        astray("runtime/src/files.rs", "fn f() { fs::rename(a, b) }").len(),
        0
    );
}
