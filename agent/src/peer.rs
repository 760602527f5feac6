//! The process at the other end of a Unix socket: what the kernel noted of it when it connected, and whether it still is what it was.
//!
//! Credentials are those of whoever connected, for as long as the connection lasts. Who reads what it is sent may be another: a child that
//! inherited the socket, or a process that was handed it. So the uid is what counts, and whoever connects speaks for all that he lets
//! read. The program is known from the moment the connection was taken; what the process ran between connecting and that moment nobody
//! can tell.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use thiserror::Error;

/// Where the kernel shows processes.
pub(crate) const PROC: &str = "/proc";

/// A caller on the shared socket: credentials taken by the kernel when it connected.
#[derive(Clone)]
pub struct PeerProcess {
    /// User id at connect time, in the agent's user namespace.
    pub uid: u32,
    /// Group id at connect time.
    pub gid: u32,
    /// Process id in the agent's PID namespace; may have been recycled since, so trust it only with `pidfd`.
    pub pid: i32,
    /// Names the connecting process for ever, also after its pid is reused; readable once the process has ended.
    pub pidfd: Arc<OwnedFd>,
    /// What it ran when the connection was taken; nothing where that cannot be seen.
    pub program: Option<Program>,
}

/// One state of one executable file: whoever writes to it changes it, and no user can set the time of its last change back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Program {
    file: FileId,
    changed: (i64, i64),
}

/// Device and inode.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct FileId((u32, u32), u64);

/// A connection whose other end is not any more what connected.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum Changed {
    /// It ended, or its pid belongs to another process by now.
    #[error("the calling process has ended; connect again")]
    Gone,
    /// It executed something else, or its executable was written to, replaced or removed.
    #[error(
        "the calling process runs another program than when it connected, or its file was changed; connect again"
    )]
    Program,
}

impl PeerProcess {
    /// The peer of an accepted stream. Needs Linux 6.5 or later for the pidfd. Waits for no file system.
    ///
    /// # Errors
    /// When the kernel does not say, for instance because the peer has ended and been reaped, or lives outside the agent's
    /// PID namespace.
    pub(crate) fn of(stream: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        let pidfd = getsockopt(stream, sockopt::PeerPidfd)?;
        if credentials.pid() <= 0 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the peer is outside the agent's PID namespace",
            ));
        }
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
            pidfd: Arc::new(pidfd),
            program: Program::at(&executable(Path::new(PROC), credentials.pid())),
        })
    }

    /// It has not ended; an ended process makes its pidfd readable.
    pub(crate) fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    /// Whether it is what connected: the same process, running the same program. Waits for no file system.
    ///
    /// # Errors
    /// [`Changed`]; what it is now is not known then.
    pub(crate) fn unchanged(&self) -> Result<(), Changed> {
        self.unchanged_in(Path::new(PROC))
    }

    /// The same by another `/proc`.
    pub(crate) fn unchanged_in(&self, proc: &Path) -> Result<(), Changed> {
        let program = Program::at(&executable(proc, self.pid));
        // Last, so that what was read is of this process.
        if !self.is_alive() {
            return Err(Changed::Gone);
        }
        if program == self.program {
            Ok(())
        } else {
            Err(Changed::Program)
        }
    }
}

/// A peer, for as long as the connection is open over which it called. It keeps no file open.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    uid: u32,
    gid: u32,
    pid: i32,
    pidfd: Weak<OwnedFd>,
    program: Option<Program>,
}

impl Connected {
    /// While this connection is open.
    pub(crate) fn of(peer: &PeerProcess) -> Self {
        Self {
            uid: peer.uid,
            gid: peer.gid,
            pid: peer.pid,
            pidfd: Arc::downgrade(&peer.pidfd),
            program: peer.program,
        }
    }

    /// The peer; none once the connection has ended.
    pub(crate) fn peer(&self) -> Option<PeerProcess> {
        Some(PeerProcess {
            uid: self.uid,
            gid: self.gid,
            pid: self.pid,
            pidfd: self.pidfd.upgrade()?,
            program: self.program,
        })
    }

    /// Whether the connection is open, and its other end is what connected.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.peer().is_some_and(|peer| peer.unchanged().is_ok())
    }

    /// Whether it is that peer's connection.
    pub(crate) fn is_of(&self, peer: &PeerProcess) -> bool {
        std::ptr::eq(self.pidfd.as_ptr(), Arc::as_ptr(&peer.pidfd))
    }
}

fn executable(proc: &Path, pid: i32) -> PathBuf {
    proc.join(pid.to_string()).join("exe")
}

impl Program {
    /// By what is known of the file already: a caller whose file system does not answer holds up nobody.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let found = statx(CWD, path, flags, StatxFlags::INO | StatxFlags::CTIME).ok()?;
        Some(Self {
            file: FileId((found.stx_dev_major, found.stx_dev_minor), found.stx_ino),
            changed: (found.stx_ctime.tv_sec, i64::from(found.stx_ctime.tv_nsec)),
        })
    }

    /// Of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let device = found.dev();
        Ok(Self {
            file: FileId(
                (rustix::fs::major(device), rustix::fs::minor(device)),
                found.ino(),
            ),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// The same for all states of one file.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }
}

impl std::fmt::Debug for PeerProcess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "uid {} gid {} pid {}", self.uid, self.gid, self.pid)
    }
}
