//! A signal to the process that a file names. Such files lie: their process has ended, and its number is another's. So the process is held
//! by a descriptor first, and asked second.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use signet_runtime::clock::{Clock as _, SystemClock};
use thiserror::Error;

/// Such a file holds a number; programs write more into theirs, on further lines.
const LONGEST: u64 = 4096;
/// Ticks of the kernel in a second, as it shows them to processes on every architecture that this is made for.
const TICKS: u64 = 100;
/// By so much a process may seem younger than its file, for both ages are rounded.
const ROUNDED: Duration = Duration::from_secs(2);
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
        let (text, written) = read(path).map_err(at_file)?;
        let pid = number(&text).ok_or_else(|| SignalError::NoNumber(path.clone()))?;
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
        self.is_meant(pid, written).map_err(|error| match error {
            Doubt::Unread(source) => system(source),
            Doubt::No(error) => error,
        })?;
        let number = rustix::process::Signal::from_named_raw(self.signal as i32)
            .ok_or_else(|| system(io::ErrorKind::InvalidInput.into()))?;
        pidfd_send_signal(&held, number).map_err(|error| system(error.into()))
    }

    fn is_meant(&self, pid: i32, written: SystemTime) -> Result<(), Doubt> {
        let path = || self.pid_file.clone();
        let process = Path::new(crate::peer::PROC).join(pid.to_string());
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
        let of_file = SystemClock.now().duration_since(written).unwrap_or_default();
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

/// What the file says, and when it was written: both of the one file, whatever has its name by then. A pipe in its place is not waited for.
fn read(path: &Path) -> io::Result<(Vec<u8>, SystemTime)> {
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
    Ok((text, found.modified()?))
}

fn number(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    let number = text.lines().next()?.trim().parse().ok()?;
    (number > 0).then_some(number)
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
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Asleep(Child);

    impl Asleep {
        fn start() -> Self {
            let sleep = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn();
            Self(sleep.unwrap())
        }
    }

    impl Drop for Asleep {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn target(pid_file: &Path, program: Option<&str>) -> Target {
        Target {
            signal: Signal::SIGHUP,
            pid_file: pid_file.to_owned(),
            program: program.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn the_process_that_the_file_names_gets_the_signal() {
        let folder = signet_testkit::folder();
        let file = folder.path().join("pid");
        let mut asleep = Asleep::start();
        fs::write(&file, format!("{}\nmore\n", asleep.0.id())).unwrap();
        let other = target(&file, Some("nginx")).send().unwrap_err();
        assert!(matches!(other, SignalError::Other { .. }), "{other}");
        target(&file, Some("sleep")).send().unwrap();
        assert_eq!(asleep.0.wait().unwrap().signal(), Some(1));
        let ended = target(&file, None).send().unwrap_err();
        assert!(matches!(ended, SignalError::Ended { .. }), "{ended}");
    }

    #[test]
    fn a_file_that_is_older_than_its_process_is_stale_and_one_without_a_number_is_none() {
        let folder = signet_testkit::folder();
        let file = folder.path().join("pid");
        let asleep = Asleep::start();
        fs::write(&file, asleep.0.id().to_string()).unwrap();
        let opened = File::options().write(true).open(&file).unwrap();
        opened
            .set_modified(SystemClock.now() - Duration::from_secs(3600))
            .unwrap();
        let stale = target(&file, None).send().unwrap_err();
        assert!(matches!(stale, SignalError::Stale { .. }), "{stale}");
        let other = target(&file, Some("nginx")).send().unwrap_err();
        assert!(matches!(other, SignalError::Other { .. }), "{other}");
        // A clock that was set forward makes every file look so; a name says more than both ages.
        target(&file, Some("sleep")).send().unwrap();
        for text in ["", "0", "-1", "nginx", "99999999999"] {
            fs::write(&file, text).unwrap();
            let none = target(&file, None).send().unwrap_err();
            assert!(matches!(none, SignalError::NoNumber(_)), "{text}: {none}");
        }
        let absent = target(&folder.path().join("absent"), None).send().unwrap_err();
        assert!(matches!(absent, SignalError::File { .. }), "{absent}");
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(parse_signal("hup"), Ok(Signal::SIGHUP));
        assert_eq!(parse_signal("SIGUSR2"), Ok(Signal::SIGUSR2));
        assert!(parse_signal("KILL").is_err() && parse_signal("1").is_err());
    }
}
