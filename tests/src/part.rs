//! The two programs of Signet as processes: the workspace's binaries, or the running program itself in their part.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signet_runtime::signal::until_stdin_closes;
use tokio::process::Command;

use crate::process::{Process, binary};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `signet-server`.
    Server,
    /// `signet-agent`.
    Agent,
}

impl Part {
    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "signet-server",
            Self::Agent => "signet-agent",
        }
    }

    /// At most fifteen bytes, as the kernel keeps them.
    const fn thread_name(self) -> &'static CStr {
        match self {
            Self::Server => c"signet-server",
            Self::Agent => c"signet-agent",
        }
    }

    fn argument(self) -> String {
        format!("--as-{}", self.name())
    }

    fn of_argument(argument: &OsStr) -> Option<Self> {
        [Self::Server, Self::Agent]
            .into_iter()
            .find(|part| argument == part.argument().as_str())
    }
}

/// Which programs play the parts of a trust domain.
#[derive(Clone, Debug, Default)]
pub enum Launch {
    /// The workspace's binaries, with nothing of the test's environment. What they say is kept.
    #[default]
    Binaries,
    /// The same, each of which may open so many files.
    WithFiles(u32),
    /// The same, under this umask.
    Umask(&'static str),
    /// The same, on pipes that are full from the first byte on and that nobody reads, and with all there is to log.
    Unread,
    /// The same, with what they say on a disk that is full.
    Full,
    /// The running program again: building it builds everything it needs. Its `main` begins with [`play`]. The parts end
    /// with it, however it ends.
    Itself {
        /// How much they say, as `RUST_LOG` has it.
        level: String,
        /// They say it to `log` in their folder, where `pid` names the process; otherwise to standard error.
        to_file: bool,
    },
}

impl Launch {
    /// Starts a part with these arguments, and these variables beside what it is given anyhow.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        &self,
        part: Part,
        args: &[&OsStr],
        folder: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        match self {
            Self::Binaries => Process::start(part.name(), &binary(part.name()), args, environment),
            Self::WithFiles(files) => {
                let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
                in_shell(part, &limited, args, environment)
            }
            Self::Umask(mask) => {
                let masked = format!("umask {mask} && exec \"$0\" \"$@\"");
                in_shell(part, &masked, args, environment)
            }
            Self::Unread => Process::start_unread(part.name(), &binary(part.name()), args, environment),
            Self::Full => in_shell(part, "exec \"$0\" \"$@\" >/dev/full 2>&1", args, environment),
            Self::Itself { level, to_file } => {
                let mut command = Command::new(itself()?);
                command
                    .arg0(part.name())
                    .arg(part.argument())
                    .args(args)
                    .env("RUST_LOG", level)
                    .envs(environment.iter().copied())
                    .stdin(Stdio::piped())
                    // Ctrl-C at the terminal goes to the whole group; the parent ends its children in order.
                    .process_group(0);
                if !to_file {
                    command.stdout(Stdio::null());
                    return Process::spawn(part.name(), command, None);
                }
                let log = folder.join("log");
                let output = File::options().append(true).create(true).open(&log);
                let output = output.with_context(|| format!("open {}", log.display()))?;
                command.stdout(output.try_clone()?).stderr(output);
                let process = Process::spawn(part.name(), command, Some(log))?;
                let id = process.pid().map(|id| format!("{id}\n"));
                fs::write(folder.join("pid"), id.unwrap_or_default()).context("write the process id")?;
                Ok(process)
            }
        }
    }
}

/// The binary of a part, by a shell that does something first.
fn in_shell(part: Part, script: &str, args: &[&OsStr], environment: &[(&str, &str)]) -> Result<Process> {
    let program = binary(part.name());
    let shell = [OsStr::new("-c"), OsStr::new(script), program.as_os_str()];
    let all = shell.iter().chain(args);
    Process::start(part.name(), Path::new("/bin/sh"), all, environment)
}

/// The program of this process, whatever has been put in its file's place since it began: [`play`] opens it first thing.
fn itself() -> Result<PathBuf> {
    static PROGRAM: OnceLock<File> = OnceLock::new();
    let file = match PROGRAM.get() {
        Some(file) => file,
        None => {
            let opened = File::open("/proc/self/exe").context("open the running program")?;
            PROGRAM.get_or_init(|| opened)
        }
    };
    // The child resolves it before its own descriptors close.
    Ok(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
}

/// The part that this process was started for by [`Launch::Itself`], played to its end; `None` for a program that plays
/// none.
pub fn play() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let Some(part) = args.next().and_then(|argument| Part::of_argument(&argument)) else {
        // Who starts parts without it says so then.
        let _ = itself();
        return None;
    };
    // Else tools would show the number of a descriptor.
    let _ = nix::sys::prctl::set_name(part.thread_name());
    end_with_parent();
    let args = std::iter::once(OsString::from(part.name())).chain(args);
    Some(match part {
        Part::Server => signet_server::cli::run_with(args),
        Part::Agent => signet_agent::cli::run_with(args),
    })
}

/// The parent holds the other end of standard input; that end closes even when the parent is killed.
fn end_with_parent() {
    std::thread::spawn(|| {
        until_stdin_closes();
        // If the signal cannot be sent there is no process left to send it to.
        let _ = kill(Pid::this(), Signal::SIGTERM);
    });
}
