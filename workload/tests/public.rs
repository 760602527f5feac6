//! The crate's public side can be used by itself: all that its signatures name is exported, and its examples need nothing else.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates that a program does not depend on itself.
const OURS: [&str; 4] = ["signet_certs", "signet_proto", "signet_runtime", "signet_testkit"];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// The names that a file takes from crates of ours.
fn taken(source: &str) -> BTreeSet<&str> {
    let of_ours = |statement: &&str| {
        OURS.iter()
            .any(|name| statement.contains(&format!("use {name}::")))
    };
    let statements = source.split_inclusive(';').filter(of_ours);
    let names = statements.flat_map(|statement| words(statement.rsplit_once("use ").unwrap().1));
    names
        .filter(|word| word.starts_with(char::is_uppercase))
        .collect()
}

/// What stands in public view: heads of public items, and bodies of public enums and the public fields of structs.
fn shown(source: &str) -> String {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let mut shown = String::new();
    let (mut in_enum, mut in_head) = (false, false);
    for line in source.lines() {
        let code = line.trim_start();
        let is_public = code.starts_with("pub ") && !code.starts_with("pub use");
        if !code.starts_with("//") && (is_public || in_enum || in_head) {
            shown.push_str(code);
            shown.push('\n');
            in_head = (is_public || in_head) && !code.ends_with(['{', ';', ',', '}']);
            in_head |=
                code.ends_with(['(', ',']) && !in_enum && code.starts_with("pub ") && code.contains("fn ");
        }
        in_enum = (in_enum || line.starts_with("pub enum")) && line != "}";
    }
    shown
}

#[test]
fn all_that_a_signature_names_is_exported() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = fs::read_to_string(root.join("lib.rs")).unwrap();
    let exports = library
        .split_inclusive(';')
        .filter(|statement| statement.contains("pub use"));
    let exported: BTreeSet<&str> = exports.flat_map(words).collect();
    let mut seen = 0;
    for path in files(&root).into_iter().filter(|path| !path.ends_with("lib.rs")) {
        let source = fs::read_to_string(&path).unwrap();
        let (taken, shown) = (taken(&source), shown(&source));
        for name in words(&shown).filter(|word| taken.contains(word)) {
            assert!(
                exported.contains(name),
                "{}: `{name}` is not exported",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen >= 40, "the check sees only {seen} names");
}

#[test]
fn examples_need_no_crate_of_ours_but_this_one() {
    let examples = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    assert!(examples.len() >= 6);
    for path in examples {
        let source = fs::read_to_string(&path).unwrap();
        for name in OURS {
            assert!(!source.contains(name), "{} uses {name}", path.display());
        }
    }
}
