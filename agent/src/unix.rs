//! The `unix` attestor: who is the process at the other end of the shared socket?
//!
//! uid and gid were taken by the kernel at connect time; path and SHA-256 of the executable come through
//! `/proc/<pid>/exe`. All of it counts only while the process lives and runs what it ran when it connected, which is checked
//! after reading, so that a recycled pid proves nothing. A process of a pod is refused (its identity is the pod's, over the
//! pod's own socket), and so is one of a container.
//!
//! Which namespaces matter:
//! | namespace | a process in one of its own |
//! |---|---|
//! | PID | is refused: it is of a container. Where it cannot be told, too |
//! | user | is served under its uid outside, which is the kernel's to translate; one that the agent's own namespace has no number for is refused |
//! | mount | is served (`PrivateTmp`, `ProtectHome`); it decides what a path means, so the path is told only where the host finds the same file there |
//! | network, cgroup, others | is served: they change nothing of what is told |

mod counts;
mod executable;
mod turns;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use signet_runtime::limits::Limit;
use signet_runtime::telemetry::Metrics;
use thiserror::Error;

use self::counts::Counts;
pub(crate) use self::counts::METRIC;
use self::executable::{Digests, Unread, path_of};
use self::turns::Turns;
use crate::cache::UnixFacts;
use crate::context::PeerProcess;
use crate::peer::{Changed, PROC, Program};

/// Files of `/proc` are a few hundred bytes; more is not read.
const MAX_TEXT: u64 = 64 * 1024;

/// What stands for a user that a namespace has no number for.
const NOBODY: u32 = 65_534;

