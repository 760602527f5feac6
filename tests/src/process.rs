//! The real binaries as child processes: found beside the test, started, watched, signalled, never left behind.

mod spare;

use std::{
    ffi::OsStr,
    io::PipeReader,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signet_runtime::sync::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStdin, Command},
    task::JoinHandle,
};

pub use self::spare::{free_port, unread_pipe};
use crate::{http, wait};

/// More output than this of one stream is dropped from the front: a runaway log must not fill the memory.
const KEPT_OUTPUT: usize = 4 << 20;

/// Of a log, for somebody who has all of it.
const LAST_LINES: usize = 8;

/// The path of one of the workspace's binaries, beside the running test's own folder.
///
/// # Panics
/// When it is missing or older than its sources: tests of a stale binary would prove nothing.
pub fn binary(name: &str) -> PathBuf {
    let path = beside_test(name);
    let remedy = "run `cargo build --workspace` first (`cargo test --workspace` does it by itself)";
    assert!(path.is_file(), "{} does not exist: {remedy}", path.display());
    if let Some(newer) = newer_source(&path) {
        panic!("{} is older than {}: {remedy}", path.display(), newer.display());
    }
    path
}

/// `target/<profile>/<name>`, for a test in `target/<profile>/deps` or a binary in `target/<profile>`.
fn beside_test(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let folder = own.parent().unwrap_or_else(|| Path::new("."));
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A source, out of the list that cargo writes beside each binary, that changed after the binary was made.
fn newer_source(binary: &Path) -> Option<PathBuf> {
    let made = modified(binary)?;
    let list = std::fs::read_to_string(binary.with_extension("d")).ok()?;
    let (_, sources) = list.split_once(": ")?;
    let mut sources = sources.split_whitespace().map(PathBuf::from);
    sources.find(|source| modified(source).is_some_and(|changed| changed > made))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// What a process that ended said.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or does not end in [`wait::PATIENCE`].
pub async fn run(
    program: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    env: &[(&str, &str)],
) -> Result<Finished> {
    let mut process = Process::start("command", program, args, env)?;
    let status = process.wait(wait::PATIENCE).await?;
    Ok(Finished {
        status,
        stdout: process.stdout(),
        stderr: process.stderr(),
    })
}

const PROXIES: &str = "HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy";
/// Where nobody listens: whatever would go by a proxy fails.
const NO_PROXY: &str = "http://127.0.0.1:9";

/// `program` with nothing of the test's environment but the search path, and with proxies that nothing may go by.
fn command(
    program: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    env: &[(&str, &str)],
) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(
            "RUST_LOG",
            std::env::var("SIGNET_TEST_LOG").unwrap_or_else(|_| "info".to_owned()),
        )
        .env("RUST_BACKTRACE", "1")
        .envs(PROXIES.split(' ').map(|name| (name, NO_PROXY)))
        .envs(env.iter().copied())
        .stdin(Stdio::null());
    command
}

/// A running child. Dropping it kills it; dropping it in a failing test also shows what it said.
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    /// Where it writes instead of to us.
    log: Option<PathBuf>,
    /// Ends of pipes that nobody reads.
    unread: Vec<PipeReader>,
    /// Its standard input: it closes when this process ends, however that happens. `wait` would close it at once.
    _leash: Option<ChildStdin>,
}

impl Process {
    /// Starts `program` with these arguments and nothing of the test's environment but the search path.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = command(program, args, env);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(name, command, None)
    }

    /// As [`start`](Self::start), on pipes that are full and that nobody reads; it logs all there is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_unread(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = command(program, args, env);
        let ((out, stdout), (err, stderr)) = (unread_pipe(true)?, unread_pipe(true)?);
        command.env("RUST_LOG", "trace").stdout(stdout).stderr(stderr);
        let mut process = Self::spawn(name, command, None)?;
        process.unread.extend([out, err]);
        Ok(process)
    }

    /// Starts a command as it stands. What it says to pipes is kept; `log` is where it says it otherwise.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn(name: &str, mut command: Command, log: Option<PathBuf>) -> Result<Self> {
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(tokio::spawn(collect(pipe, Arc::clone(&stdout))));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(tokio::spawn(collect(pipe, Arc::clone(&stderr))));
        }
        Ok(Self {
            name: name.to_owned(),
            _leash: child.stdin.take(),
            child,
            stdout,
            stderr,
            readers,
            log,
            unread: Vec::new(),
        })
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end with SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Stops it in its tracks (SIGSTOP) or lets it go on (SIGCONT).
    pub fn freeze(&self, frozen: bool) {
        self.signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended just now, and then there is nobody to tell.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it takes longer than [`wait::PATIENCE`] or ends badly; what it logged is part of the message.
    pub async fn stop(&mut self) -> Result<()> {
        self.terminate();
        let status = self.wait(wait::PATIENCE).await?;
        ensure!(
            status.success(),
            "{} ended with {status}:\n{}",
            self.name,
            self.said()
        );
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Waits for its end, and for the last of its output.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(limit, self.child.wait());
        let status = ended
            .await
            .with_context(|| format!("{} did not end in {limit:?}", self.name))??;
        for reader in self.readers.drain(..) {
            // A grandchild may hold the pipe open for ever.
            let _ = tokio::time::timeout(Duration::from_secs(1), reader).await;
        }
        Ok(status)
    }

    /// Waits until an HTTP endpoint of it answers 200.
    ///
    /// # Errors
    /// When the process ends before, or that takes longer than [`wait::PATIENCE`]; what it said is part of the message.
    pub async fn until_ready(&mut self, url: &str) -> Result<()> {
        let ready = wait::within(wait::PATIENCE, async || {
            if !self.is_running() {
                return Some(false);
            }
            let answer = http::get(url).await.ok()?;
            (answer.status == 200).then_some(true)
        });
        match ready.await {
            Some(true) => return Ok(()),
            // Let the last words arrive.
            Some(false) => drop(self.wait(wait::PATIENCE).await),
            None => {}
        }
        bail!("{} did not become ready:\n{}", self.name, self.said())
    }

    /// All that it said so far, or the end of its log.
    pub fn said(&self) -> String {
        let Some(log) = &self.log else {
            return self.stdout() + &self.stderr();
        };
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it wrote to standard error, where logs go, so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "where the test harness looks")]
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            eprintln!(
                "---- stdout of {0}\n{1}\n---- stderr of {0}\n{2}----",
                self.name,
                self.stdout(),
                self.stderr()
            );
        }
    }
}

async fn collect(mut pipe: impl AsyncRead + Unpin, into: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let mut kept = into.lock();
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > KEPT_OUTPUT {
            kept.drain(..KEPT_OUTPUT / 2);
        }
    }
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock()).into_owned()
}
