//! What the command line refuses.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::process::Command;

#[test]
fn an_option_that_the_story_does_not_take_is_refused_in_one_line() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signet-dev"));
    let output = command.args(["--svid-ttl", "20s", "demo"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    assert!(
        said.lines().count() == 1 && said.contains("--svid-ttl does not go with demo"),
        "{said}"
    );
}
