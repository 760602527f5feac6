//! A command, without a shell, in a process group of its own.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signet_runtime::environment::NOTIFY_SOCKET;
use signet_runtime::error::excerpt;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// So much of what a command says is kept, of each of its two streams; the rest is read and dropped.
const KEPT: usize = 4 << 10;
/// So much of that stands in the log.
const SHOWN: usize = 1000;
/// How long the end of its output is waited for once it has ended: somebody it left behind may hold the other end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A program and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    program: OsString,
    args: Vec<OsString>,
}

#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("cannot start `{program}`: {source}")]
    Start { program: String, source: io::Error },
    #[error("nobody can wait for its end: {0}")]
    Wait(io::Error),
    #[error("{status}; it said: {said}")]
    Ended { status: ExitStatus, said: String },
}

impl Command {
    /// The first word is the program, by a path or by a name that `PATH` finds. None without words.
    pub(crate) fn new(words: Vec<OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        let program = words.next()?;
        Some(Self {
            program,
            args: words.collect(),
        })
    }

    /// Runs it to its end. Dropped before that, it kills the command and whatever belongs to its group.
    pub(super) async fn run(&self) -> Result<(), CommandError> {
        let mut child = tokio::process::Command::new(&self.program)
            .args(&self.args)
            // It speaks for itself, not for this program.
            .env_remove(NOTIFY_SOCKET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| CommandError::Start {
                program: excerpt(&self.program.to_string_lossy(), SHOWN),
                source,
            })?;
        // Dropped before the child is, which is not reaped by then: its number is nobody else's.
        let group = Group::of(child.id());
        let (mut out, mut err) = (Said::default(), Said::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let status = {
            let reading = async { tokio::join!(out.take(stdout), err.take(stderr)) };
            tokio::pin!(reading);
            let mut read = false;
            loop {
                tokio::select! {
                    ended = child.wait() => {
                        // What a command that failed has left would be there again with each try. Numbers of processes come round, but
                        // not within this moment.
                        if ended.as_ref().is_ok_and(ExitStatus::success) {
                            group.ended();
                        } else {
                            drop(group);
                        }
                        if !read {
                            let _ = timeout(LAST_WORDS, reading).await;
                        }
                        break ended.map_err(CommandError::Wait)?;
                    }
                    _ = &mut reading, if !read => read = true,
                }
            }
        };
        let said = [out.text(), err.text()].concat();
        if !status.success() {
            return Err(CommandError::Ended { status, said });
        }
        if !said.is_empty() {
            tracing::info!(said, "the command has spoken");
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&excerpt(&self.program.to_string_lossy(), SHOWN))
    }
}

/// The processes of a command, killed with this.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        let leader = leader.and_then(|id| i32::try_from(id).ok());
        Self(leader.map(Pid::from_raw))
    }

    /// Its leader was waited for: what it has left behind on purpose stays.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

/// The end of what somebody says.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    async fn take(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            self.0.extend_from_slice(buffer.get(..length).unwrap_or_default());
            let beyond = self.0.len().saturating_sub(KEPT);
            self.0.drain(..beyond);
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let text = text.trim();
        let first = text.char_indices().rev().nth(SHOWN - 1).map_or(0, |(at, _)| at);
        excerpt(text.get(first..).unwrap_or_default(), SHOWN)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shell(script: &str) -> Command {
        Command::new(["sh", "-c", script].map(OsString::from).to_vec()).unwrap()
    }

    #[tokio::test]
    async fn how_it_ended_and_the_end_of_what_it_said_is_told() {
        shell("exit 0").run().await.unwrap();
        let failing = shell("head -c 100000 /dev/zero | tr '\\0' x; echo; echo why >&2; exit 3");
        let said = failing.run().await.unwrap_err().to_string();
        assert!(said.contains("exit status: 3") && said.ends_with("why"), "{said}");
        assert!(said.len() < 2 * SHOWN + 100, "{}", said.len());
        let absent = Command::new(vec!["/nowhere/at/all".into()]).unwrap();
        let said = absent.run().await.unwrap_err().to_string();
        assert!(said.contains("/nowhere/at/all"), "{said}");
    }

    #[tokio::test]
    async fn whoever_it_leaves_behind_holds_up_nobody() {
        let folder = signet_testkit::folder();
        let pid = folder.path().join("pid");
        shell(&format!("sleep 60 & echo $! > {}", pid.display()))
            .run()
            .await
            .unwrap();
        let left: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn one_that_is_dropped_ends_with_all_of_its_group() {
        let folder = signet_testkit::folder();
        let (new, ready) = (folder.path().join("new"), folder.path().join("ready"));
        let (new, at) = (new.display(), ready.display());
        let command = shell(&format!(
            "trap '' TERM; sleep 600 & echo $! > {new}; mv {new} {at}; wait"
        ));
        let mut running = Box::pin(command.run());
        while !ready.exists() {
            tokio::select! {
                ended = &mut running => panic!("{ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let left = std::fs::read_to_string(&ready).unwrap();
        let stat = Path::new("/proc").join(left.trim()).join("stat");
        drop(running);
        gone(&stat).await;
    }

    #[tokio::test]
    async fn one_that_fails_leaves_nobody_behind() {
        let folder = signet_testkit::folder();
        let pid = folder.path().join("pid");
        let failed = shell(&format!("sleep 600 & echo $! > {}; exit 1", pid.display()))
            .run()
            .await;
        assert!(failed.is_err());
        let left = std::fs::read_to_string(pid).unwrap();
        gone(&Path::new("/proc").join(left.trim()).join("stat")).await;
    }

    /// Who reaps it then is not ours to say.
    async fn gone(stat: &Path) {
        while std::fs::read_to_string(stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }
}
