//! Unix sockets: created with exactly the mode asked for, replacing only what is dead.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

use crate::files::parent;

/// Longest path of a Unix socket that a client can name, in bytes (Linux; `sun_path` less its zero).
pub const MAX_PATH_BYTES: usize = 107;

/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Why a socket cannot be had.
#[derive(Debug, Error)]
pub enum UdsError {
    /// Another process serves this socket.
    #[error("{}: another process is listening here; stop it or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something failed in the file system or the kernel.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is something else at the path, which is not ours to delete.
    #[error("{}: exists and is not a socket; move it away or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// No client could name this path.
    #[error(
        "{}: the path has {} bytes, a Unix socket's may have {MAX_PATH_BYTES}; choose a shorter one",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
}

/// Listens at `path` with exactly `mode` (such as `0o600`) and, if given, that owner.
///
/// A socket nobody listens on any more is replaced; a live one, and anything that is not a socket, is refused. The socket
/// is made under another name and renamed when it is complete, so that it never has a wider mode and clients find
/// the old or the new one, never none. Must be called inside a tokio runtime.
///
/// # Errors
/// See [`UdsError`].
pub fn bind(path: &Path, mode: u32, uid: Option<u32>, gid: Option<u32>) -> Result<UnixListener, UdsError> {
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(UdsError::TooLong(path.into()));
    }
    refuse_unless_replaceable(path)?;
    let temporary = Temporary::beside(path);
    let socket = listening(&temporary.0, mode).map_err(failed(path, "create the socket"))?;
    if uid.is_some() || gid.is_some() {
        lchown(&temporary.0, uid, gid).map_err(failed(path, "set the owner"))?;
    }
    // The mode last: a change of owner may clear bits, and the umask has taken some away.
    set_mode(&temporary.0, mode).map_err(failed(path, "set the mode"))?;
    fs::rename(&temporary.0, path).map_err(failed(path, "put the socket in place"))?;
    UnixListener::from_std(socket).map_err(failed(path, "listen"))
}

/// Whether [`bind`] would succeed, as far as that can be known without leaving anything behind.
///
/// # Errors
/// What `bind` would say.
pub fn try_bind(path: &Path) -> Result<(), UdsError> {
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(UdsError::TooLong(path.into()));
    }
    refuse_unless_replaceable(path)?;
    let temporary = Temporary::beside(path);
    listening(&temporary.0, 0o600)
        .map(drop)
        .map_err(failed(path, "create the socket"))
}

/// Connects to the socket at `path`.
///
/// # Errors
/// When nobody listens there or the path is too long; the message names the path.
pub async fn connect(path: &Path) -> Result<UnixStream, UdsError> {
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(UdsError::TooLong(path.into()));
    }
    UnixStream::connect(path).await.map_err(failed(path, "connect"))
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> UdsError {
    let path = path.to_path_buf();
    move |source| UdsError::Io { path, action, source }
}

fn refuse_unless_replaceable(path: &Path) -> Result<(), UdsError> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed(path, "look at the path"))?.file_type(),
    };
    if !kind.is_socket() {
        return Err(UdsError::NotASocket(path.into()));
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        Ok(()) | Err(Errno::EAGAIN) => Err(UdsError::InUse(path.into())),
        Err(error) => Err(failed(path, "find out whether the socket is in use")(
            error.into(),
        )),
    }
}

/// Connects without waiting: a full queue (EAGAIN) belongs to a live listener.
fn probe(path: &Path) -> Result<(), Errno> {
    let socket = stream_socket()?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// A listening socket at `path` whose mode is `mode` less the umask from the moment it exists (Linux gives a socket's
/// file the mode of the unbound descriptor). Nobody can connect before `listen`.
fn listening(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    let socket = stream_socket()?;
    fchmod(&socket, Mode::from_bits_truncate(mode))?;
    if path.as_os_str().len() <= MAX_PATH_BYTES {
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    } else {
        // The temporary name may be longer than the final one; then the directory is named by its descriptor.
        let (directory, name) = (parent(path), path.file_name().unwrap_or_default());
        let directory = File::open(directory)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(&short)?)?;
    }
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

/// Sets the mode of a socket's file, never of what a link leads to that someone put in its place.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("something else was put in its place"));
    }
    // A descriptor of this kind has no `fchmod`; the link in /proc leads to exactly this file.
    let exactly = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(exactly, fs::Permissions::from_mode(mode))
}

