//! The `unix` attestor: who is the process at the other end of the shared socket?
//!
//! uid and gid were taken by the kernel at connect time; path and SHA-256 of the executable come through
//! `/proc/<pid>/exe`. All of it counts only while the pidfd says that the process still lives, which is checked after
//! reading, so that a recycled pid proves nothing. A process of a pod is refused (its identity is the pod's, over the
//! pod's own socket), and so is one outside the host's pid or mount namespace where that can be seen.

mod executable;
mod turns;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;

use self::executable::{Digests, path_of};
use self::turns::Turns;
use crate::cache::UnixFacts;
use crate::context::PeerProcess;

/// `/proc/<pid>/cgroup` is a few hundred bytes; more is not read.
const MAX_CGROUP: u64 = 64 * 1024;

/// The namespaces that a peer must share with the host.
const NAMESPACES: [&str; 2] = ["pid", "mnt"];

/// Why a peer is not attested.
#[derive(Debug, Error)]
pub(crate) enum UnixError {
    /// It ended, or its pid belongs to another process by now.
    #[error("the calling process has ended")]
    Gone,
    /// It lives in a pod.
    #[error(
        "the calling process belongs to a Kubernetes pod; it gets its identity over the socket of its CSI volume"
    )]
    InPod,
    /// It lives in a container, or in a service with namespaces of its own.
    #[error(
        "the calling process is outside the host's {0} namespace; the shared socket serves the host's own processes"
    )]
    OtherNamespace(&'static str),
    /// The kernel did not answer.
    #[error("cannot look at the calling process: {0}")]
    Io(#[from] io::Error),
}

/// See the module's documentation. Clones share the digests.
#[derive(Clone)]
pub(crate) struct UnixAttestor {
    proc: Arc<Path>,
    digests: Arc<Digests>,
    turns: Arc<Turns>,
}

impl Default for UnixAttestor {
    fn default() -> Self {
        Self::over(Path::new("/proc"))
    }
}

impl UnixAttestor {
    fn over(proc: &Path) -> Self {
        Self {
            proc: proc.into(),
            digests: Arc::default(),
            turns: Arc::default(),
        }
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
        let outcome = tokio::task::spawn_blocking(look).await;
        outcome.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    fn attest_blocking(&self, peer: &PeerProcess) -> Result<UnixFacts, UnixError> {
        if peer.pid <= 0 {
            // The kernel shows no pid for a peer outside our own pid namespace.
            return Err(UnixError::OtherNamespace("pid"));
        }
        let process = self.proc.join(peer.pid.to_string());
        let outcome = self.inspect(&process, peer);
        // Last, so that everything above was read from the process that connected.
        if is_alive(peer)? {
            outcome
        } else {
            Err(UnixError::Gone)
        }
    }

    fn inspect(&self, process: &Path, peer: &PeerProcess) -> Result<UnixFacts, UnixError> {
        refuse_pods(&process.join("cgroup"))?;
        self.refuse_other_namespaces(process)?;
        let executable = File::open(process.join("exe")).ok();
        // Both through the one open file, so that an exec in between cannot mix two programs.
        let path = executable.as_ref().and_then(path_of);
        let sha256 = executable.and_then(|file| self.digests.of(file));
        Ok(UnixFacts {
            uid: peer.uid,
            gid: peer.gid,
            path,
            sha256,
        })
    }

    fn refuse_other_namespaces(&self, process: &Path) -> Result<(), UnixError> {
        for name in NAMESPACES {
            let of = |process: PathBuf| fs::read_link(process.join("ns").join(name)).ok();
            // Only root sees init's; an agent without root compares with its own.
            let host = of(self.proc.join("1")).or_else(|| of(self.proc.join("self")));
            if let (Some(host), Some(peer)) = (host, of(process.to_path_buf()))
                && host != peer
            {
                return Err(UnixError::OtherNamespace(name));
            }
        }
        Ok(())
    }
}

/// The process that connected has not ended; an ended one makes its pidfd readable.
pub(crate) fn is_alive(peer: &PeerProcess) -> Result<bool, UnixError> {
    let mut fds = [PollFd::new(peer.pidfd.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::ZERO).map_err(io::Error::from)?;
    Ok(ready == 0)
}

fn refuse_pods(cgroup: &Path) -> Result<(), UnixError> {
    let mut text = String::new();
    match File::open(cgroup).and_then(|file| file.take(MAX_CGROUP).read_to_string(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UnixError::Gone),
        Err(error) => Err(error.into()),
        Ok(_) if names_a_pod(&text) => Err(UnixError::InPod),
        Ok(_) => Ok(()),
    }
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
