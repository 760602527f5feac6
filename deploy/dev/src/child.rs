//! The processes of the trust domain: this program in another role. Each ends when its parent does, however that ends.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signet_runtime::signal::until_stdin_closes;
use tokio::process::{Child as Process, ChildStdin, Command};

/// Before a child is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Kube,
    Server,
    Agent,
}

impl Role {
    const ALL: [Self; 3] = [Self::Kube, Self::Server, Self::Agent];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kube => "fake-kube",
            Self::Server => "signet-server",
            Self::Agent => "signet-agent",
        }
    }

    fn argument(self) -> String {
        format!("--as-{}", self.name())
    }

    /// The role that a first argument asks for.
    pub(crate) fn of_argument(argument: &OsStr) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|role| argument == role.argument().as_str())
    }
}

/// Runs in a child: the role's own command line, and an end with the parent.
pub(crate) fn run(role: Role, args: Vec<OsString>) -> ExitCode {
    end_with_parent();
    let args = std::iter::once(OsString::from(role.name())).chain(args);
    match role {
        Role::Kube => crate::kube::main(args),
        Role::Server => signet_server::cli::run_with(args),
        Role::Agent => signet_agent::cli::run_with(args),
    }
}

/// The parent holds the other end of standard input; that end closes even when the parent is killed.
fn end_with_parent() {
    std::thread::spawn(|| {
        until_stdin_closes();
        // If the signal cannot be sent there is no process left to send it to.
        let _ = kill(Pid::this(), Signal::SIGTERM);
    });
}

/// A running child.
pub(crate) struct Child {
    role: Role,
    args: Vec<OsString>,
    log: PathBuf,
    process: Process,
    /// Its end closes when this process ends, however that happens. `wait` would close it at once.
    leash: Option<ChildStdin>,
}

impl Child {
    /// Starts this program in `role`; its output goes to `<folder>/log`, its process id to `<folder>/pid`.
    pub(crate) fn start(role: Role, args: &[&OsStr], folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let args: Vec<OsString> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let log = folder.join("log");
        let (process, leash) = spawn(role, &args, &log)?;
        Ok(Self {
            role,
            args,
            log,
            process,
            leash,
        })
    }

    /// Waits until the child has ended by itself.
    pub(crate) async fn ended(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Starts it again, as kubelet would.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        (self.process, self.leash) = spawn(self.role, &self.args, &self.log)?;
        Ok(())
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// The end of its log, for when it did not start.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// SIGTERM, patience, SIGKILL.
    pub(crate) async fn stop(&mut self) {
        self.leash = None;
        let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return;
        };
        // A process that has just ended needs no signal.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if tokio::time::timeout(PATIENCE, self.process.wait()).await.is_err() {
            eprintln!("{} did not stop in time and is killed", self.role.name());
            let _ = self.process.kill().await;
        }
    }
}

fn spawn(role: Role, args: &[OsString], log: &Path) -> anyhow::Result<(Process, Option<ChildStdin>)> {
    let output = File::options()
        .append(true)
        .create(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let own = std::env::current_exe().context("find this program")?;
    let mut process = Command::new(own)
        .arg(role.argument())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Ctrl-C at the terminal goes to the whole group; the parent ends its children in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", role.name()))?;
    if let (Some(pid), Some(folder)) = (process.id(), log.parent()) {
        std::fs::write(folder.join("pid"), format!("{pid}\n"))
            .with_context(|| format!("write {}/pid", folder.display()))?;
    }
    let leash = process.stdin.take();
    Ok((process, leash))
}
