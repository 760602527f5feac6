//! The `unix` attestor: who is the process at the other end of the shared socket?
//!
//! uid and gid were taken by the kernel at connect time; path and SHA-256 of the executable come through
//! `/proc/<pid>/exe`. All of it counts only while the pidfd says that the process still lives, which is checked after
//! reading, so that a recycled pid proves nothing. A process of a pod is refused (its identity is the pod's, over the
//! pod's own socket), and so is one outside the host's pid or mount namespace where that can be seen.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ring::digest::{Context, SHA256};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cache::UnixFacts;
use crate::context::PeerProcess;

/// Executables larger than this are not hashed; rules on the hash then do not match.
const MAX_EXECUTABLE: u64 = 1 << 30;

/// Longest path the server takes, which is the kernel's own bound.
const MAX_PATH: usize = 4096;

/// `/proc/<pid>/cgroup` is a few hundred bytes; more is not read.
const MAX_CGROUP: u64 = 64 * 1024;

/// Digests kept, so that a process that connects again costs no second read of its executable.
const MAX_DIGESTS: usize = 256;

/// Processes that are looked at at the same time. A user has one turn: reading a large executable takes seconds, and who
/// touches it or starts copies of it could have it read without end, in place of everybody else's.
const MAX_TURNS: usize = 4;

/// How many users are remembered before forgotten ones are looked for.
const USERS_BEFORE_SWEEP: usize = 256;

/// The namespaces that a peer must share with the host.
const NAMESPACES: [&str; 2] = ["pid", "mnt"];

/// Why a peer is not attested.
#[derive(Debug, Error)]
pub enum UnixError {
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
pub struct UnixAttestor {
    proc: Arc<Path>,
    digests: Arc<Mutex<HashMap<FileVersion, [u8; 32]>>>,
    turns: Arc<Turns>,
}

/// Who may have a process looked at now.
struct Turns {
    all: Arc<Semaphore>,
    by_user: Mutex<HashMap<u32, Weak<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_TURNS)),
            by_user: Mutex::default(),
        }
    }
}

impl Turns {
    /// Waits for the user's turn, then for one of all.
    async fn take(&self, uid: u32) -> io::Result<[OwnedSemaphorePermit; 2]> {
        let own = self.of(uid).acquire_owned().await.map_err(io::Error::other)?;
        let any = self.all.clone().acquire_owned().await.map_err(io::Error::other)?;
        Ok([own, any])
    }

