//! The real binary: what it says and how it exits.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signet_certs::authority::{AuthorityKind, AuthorityProfile};
use signet_runtime::clock::{Clock, SystemClock};
use signet_testkit::{DAY, DOMAIN, authority_profile, new_authority};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

/// A folder with everything that an agent needs but a server.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            directory: signet_testkit::folder(),
        };
        std::fs::write(place.path("anchors.pem"), anchors()).unwrap();
        std::fs::write(place.path("token"), "token").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a working configuration with a few more lines; later keys must not repeat earlier ones.
    fn config(&self, telemetry: &str, more: &str) -> PathBuf {
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "trust_domain: example.org\nserver: {{address: '127.0.0.1:1'}}\ntrust: {{anchors_file: {}}}\n\
             node: {{token_file: {}}}\ndata_dir: {}\nstate_dir: {}\nadmin_socket: {}\ntelemetry: {{listen: '{telemetry}'}}\n{more}",
            at("anchors.pem"),
            at("token"),
            at("data"),
            at("state"),
            at("admin.sock"),
        );
        let path = self.path("agent.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn anchors() -> String {
    // The process has the real time.
    let now = SystemClock.now();
    let authority = new_authority(AuthorityProfile {
        kind: AuthorityKind::Control,
        not_before: now - DAY,
        not_after: now + DAY,
        ..authority_profile(DOMAIN)
    });
    authority.certificate().pem()
}

fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signet-agent"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("SPIFFE_ENDPOINT_SOCKET");
    command
}

fn output(args: &[&str]) -> Output {
    agent(args).output().unwrap()
}

fn run(config: &Path) -> Output {
    output(&["run", "--config", config.to_str().unwrap()])
}

/// One line on standard error that holds all of these, and this exit code.
fn says(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
}

/// A running agent; killed when the test ends early.
struct Running {
    child: Child,
    /// Kept, so that whatever else it says finds a reader's end.
    _log: Lines<BufReader<ChildStderr>>,
}

impl Running {
    /// Returns once it says that it is up.
    async fn start(config: &Path) -> Self {
        let mut child = tokio::process::Command::from(agent(&["run", "--config", config.to_str().unwrap()]))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        soon(async {
            while let Some(line) = log.next_line().await.unwrap() {
                if line.contains("the agent is up") {
                    return;
                }
            }
            panic!("the agent ended instead of coming up");
        })
        .await;
        Self { child, _log: log }
    }

    async fn ends_on(&mut self, signal: Signal) -> Option<i32> {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
        soon(self.child.wait()).await.unwrap().code()
    }
}

#[expect(clippy::expect_used, reason = "a test that waits in vain has failed")]
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("did not happen in time")
}

#[test]
fn a_configuration_mistake_is_one_line_with_place_and_remedy_and_exit_78() {
    let place = Place::new();
    let config = place.config("127.0.0.1:0", "admin_soket: /x\n");
    says(
        &run(&config),
        78,
        &["agent.yaml:9:1", "admin_soket", "did you mean `admin_socket`?"],
    );
    let config = place.config("127.0.0.1:0", "cluster: a/b\n");
    says(&run(&config), 78, &["agent.yaml", "cluster"]);
    says(&run(&place.path("none.yaml")), 78, &["none.yaml", "no such file"]);
    assert!(!place.path("admin.sock").exists(), "nothing was started");
}

#[test]
fn what_is_in_the_way_is_named_with_its_key() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = place.config(&taken.local_addr().unwrap().to_string(), "");
    says(&run(&config), 1, &["agent.yaml", "telemetry.listen", "in use"]);
    std::fs::write(place.path("admin.sock"), "a file").unwrap();
    let config = place.config("127.0.0.1:0", "");
    says(&run(&config), 78, &["admin_socket", "not a socket"]);
    for file in ["admin.sock", "anchors.pem"] {
        std::fs::remove_file(place.path(file)).unwrap();
    }
    says(
        &run(&config),
        78,
        &["trust.anchors_file", "anchors.pem", "control authorities"],
    );
}

#[test]
fn validate_prints_the_verdict_for_people_and_programs() {
    let place = Place::new();
    let config = place.config("127.0.0.1:0", "");
    let config = config.to_str().unwrap();
    assert!(output(&["validate", "--config", config]).status.success());
    place.config("127.0.0.1:0", "cluster: a/b\n");
    let json = output(&["validate", "--config", config, "--output", "json"]);
    assert_eq!(json.status.code(), Some(78));
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["ok"], false);
}

#[tokio::test]
async fn an_agent_without_its_server_runs_says_so_and_ends_on_a_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::new();
        let shared = place.path("api.sock");
        let more = format!("shared_socket: {{path: {}, mode: '0660'}}\n", shared.display());
        let config = place.config("127.0.0.1:0", &more);
        let admin = place.path("admin.sock");
        let mut running = Running::start(&config).await;
        says(
            &output(&["healthcheck", "--admin-socket", admin.to_str().unwrap()]),
            1,
            &[
                "not ready",
                "node_not_attested",
                "trust_not_believed",
                "server_away",
            ],
        );
        // A probe asks for no more than that the sockets serve.
        let probe = [
            "healthcheck",
            "--serving",
            "--admin-socket",
            admin.to_str().unwrap(),
        ];
        assert!(output(&probe).status.success());
        // It answers, so everything is in place.
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&admin), mode(&shared), mode(&place.path("data"))),
            (0o600, 0o660, 0o700)
        );
        let admin = admin.to_str().unwrap();
        let status = output(&["status", "--admin-socket", admin, "-o", "json"]);
        let value: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(
            (&value["ready"], &value["ready_issue"], &value["server_connected"]),
            (&true.into(), &false.into(), &false.into())
        );
        assert_eq!(running.ends_on(signal).await, Some(0), "{signal}");
        says(
            &output(&["healthcheck", "--admin-socket", admin]),
            1,
            &["cannot reach the agent", "SIGNET_AGENT_ADMIN_SOCKET"],
        );
    }
}

/// Covers EP-24.
#[tokio::test]
async fn a_killed_agent_leaves_nothing_that_keeps_the_next_one_from_starting() {
    let place = Place::new();
    let config = place.config("127.0.0.1:0", "");
    let admin = place.path("admin.sock");
    let mut first = Running::start(&config).await;
    assert_eq!(first.ends_on(Signal::SIGKILL).await, None);
    assert!(admin.exists(), "a stale socket");
    let second = Running::start(&config).await;
    says(
        &run(&config),
        1,
        &["admin_socket", "another process is listening"],
    );
    drop(second);
}

/// Covers EP-09, EP-10, EP-29.
#[test]
fn fetch_names_a_wrong_socket_and_gives_up_in_time() {
    says(
        &output(&["fetch", "x509", "--socket", "tcp://127.0.0.1:1"]),
        1,
        &["unix:///absolute/path"],
    );
    let place = Place::new();
    let socket = format!("unix://{}", place.path("none.sock").display());
    let given_up = output(&["fetch", "x509", "--socket", &socket, "--timeout", "300ms"]);
    assert_eq!(given_up.status.code(), Some(1));
    let text = String::from_utf8_lossy(&given_up.stderr);
    assert!(
        text.contains("none.sock") && text.contains("trying again") && text.contains("no identity within"),
        "{text}"
    );
}

#[test]
fn a_wrong_command_line_exits_2() {
    assert_eq!(output(&["fetch", "x509"]).status.code(), Some(2));
    assert_eq!(output(&["frobnicate"]).status.code(), Some(2));
    assert!(output(&["--help"]).status.success());
}
