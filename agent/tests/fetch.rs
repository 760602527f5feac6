//! The command that fetches, as a workload's shell runs it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::process::{Command, Output};

fn fetch(address: Option<&str>, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signet-agent"));
    command.env_remove("SPIFFE_ENDPOINT_SOCKET");
    if let Some(address) = address {
        command.env("SPIFFE_ENDPOINT_SOCKET", address);
    }
    command.args(["fetch", "x509", "--timeout", "10ms"]).args(flags);
    command.output().unwrap()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Covers EP-09, EP-10.
#[test]
fn the_socket_comes_from_the_environment_unless_it_is_named() {
    let absent = "unix:///nowhere/of/the/environment.sock";
    let output = complaint(&fetch(Some(absent), &[]));
    assert!(output.contains(absent), "{output}");
    let named = "unix:///nowhere/of/the/flag.sock";
    let output = complaint(&fetch(Some(absent), &["--socket", named]));
    assert!(output.contains(named) && !output.contains(absent), "{output}");
    let output = complaint(&fetch(Some("tcp://127.0.0.1:1"), &[]));
    assert!(output.contains("write unix:///absolute/path"), "{output}");
    let output = complaint(&fetch(None, &[]));
    assert!(output.contains("--socket"), "{output}");
}
