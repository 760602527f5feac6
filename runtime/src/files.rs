//! Files replaced whole: a reader, and whoever starts after a crash, finds the old content or the new, never a part.
//!
//! New content is written beside the file, under a name that no other writer has, and renamed over it once it is
//! complete. Its writer holds a lock on it until then: one that nobody holds was left by a process that was killed, and
//! the next writer of that file removes it. All calls block.

mod set;

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use thiserror::Error;

pub use self::set::{LONGEST_NAME, LONGEST_TURN, NewFile, Owner, Shown, publish};

/// End of the names of files that are being written.
const SUFFIX: &str = ".new";
/// Hexadecimal digits of chance in such a name.
const RANDOM_DIGITS: usize = 16;
/// Names tried before giving up; a second one is already rare.
const ATTEMPTS: usize = 16;

/// Whether a change has to outlive a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk, file and directory, when the call returns.
    Durable,
    /// It outlives this process but not the machine, and costs no wait for the disk: for what a restart makes worthless.
    Volatile,
}

/// Something failed in the file system.
#[derive(Debug, Error)]
#[error("{}: cannot {action}: {source}", path.display())]
pub struct FileError {
    /// The file or directory that was asked for.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// What the system said.
    pub source: io::Error,
}

impl From<FileError> for io::Error {
    /// Keeps the kind, and the path in the message.
    fn from(error: FileError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Puts `bytes` at `path` with exactly `mode` (such as `0o600`), whatever was there and whatever the umask is. A link at
/// the path is replaced, not followed. The directory must exist.
///
/// # Errors
/// [`FileError`]; then the old file is in place, unless it was the directory that could not be synced.
pub fn replace(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<(), FileError> {
    Staged::write(path, bytes, mode, durability)?.put_in_place()
}

/// New content of a file, complete beside it. Dropped without [`put_in_place`](Self::put_in_place) it is gone: so
/// several files can be written before the first is changed.
#[derive(Debug)]
#[must_use = "put it in place"]
pub struct Staged {
    path: PathBuf,
    temporary: PathBuf,
    durability: Durability,
    /// Holds the lock.
    file: File,
}

impl Staged {
    /// Writes `bytes` beside `path`; see [`replace`].
    ///
    /// # Errors
    /// [`FileError`]; nothing is left behind.
    pub fn write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<Self, FileError> {
        let name = path
            .file_name()
            .ok_or_else(|| failed(path, "write")(io::ErrorKind::InvalidInput.into()))?;
        sweep(path);
        let (temporary, file) =
            create(parent(path), name, mode).map_err(failed(path, "make a file beside it"))?;
        let mut staged = Self {
            path: path.to_owned(),
            temporary,
            durability,
            file,
        };
        staged.fill(bytes, mode).map_err(failed(path, "write"))?;
        Ok(staged)
    }

    fn fill(&mut self, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.file.write_all(bytes)?;
        // The umask has taken bits from the mode it was made with.
        self.file.set_permissions(Permissions::from_mode(mode))?;
        match self.durability {
            Durability::Durable => self.file.sync_all(),
            Durability::Volatile => Ok(()),
        }
    }

    /// Renames it over the file.
    ///
    /// # Errors
    /// [`FileError`]; see [`replace`].
    pub fn put_in_place(self) -> Result<(), FileError> {
        fs::rename(&self.temporary, &self.path).map_err(failed(&self.path, "put the new file in place"))?;
        if self.durability == Durability::Durable {
            let directory = parent(&self.path);
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(failed(&self.path, "sync the directory"))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already after the rename.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// The content of a file that has at most `limit` bytes, in one piece of memory that was not moved while it filled: who wipes it
/// wipes all of it. A pipe in its place is not waited for.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when there is none; or it cannot be read, is larger, or is no regular file.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let length = metadata.len();
    if length > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes a directory of this user alone (mode 0700), with those above it that are missing, which everybody may pass. One
/// that is there already gets that mode; one that has it is not touched, so it may lie on a disk that is read only.
///
/// # Errors
/// [`FileError`].
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    if let Some(above) = path.parent() {
        make_dirs(above, PUBLIC, &mut |_| {}).map_err(failed(path, "make the directory above it"))?;
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path, "make the directory"))?;
    ensure_mode(path, 0o700)
}

/// Mode of directories that everybody may look into.
const PUBLIC: u32 = 0o755;

/// Makes a directory that everybody may look into (mode 0755, whatever the umask is), with those above it that are missing.
/// One that is there keeps its mode.
///
/// # Errors
/// [`FileError`].
pub fn make_dir(path: &Path) -> Result<(), FileError> {
    make_dirs(path, PUBLIC, &mut |_| {}).map_err(failed(path, "make the directory"))
}

/// Makes a directory with `mode`, and those above it that are missing with 0755, whatever the umask is; `made` hears of each.
pub(crate) fn make_dirs(path: &Path, mode: u32, made: &mut impl FnMut(&Path)) -> io::Result<()> {
    if path.as_os_str().is_empty() || fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_dirs(above, PUBLIC, made)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            made(path);
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        // Somebody else has just made it, or it is no directory.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sets the mode of a file or directory where it has another.
///
/// # Errors
/// [`FileError`].
pub fn ensure_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    let found = fs::metadata(path).map_err(failed(path, "read the mode"))?.mode();
    if found & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed(path, "set the mode"))
}

/// Removes what killed writers of this file have left beside it. Whatever goes wrong may go wrong: the next writer tries again.
pub fn sweep(path: &Path) {
    let Some(name) = path.file_name() else {
        return;
    };
    let entries = fs::read_dir(parent(path)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary_of(name, &entry.file_name())) {
        // Held while it is removed, so that a writer who has just made it sees that it lost it.
        if let Some(_held) = abandoned(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes the directory that `path` lies in, and those above it, where they are missing, as [`make_dir`] does.
///
/// # Errors
/// [`FileError`].
pub fn make_parent(path: &Path) -> Result<(), FileError> {
    make_dirs(parent(path), PUBLIC, &mut |_| {}).map_err(failed(path, "make the directory for it"))
}

/// The directory that `path` lies in; `.` for a bare name.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Where a path leads: links are followed as far as it exists, and the rest is as it is written.
#[must_use]
pub fn leads_to(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let exists = |above: &Path| {
        Some((
            above.canonicalize().ok()?,
            whole.strip_prefix(above).ok()?.to_owned(),
        ))
    };
    match whole.ancestors().find_map(exists) {
        Some((real, rest)) => real.join(rest),
        None => whole,
    }
}

/// Says of which file an error is, and what could not be done with it: a verb and its object, as [`FileError`] shows it.
pub fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { path, action, source }
}

/// A new, locked file. Another writer's [`sweep`] may get hold of it before it is locked; then the next name is tried.
fn create(directory: &Path, name: &OsStr, mode: u32) -> io::Result<(PathBuf, File)> {
    for _ in 0..ATTEMPTS {
        let temporary = directory.join(temporary_name(name));
        let file = match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => false,
            // Where there are no locks, nobody sweeps.
            Ok(()) | Err(TryLockError::Error(_)) => file.metadata()?.nlink() > 0,
        };
        if locked {
            return Ok((temporary, file));
        }
        let _ = fs::remove_file(&temporary);
    }
    Err(io::Error::other("others take every new file away"))
}

fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:0RANDOM_DIGITS$x}{SUFFIX}", fastrand::u64(..)));
    temporary
}

fn is_temporary_of(name: &OsStr, found: &OsStr) -> bool {
    let random = found
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name.as_encoded_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    random.is_some_and(|random| random.len() == RANDOM_DIGITS && random.iter().all(u8::is_ascii_hexdigit))
}

/// The file, locked, if nobody else holds it.
fn abandoned(path: &Path) -> Option<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .ok()?;
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    (is_file && file.try_lock().is_ok()).then_some(file)
}

#[cfg(test)]
mod tests;