/// A name in the same directory, removed again unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".{:x}.{count:x}", std::process::id());
        let temporary = parent(path).join(name);
        // A leftover of a crashed process with our number; whatever else is there makes `bind` fail.
        if fs::symlink_metadata(&temporary).is_ok_and(|found| found.file_type().is_socket()) {
            let _ = fs::remove_file(&temporary);
        }
        Self(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already after the rename.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Where TMPDIR leads a socket's path could be too long.
    fn directory() -> TempDir {
        tempfile::tempdir_in("/tmp").unwrap()
    }

    fn names(directory: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// Covers EP-24.
    #[tokio::test]
    async fn the_mode_is_exact_whatever_the_umask() {
        let directory = directory();
        for mode in [0o600, 0o660, 0o666, 0o777] {
            let path = directory.path().join(format!("{mode:o}.sock"));
            let listener = bind(&path, mode, None, None).unwrap();
            assert_eq!(mode_of(&path), mode);
            let (client, server) = tokio::join!(connect(&path), listener.accept());
            client.unwrap();
            server.unwrap();
        }
        assert_eq!(names(&directory).len(), 4, "no temporary names are left");
    }

    #[tokio::test]
    async fn the_mode_of_what_a_link_leads_to_is_left_alone() {
        let directory = directory();
        let (target, link) = (directory.path().join("shadow"), directory.path().join("link"));
        fs::write(&target, "mine").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(set_mode(&link, 0o777).is_err());
        assert!(set_mode(&target, 0o777).is_err());
        assert_eq!(mode_of(&target), 0o600);
    }

    /// Covers EP-24.
    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let directory = directory();
        let path = directory.path().join("agent.sock");
        drop(bind(&path, 0o600, None, None).unwrap());
        assert!(path.exists());
        let listener = bind(&path, 0o600, None, None).unwrap();
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        client.unwrap();
        server.unwrap();
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_even_with_a_full_queue() {
        let directory = directory();
        let path = directory.path().join("agent.sock");
        let live = bind(&path, 0o600, None, None).unwrap();
        assert!(matches!(bind(&path, 0o600, None, None), Err(UdsError::InUse(_))));
        socket::listen(&live, Backlog::new(0).unwrap()).unwrap();
        let full = bind(&path, 0o600, None, None).unwrap_err();
        assert!(
            full.to_string().contains("another process is listening"),
            "{full}"
        );
        assert_eq!(names(&directory), ["agent.sock"]);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_never_deleted() {
        let directory = directory();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [&path, &link, &directory.path().to_path_buf()] {
            assert!(matches!(
                bind(path, 0o600, None, None),
                Err(UdsError::NotASocket(_))
            ));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    /// Covers EP-24.
    #[tokio::test]
    async fn paths_of_107_bytes_work_and_longer_ones_are_named() {
        let directory = directory();
        let root = directory.path().as_os_str().len() + 1;
        // A one-letter name in a deep directory: the temporary name would be too long.
        let deep = directory.path().join("d".repeat(MAX_PATH_BYTES - root - 2));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("s");
        assert_eq!(path.as_os_str().len(), MAX_PATH_BYTES);
        let listener = bind(&path, 0o640, None, None).unwrap();
        assert_eq!(mode_of(&path), 0o640);
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        client.unwrap();
        server.unwrap();
        let error = bind(&deep.join("ss"), 0o600, None, None).unwrap_err();
        assert!(error.to_string().contains("has 108 bytes"), "{error}");
        assert!(matches!(
            connect(&deep.join("ss")).await,
            Err(UdsError::TooLong(_))
        ));
    }

    #[tokio::test]
    async fn errors_name_the_path_and_the_step() {
        let directory = directory();
        let path = directory.path().join("absent/agent.sock");
        let error = bind(&path, 0o600, None, None).unwrap_err().to_string();
        assert!(
            error.contains("absent/agent.sock: cannot create the socket"),
            "{error}"
        );
        let error = connect(&path).await.unwrap_err().to_string();
        assert!(error.contains("absent/agent.sock: cannot connect"), "{error}");
    }
}