    fn of(&self, uid: u32) -> Arc<Semaphore> {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = by_user.get(&uid).and_then(Weak::upgrade) {
            return turn;
        }
        if by_user.len() >= USERS_BEFORE_SWEEP {
            by_user.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(Semaphore::new(1));
        by_user.insert(uid, Arc::downgrade(&turn));
        turn
    }
}

/// Names one state of one file: whoever changes the contents changes one of these.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
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
    pub async fn attest(&self, peer: &PeerProcess) -> Result<UnixFacts, UnixError> {
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
        let sha256 = executable.and_then(|file| self.digest(file));
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

    fn digest(&self, file: File) -> Option<[u8; 32]> {
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > MAX_EXECUTABLE {
            return None;
        }
        let version = FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if let Some(known) = self.digests().get(&version) {
            return Some(*known);
        }
        let digest = sha256(file.take(MAX_EXECUTABLE)).ok()?;
        let mut digests = self.digests();
        if digests.len() >= MAX_DIGESTS {
            digests.clear();
        }
        digests.insert(version, digest);
        Some(digest)
    }

    fn digests(&self) -> std::sync::MutexGuard<'_, HashMap<FileVersion, [u8; 32]>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process that connected has not ended; an ended one makes its pidfd readable.
pub fn is_alive(peer: &PeerProcess) -> Result<bool, UnixError> {
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

fn path_of(file: &File) -> Option<String> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    path.into_os_string()
        .into_string()
        .ok()
        .filter(|path| path.len() <= MAX_PATH)
}

fn sha256(mut reader: impl Read) -> io::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => context.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(digest)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    use nix::sys::socket::{getsockopt, sockopt};

    use super::*;

    /// This test process, as the kernel shows it to the other end of a socket.
    pub(crate) fn own_peer() -> PeerProcess {
        let (near, _far) = UnixStream::pair().unwrap();
        peer_of(&near)
    }

    fn peer_of(socket: &UnixStream) -> PeerProcess {
        let credentials = getsockopt(socket, sockopt::PeerCredentials).unwrap();
        PeerProcess {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
            pidfd: Arc::new(getsockopt(socket, sockopt::PeerPidfd).unwrap()),
        }
    }

    /// A fake `/proc` with one process of this pid.
    fn fake_proc(pid: i32, cgroup: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let process = directory.path().join(pid.to_string());
        fs::create_dir_all(process.join("ns")).unwrap();
        fs::write(process.join("cgroup"), cgroup).unwrap();
        fs::write(process.join("exe"), "program").unwrap();
        directory
    }

    /// Covers EP-08.
    #[tokio::test]
    async fn a_process_is_known_by_uid_path_and_hash_of_its_executable() {
        let peer = own_peer();
        let facts = UnixAttestor::default().attest(&peer).await.unwrap();
        assert_eq!(
            (facts.uid, facts.gid),
            (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
        );
        let own = std::env::current_exe().unwrap();
        assert_eq!(facts.path.as_deref(), own.to_str());
        assert_eq!(facts.sha256, Some(sha256(File::open(own).unwrap()).unwrap()));
    }

    #[test]
    fn a_process_in_a_pods_cgroup_is_refused() {
        let peer = own_peer();
        for line in [
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-1.scope\n",
            "0::/../../pod8d8f9c2e-0d0a-4c5c-9d0e-2f5d3c1b0a99/5c0ffee\n",
            "0::/../../podfc2e0d0a4c5c9d0e2f5d3c1b0a998d8f\n",
        ] {
            let proc = fake_proc(peer.pid, line);
            let outcome = UnixAttestor::over(proc.path()).attest_blocking(&peer);
            assert!(matches!(outcome, Err(UnixError::InPod)), "{line}: {outcome:?}");
        }
        assert!(!names_a_pod("0::/../system.slice/podman.service\n"));
    }

    #[tokio::test]
    async fn a_user_whose_executable_is_being_read_waits_and_others_do_not() {
        let attestor = UnixAttestor::default();
        let peer = own_peer();
        let reading = attestor.turns.take(peer.uid).await.unwrap();
        let other = tokio::time::timeout(
            std::time::Duration::from_secs(5),
            attestor.turns.take(peer.uid + 1),
        );
        drop(other.await.expect("another user has a turn").unwrap());
        let mut waiting = Box::pin(attestor.attest(&peer));
        let early = futures_util::poll!(waiting.as_mut());
        assert!(early.is_pending(), "one turn for each user");
        drop(reading);
        waiting.await.unwrap();
    }

    #[test]
    fn a_process_outside_the_hosts_namespaces_is_refused() {
        let peer = own_peer();
        let proc = fake_proc(peer.pid, "0::/user.slice\n");
        let link = |pid: &str, inode: &str| {
            let ns = proc.path().join(pid).join("ns");
            fs::create_dir_all(&ns).unwrap();
            std::os::unix::fs::symlink(format!("mnt:[{inode}]"), ns.join("mnt")).unwrap();
        };
        link("1", "4026531841");
        link(&peer.pid.to_string(), "4026532999");
        let outcome = UnixAttestor::over(proc.path()).attest_blocking(&peer);
        assert!(
            matches!(outcome, Err(UnixError::OtherNamespace("mnt"))),
            "{outcome:?}"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_left_out() {
        let peer = own_peer();
        let proc = fake_proc(peer.pid, "0::/user.slice\n");
        fs::remove_file(proc.path().join(peer.pid.to_string()).join("exe")).unwrap();
        let facts = UnixAttestor::over(proc.path()).attest_blocking(&peer).unwrap();
        assert_eq!((facts.path, facts.sha256), (None, None));
        let outside = PeerProcess { pid: 0, ..peer };
        let outcome = UnixAttestor::over(proc.path()).attest_blocking(&outside);
        assert!(matches!(outcome, Err(UnixError::OtherNamespace("pid"))));
    }

    /// Covers EP-26, BG-16.
    #[test]
    fn an_ended_process_is_gone_even_if_its_pid_lives_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "unix::tests::connects_when_another_test_asks_for_it"])
            .env(CONNECT_TO, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (near, _) = listener.accept().unwrap();
        let ended = peer_of(&near);
        child.wait().unwrap();
        // A living pid beside the ended process's pidfd: what a recycled pid looks like.
        let peer = PeerProcess {
            pid: own_peer().pid,
            ..ended
        };
        let outcome = UnixAttestor::default().attest_blocking(&peer);
        assert!(matches!(outcome, Err(UnixError::Gone)), "{outcome:?}");
    }

    const CONNECT_TO: &str = "SIGNET_TEST_CONNECT_TO";

    /// The other process of the test above; nothing to do otherwise.
    #[test]
    fn connects_when_another_test_asks_for_it() {
        if let Some(path) = std::env::var_os(CONNECT_TO) {
            UnixStream::connect(path).unwrap();
        }
    }
}
