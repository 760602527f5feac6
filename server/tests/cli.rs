//! The real binary and its configuration: samples are valid, mistakes get one line with the place and the remedy.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn signet_server(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_signet-server"))
        .args(args)
        .output()
        .unwrap()
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config")
}

/// Writes `yaml`, runs `command --config` on it, and gives the one line it must fail with.
fn refused(command: &str, dir: &Path, yaml: &str) -> String {
    let path = dir.join("server.yaml");
    fs::write(&path, yaml).unwrap();
    let output = signet_server(&[command, "--config", path.to_str().unwrap()]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{errors}");
    assert!(output.stdout.is_empty());
    let prefix = match command {
        "validate" => "error: ",
        _ => "signet-server: ",
    };
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with(prefix)).collect();
    assert_eq!(lines.len(), 1, "{errors}");
    lines[0].to_owned()
}

/// A configuration that would start, below `dir`.
fn working(dir: &Path, publish: &str) -> String {
    let dir = dir.display();
    format!(
        "trust_domain: example.org\ndata_dir: {dir}/data\nlisten:\n  agents: 127.0.0.1:0\n  admin_socket: {dir}/admin.sock\n  \
         publish: {publish}\n  bundle: null\n  telemetry: 127.0.0.1:0\n"
    )
}

#[test]
fn the_sample_configurations_are_valid() {
    for name in ["server.minimal.yaml", "server.full.yaml"] {
        let path = samples().join(name);
        let output = signet_server(&["validate", "--file-only", "--config", path.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_one() {
    let dir = signet_testkit::folder();
    let line = refused(
        "validate",
        dir.path(),
        "trust_domain: example.org\nsvid:\n  tttl: 1h\n",
    );
    assert!(
        line.contains("server.yaml:3") && line.contains("tttl") && line.contains("ttl"),
        "{line}"
    );
}

#[test]
fn a_duration_without_a_unit_is_refused_with_its_place() {
    let dir = signet_testkit::folder();
    let line = refused(
        "validate",
        dir.path(),
        "trust_domain: example.org\nsvid:\n  ttl: 60\n",
    );
    assert!(line.contains("server.yaml:3") && line.contains("90s"), "{line}");
}

#[test]
fn times_that_do_not_fit_together_are_refused() {
    let dir = signet_testkit::folder();
    let line = refused(
        "validate",
        dir.path(),
        "trust_domain: example.org\nsvid:\n  ttl: 2d\n",
    );
    assert!(line.contains("authority.ttl") && line.contains("sixth"), "{line}");
}

#[test]
fn a_port_in_use_is_named_before_anything_is_made() {
    let dir = signet_testkit::folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = refused("run", dir.path(), &working(dir.path(), &address));
    assert!(
        line.contains("listen.publish") && line.contains(&address),
        "{line}"
    );
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn an_unreadable_key_file_is_named_with_the_remedy() {
    let dir = signet_testkit::folder();
    // A directory cannot be read as a key by anyone, root included.
    let kek = dir.path().join("kek");
    fs::create_dir(&kek).unwrap();
    let yaml = format!(
        "{}keys:\n  kek_file: {}\n",
        working(dir.path(), "127.0.0.1:0"),
        kek.display()
    );
    let line = refused("run", dir.path(), &yaml);
    assert!(line.contains(kek.to_str().unwrap()), "{line}");
}

#[test]
fn a_missing_configuration_has_its_own_exit_code() {
    let output = signet_server(&["run", "--config", "/nonexistent/server.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/server.yaml"));
}

#[test]
fn an_admin_command_without_a_server_says_where_it_looked() {
    let output = signet_server(&["status", "--admin-socket", "/nonexistent/admin.sock"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains("/nonexistent/admin.sock") && errors.contains("SIGNET_ADMIN_SOCKET"),
        "{errors}"
    );
}

#[test]
fn help_names_every_command() {
    let output = signet_server(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    for command in [
        "run",
        "validate",
        "healthcheck",
        "status",
        "ca",
        "svid",
        "revoke",
        "allow",
        "denials",
        "crl",
        "agent",
    ] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(command)),
            "{command} in {help}"
        );
    }
}
