//! The real program in surroundings that are not those of its author.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getuid},
};
use signet_tests::{
    process::unread_pipe,
    wait::{eventually, within},
};
use tempfile::TempDir;

/// The story is told in under a minute on a quiet machine.
const STORY: Duration = Duration::from_secs(240);
/// Nobody in particular.
const NOBODY: u32 = 65_534;

/// A copy of the program that anybody may run, in a folder of its own that anybody may write to.
fn copied() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("signet-dev");
    // By another process: while this one had it open for writing, a child of another test would inherit that, and no exec succeed.
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_signet-dev")).arg(&program);
    assert!(copy.status().unwrap().success());
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    (folder, program)
}

/// Ended when the test is, however that happens.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    async fn ended(&mut self, limit: Duration) -> Option<i32> {
        within(limit, async || self.0.try_wait().unwrap()).await?.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_demo_holds_where_nothing_is_as_usual() {
    let (folder, program) = copied();
    let long = folder
        .path()
        .join("t".repeat(119 - folder.path().as_os_str().len()));
    fs::create_dir(&long).unwrap();
    fs::set_permissions(&long, Permissions::from_mode(0o777)).unwrap();
    assert_eq!(long.as_os_str().len(), 120);
    let ((_out, stdout), (_err, stderr)) = (unread_pipe(true).unwrap(), unread_pipe(true).unwrap());
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "umask 077; exec \"$0\" demo"])
        .arg(&program)
        .env("TMPDIR", &long)
        .env("TZ", "Asia/Kathmandu")
        .env("LC_ALL", "tr_TR.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    // It takes connections and says nothing, and would be told of each.
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
    ] {
        command.env(name, &address);
    }
    if getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut demo = Running(command.spawn().unwrap());
    assert_eq!(demo.ended(STORY).await, Some(0));
    let called = proxy.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(called, Err(ErrorKind::WouldBlock), "no byte goes to a proxy");
}

/// A word that is no address of a proxy is no word to a server that uses none.
#[tokio::test]
async fn it_starts_whatever_stands_in_the_variables_of_proxies() {
    let (folder, program) = copied();
    let dir = folder.path().join("d");
    let mut command = Command::new(&program);
    command
        .arg("--dir")
        .arg(&dir)
        .env("HTTPS_PROXY", "not a url")
        .env("NO_PROXY", "*");
    let mut running = started(command, &dir).await;
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended(Duration::from_secs(60)).await, Some(0));
}

/// Starts it, and returns once all of it is up.
async fn started(mut command: Command, dir: &Path) -> Running {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    let env = dir.join("env");
    eventually("the trust domain to be up", async || env.exists().then_some(())).await;
    running
}

fn server_of(dir: &Path) -> Option<i32> {
    fs::read_to_string(dir.join("server/pid"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[tokio::test]
async fn a_part_that_ended_comes_back_though_the_program_was_replaced_and_all_end_with_the_terminal() {
    let (folder, program) = copied();
    let dir = folder.path().join("d");
    let mut command = Command::new(&program);
    command.arg("--dir").arg(&dir);
    let mut running = started(command, &dir).await;
    // As a package manager does: another file of that name, and then none.
    let other = folder.path().join("other");
    fs::write(&other, "not a program").unwrap();
    fs::rename(&other, &program).unwrap();
    fs::remove_file(&program).unwrap();
    let first = server_of(&dir).unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let again = eventually("the server to be started again", async || {
        server_of(&dir).filter(|pid| *pid != first)
    })
    .await;
    let comm = format!("/proc/{again}/comm");
    eventually("it to bear its name", async || {
        let name = fs::read_to_string(&comm).ok()?;
        (name.trim() == "signet-server").then_some(())
    })
    .await;
    let socket = dir.join("server/admin.sock");
    eventually("the server to answer", async || {
        tokio::net::UnixStream::connect(&socket).await.ok()
    })
    .await;

    running.signal(Signal::SIGHUP);
    assert_eq!(running.ended(Duration::from_secs(60)).await, Some(0));
    assert!(!dir.join("env").exists(), "it ended in order");
}
