//! The story with sidecar proxies.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::process::{Command, Output};

fn signet_dev() -> Command {
    Command::new(env!("CARGO_BIN_EXE_signet-dev"))
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn without_an_envoy_one_line_says_so() {
    let nowhere = tempfile::tempdir().unwrap();
    for args in [["demo", "--envoy"], ["--envoy", "demo"]] {
        let mut command = signet_dev();
        let command = command.args(args).env("PATH", nowhere.path()).env_remove("ENVOY");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = said(&output);
        assert!(
            said.lines().count() == 1 && said.contains("there is no Envoy"),
            "{said}"
        );
    }
}

#[test]
#[ignore = "needs Envoy: `.ci/step proxies` runs it"]
fn the_story_is_told_with_real_envoys() {
    let output = signet_dev().args(["demo", "--envoy"]).output().unwrap();
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    println!("{told}");
    assert!(output.status.success(), "{told}{}", said(&output));
    assert!(
        told.contains("two Envoys 1.") && told.ends_with("all of it held\n"),
        "{told}"
    );
}
