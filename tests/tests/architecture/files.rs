//! How long a file may be.

use signet_tests::repository::{SourceFile, rust_files};

/// Lines of a file at which it wants to be two.
const MAX_LINES: usize = 350;

/// The same for tests in a file of their own: they are lists of cases.
const MAX_LINES_OF_TESTS: usize = 650;

/// Files that may be longer, each up to a bound of its own, and why.
const LONGER: [(&str, usize, &str); 0] = [];

#[test]
fn no_file_outgrows_a_reader() {
    let faults = faults(&rust_files().unwrap(), &LONGER);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn faults(files: &[SourceFile], longer: &[(&str, usize, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    for SourceFile { path, text } in files {
        let lines = text.lines().count();
        let usual = if is_of_tests(path) {
            MAX_LINES_OF_TESTS
        } else {
            MAX_LINES
        };
        let own = longer.iter().find(|(of, _, _)| of == path);
        let most = own.map_or(usual, |(_, most, _)| *most);
        if lines > most {
            faults.push(format!(
                "{path} has {lines} lines, of {most}: split it along what it says"
            ));
        } else if own.is_some() && lines <= usual {
            faults.push(format!(
                "{path} has {lines} lines, of {usual}: it needs no line in LONGER, remove that"
            ));
        }
    }
    for (path, _, why) in longer {
        if !files.iter().any(|file| file.path == *path) {
            faults.push(format!("{path} is not there: remove its line in LONGER"));
        }
        if why.is_empty() {
            faults.push(format!("{path} needs a reason to be long"));
        }
    }
    faults
}

/// `tests.rs`, and what lies in a folder `tests`; the crate `tests` is as any other.
fn is_of_tests(path: &str) -> bool {
    let below = path.strip_prefix("tests/src/");
    below.is_none() && (path.contains("tests/") || path.ends_with("/tests.rs"))
}

#[test]
fn a_file_that_grew_and_a_line_that_nobody_needs_are_told() {
    let file = |path: &str, lines: usize| SourceFile {
        path: path.to_owned(),
        text: "x\n".repeat(lines),
    };
    let files = [
        file("x/src/short.rs", 350),
        file("x/src/grew.rs", 351),
        file("x/src/long.rs", 400),
        file("x/src/longer.rs", 401),
        file("x/src/shrank.rs", 350),
        file("x/src/a/tests.rs", 650),
        file("x/src/b/tests.rs", 651),
        file("tests/src/kube.rs", 351),
        file("tests/tests/cases.rs", 650),
    ];
    let longer = [
        ("x/src/long.rs", 400, "one table"),
        ("x/src/longer.rs", 400, "one table"),
        ("x/src/shrank.rs", 400, ""),
        ("x/src/gone.rs", 400, "one table"),
    ];
    assert_eq!(
        faults(&files, &longer),
        [
            "x/src/grew.rs has 351 lines, of 350: split it along what it says",
            "x/src/longer.rs has 401 lines, of 400: split it along what it says",
            "x/src/shrank.rs has 350 lines, of 350: it needs no line in LONGER, remove that",
            "x/src/b/tests.rs has 651 lines, of 650: split it along what it says",
            "tests/src/kube.rs has 351 lines, of 350: split it along what it says",
            "x/src/shrank.rs needs a reason to be long",
            "x/src/gone.rs is not there: remove its line in LONGER",
        ]
    );
}
