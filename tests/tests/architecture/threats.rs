//! What docs/threat-model.md says of each stolen part is a test that runs.

use std::{collections::BTreeSet, fs};

use signet_tests::repository::{root, rust_files};

use crate::ignored::tests_of;

const PAGE: &str = "docs/threat-model.md";
const TESTS: &str = "tests/tests/black_box/thief.rs";

#[test]
fn each_line_of_the_threat_model_is_a_test_that_runs_and_each_such_test_a_line() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let lines: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("thief::"))
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect();
    let mut named = BTreeSet::new();
    for line in &lines {
        let [part, yields, ends, test] = line[..] else {
            panic!("{PAGE}: four columns, not {line:?}");
        };
        assert!([part, yields, ends].iter().all(|text| text.len() > 5), "{line:?}");
        let test = test.trim().trim_matches('`').to_owned();
        assert!(
            named.insert(test),
            "{PAGE}: {line:?} names a test of another line"
        );
    }
    let files = rust_files().unwrap();
    let file = files.iter().find(|file| file.path == TESTS).expect(TESTS);
    let of_file = tests_of(file);
    let run = of_file.iter().filter(|test| test.ignored.is_none());
    let run: BTreeSet<String> = run
        .filter_map(|test| test.name.rsplit("::").next())
        .map(|name| format!("thief::{name}"))
        .collect();
    assert_eq!(named, run, "{PAGE} and {TESTS}");
    assert!(named.len() >= 7, "{named:?}");
}
