//! A signal to the process that a file names. Such files lie: their process has ended, and its number is another's. So the process is held
//! by a descriptor first, and asked second.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::geteuid;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use signet_runtime::clock::{Clock as _, SystemClock};
use thiserror::Error;

/// Such a file holds a number; programs write more into theirs, on further lines.
const LONGEST: u64 = 4096;
/// Ticks of the kernel in a second, as it shows them to processes on every architecture that this is made for.
const TICKS: u64 = 100;
/// By so much a process may seem younger than its file, for both ages are rounded.
const ROUNDED: Duration = Duration::from_secs(2);
/// Who may name any process.
const ROOT: u32 = 0;
/// So much of a name the kernel keeps.
const NAME: usize = 15;

/// Who gets which signal.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub signal: Signal,
    pub pid_file: PathBuf,
    /// The name of its process, where that is known.
    pub program: Option<String>,
}

#[derive(Debug, Error)]
pub(crate) enum SignalError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: the first line is not the number of a process", .0.display())]
    NoNumber(PathBuf),
    #[error("{}: process {pid} has ended", path.display())]
    Ended { path: PathBuf, pid: i32 },
    #[error("{}: process {pid} began after the file was written, so it is another one and the file stale, or the clock was set forward: then give --program", path.display())]
    Stale { path: PathBuf, pid: i32 },
    #[error("{}: it is dated after this moment, so nobody knows whether process {pid} began before it: the clock was set back; give --program, or have the file written again", path.display())]
    Ahead { path: PathBuf, pid: i32 },
    #[error("{}: it or a link to it is user {owner}'s, who may not name process {pid}: only root, this user and the user of that process, {user}, may", path.display())]
    Owner {
        path: PathBuf,
        pid: i32,
        owner: u32,
        user: u32,
    },
    #[error("{}: process {pid} is `{found}`, not `{wanted}`", path.display())]
    Other {
        path: PathBuf,
        pid: i32,
        found: String,
        wanted: String,
    },
    #[error("process {pid}: {source}")]
    System { pid: i32, source: io::Error },
}

/// Reads the name of a signal, with or without `SIG`.
///
/// # Errors
/// When there is none of that name, or it is one that no program takes.
pub(crate) fn parse_signal(text: &str) -> Result<Signal, String> {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    match name.parse() {
        Ok(Signal::SIGKILL | Signal::SIGSTOP) => Err("no program hears of it, it would only end".to_owned()),
        Ok(signal) => Ok(signal),
        Err(_) => Err("there is no such signal; write for instance HUP".to_owned()),
    }
}

impl Target {
    /// Sends the signal to the process, if it is the one that is meant.
    pub(super) fn send(&self) -> Result<(), SignalError> {
        let path = &self.pid_file;
        let at_file = |source| SignalError::File {
            path: path.clone(),
            source,
        };
        let file = read(path).map_err(at_file)?;
        let pid = number(&file.text).ok_or_else(|| SignalError::NoNumber(path.clone()))?;
        let system = |source| SignalError::System { pid, source };
        let named = Pid::from_raw(pid).ok_or_else(|| SignalError::NoNumber(path.clone()))?;
        // From here on the number is no other's.
        let held = match pidfd_open(named, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => {
                return Err(SignalError::Ended {
                    path: path.clone(),
                    pid,
                });
            }
            opened => opened.map_err(|error| system(error.into()))?,
        };
        self.is_meant(pid, &file).map_err(|error| match error {
            Doubt::Unread(source) => system(source),
            Doubt::No(error) => error,
        })?;
        let number = rustix::process::Signal::from_named_raw(self.signal as i32)
            .ok_or_else(|| system(io::ErrorKind::InvalidInput.into()))?;
        pidfd_send_signal(&held, number).map_err(|error| system(error.into()))
    }

    fn is_meant(&self, pid: i32, file: &PidFile) -> Result<(), Doubt> {
        let path = || self.pid_file.clone();
        let process = Path::new(crate::peer::PROC).join(pid.to_string());
        let status = fs::read_to_string(process.join("status")).map_err(Doubt::Unread)?;
        let user = user(&status).ok_or_else(|| Doubt::Unread(io::ErrorKind::InvalidData.into()))?;
        let strange = |owner: &&u32| ![ROOT, geteuid().as_raw(), user].contains(owner);
        if let Some(owner) = file.owners.iter().find(strange).copied() {
            let path = path();
            return Err(Doubt::No(SignalError::Owner {
                path,
                pid,
                owner,
                user,
            }));
        }
        let stat = fs::read_to_string(process.join("stat")).map_err(Doubt::Unread)?;
        let (found, began) =
            read_stat(&stat).ok_or_else(|| Doubt::Unread(io::ErrorKind::InvalidData.into()))?;
        // The age of the file is the wall clock's, which is set; that of the process is not. So a name decides alone.
        if let Some(wanted) = &self.program {
            return match shortened(wanted) == found {
                true => Ok(()),
                false => Err(Doubt::No(SignalError::Other {
                    path: path(),
                    pid,
                    found: found.to_owned(),
                    wanted: wanted.clone(),
                })),
            };
        }
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|error| Doubt::Unread(error.into()))?;
        let age = Duration::from(now).saturating_sub(began);
        let now = SystemClock.now();
        if file.written > now + ROUNDED {
            return Err(Doubt::No(SignalError::Ahead { path: path(), pid }));
        }
        let of_file = now.duration_since(file.written).unwrap_or_default();
        if age + ROUNDED < of_file {
            return Err(Doubt::No(SignalError::Stale { path: path(), pid }));
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.signal, self.pid_file.display())
    }
}

enum Doubt {
    Unread(io::Error),
    No(SignalError),
}

/// All of the one file, whatever has its name by then.
struct PidFile {
    text: Vec<u8>,
    written: SystemTime,
    /// Of what has its name, which may be a link to another's file, and of the file.
    owners: [u32; 2],
}

/// A pipe in its place is not waited for.
fn read(path: &Path) -> io::Result<PidFile> {
    let named = fs::symlink_metadata(path)?.uid();
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(io::Error::other(format!("no file of at most {LONGEST} bytes")));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(PidFile {
        text,
        written: found.modified()?,
        owners: [named, found.uid()],
    })
}

fn number(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    let number = text.lines().next()?.trim().parse().ok()?;
    (number > 0).then_some(number)
}

/// As whom a process acts: who owns what it makes.
fn user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

/// Name and beginning of a process, the latter since the machine was started. Names hold anything, so the last bracket ends them.
fn read_stat(stat: &str) -> Option<(&str, Duration)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    // The 22nd field, of which two are before the rest.
    let ticks: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    Some((name, Duration::from_millis(ticks.saturating_mul(1000 / TICKS))))
}

fn shortened(name: &str) -> &str {
    name.get(..NAME).unwrap_or(name)
}

#[cfg(test)]
mod tests;
