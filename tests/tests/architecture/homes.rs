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
        &["runtime/src/files.rs", "runtime/src/pace.rs"],
        "signet_runtime::pace::random_unit",
    ),
];

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