/// Why a peer is not attested.
#[derive(Debug, Error)]
pub(crate) enum UnixError {
    /// It is not what connected.
    #[error(transparent)]
    Changed(#[from] Changed),
    /// It lives in a pod.
    #[error(
        "the calling process belongs to a Kubernetes pod; it gets its identity over the socket of its CSI volume"
    )]
    InPod,
    /// It lives in a container, or nobody can tell.
    #[error(
        "the calling process is outside the host's {0} namespace; the shared socket serves the host's own processes"
    )]
    OtherNamespace(&'static str),
    /// Its executable is not read now.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// The kernel did not answer.
    #[error("cannot look at the calling process: {0}")]
    Io(#[from] io::Error),
}

/// See the module's documentation. Clones share what is remembered and counted.
#[derive(Clone)]
pub(crate) struct UnixAttestor {
    proc: Arc<Path>,
    digests: Arc<Digests>,
    turns: Arc<Turns>,
    counts: Counts,
}

impl Default for UnixAttestor {
    fn default() -> Self {
        Self::over(Path::new(PROC))
    }
}

/// Rows of the table of limits.
pub(crate) fn limits() -> Vec<Limit> {
    executable::limits(METRIC)
}

impl UnixAttestor {
    /// One that counts what it refuses.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            counts: Counts::registered(metrics),
            ..Self::default()
        }
    }

    fn over(proc: &Path) -> Self {
        Self {
            proc: proc.into(),
            digests: Arc::default(),
            turns: Arc::default(),
            counts: Counts::default(),
        }
    }

    /// Counts a process that was attested and finds no room.
    pub(crate) fn no_room(&self) {
        self.counts.no_room();
    }

    /// What is true of the peer now. Reads the executable, so it runs on a thread for blocking work.
    ///
    /// # Errors
    /// [`UnixError`]; nothing is known about the peer then.
    pub(crate) async fn attest(&self, peer: &PeerProcess) -> Result<UnixFacts, UnixError> {
        let turn = self.turns.take(peer.uid).await?;
        let (attestor, peer) = (self.clone(), peer.clone());
        let look = move || {
            // Given back when the thread is done, also when nobody waits for it any more.
            let _turn = turn;
            attestor.attest_blocking(&peer)
        };
        let outcome = signet_runtime::spans::spawn_blocking(look).await;
        outcome.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    fn attest_blocking(&self, peer: &PeerProcess) -> Result<UnixFacts, UnixError> {
        let outcome = self.look_at(peer);
        if let Err(error) = &outcome {
            self.counts.refused(error);
        }
        outcome
    }

    fn look_at(&self, peer: &PeerProcess) -> Result<UnixFacts, UnixError> {
        if peer.pid <= 0 {
            // The kernel shows no pid for a peer outside our own pid namespace.
            return Err(UnixError::OtherNamespace("pid"));
        }
        let process = self.proc.join(peer.pid.to_string());
        let outcome = self.inspect(&process, peer);
        // Last, so that everything above was read from the process that connected.
        peer.unchanged_in(&self.proc)?;
        outcome
    }

    fn inspect(&self, process: &Path, peer: &PeerProcess) -> Result<UnixFacts, UnixError> {
        refuse_pods(&process.join("cgroup"))?;
        refuse_containers(&process.join("status"))?;
        self.refuse_untranslated(peer)?;
        let (mut path, mut sha256) = (None, None);
        if let Ok(file) = File::open(process.join("exe")) {
            // Both through the one open file, so that an exec in between cannot mix two programs.
            let program = Program::of(&file)?;
            if peer.program != Some(program) {
                return Err(Changed::Program.into());
            }
            path = path_of(&file, &program, &self.host_root());
            sha256 = self.digests.of(peer.uid, file)?;
        }
        Ok(UnixFacts {
            uid: peer.uid,
            gid: peer.gid,
            path,
            sha256,
        })
    }

    /// The host's files. Only who may look into init sees them from a container; from anywhere else they are the agent's own.
    fn host_root(&self) -> PathBuf {
        let of_init = self.proc.join("1/root");
        match fs::metadata(&of_init) {
            Ok(_) => of_init,
            Err(_) => self.proc.join("self/root"),
        }
    }

    /// Users that the agent's namespace has no number for all have the same one.
    fn refuse_untranslated(&self, peer: &PeerProcess) -> Result<(), UnixError> {
        let has_all = || text_of(&self.proc.join("self/uid_map")).is_ok_and(|map| maps_everybody(&map));
        if peer.uid == NOBODY && !has_all() {
            return Err(UnixError::OtherNamespace("user"));
        }
        Ok(())
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

/// The kernel shows a process that has ended no more.
fn of_process(path: &Path) -> Result<String, UnixError> {
    text_of(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Changed::Gone.into(),
        _ => error.into(),
    })
}

fn refuse_pods(cgroup: &Path) -> Result<(), UnixError> {
    if names_a_pod(&of_process(cgroup)?) {
        return Err(UnixError::InPod);
    }
    Ok(())
}

/// A process has a number in its own PID namespace and in each around it, up to that of `/proc`; anybody may read them.
fn refuse_containers(status: &Path) -> Result<(), UnixError> {
    let text = of_process(status)?;
    let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    match numbers.map(|numbers| numbers.split_whitespace().count()) {
        Some(1) => Ok(()),
        _ => Err(UnixError::OtherNamespace("pid")),
    }
}

/// From 0 on, as many as there are: first number inside, first outside, how many.
fn maps_everybody(uid_map: &str) -> bool {
    let numbers: Vec<_> = uid_map.split_whitespace().collect();
    numbers == ["0", "0", "4294967295"]
}

/// An agent with a cgroup namespace of its own sees paths from there: of `/kubepods/besteffort/pod<uid>/<container>` it
/// may see `/../../pod<uid>/<container>`.
fn names_a_pod(cgroup: &str) -> bool {
    let is_pod = |part: &str| {
        let uid = part.strip_prefix("pod").unwrap_or_default();
        uid.len() >= 32
            && uid
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'))
    };
    cgroup.contains("kubepods") || cgroup.split(['/', '\n']).any(is_pod)
}

#[cfg(test)]
pub(crate) mod tests;
