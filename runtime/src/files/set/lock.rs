//! The lock that writers of one folder hold. It is on a file that only its owner may open, for whoever may open a file may hold a lock on
//! it, and so keep every set from being replaced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::files::{FileError, failed};

/// Its name in the folder: neither a generation's nor that of something on its way.
pub(super) const NAME: &str = "..lock";

/// How long is waited for another writer: so many of these steps.
const STEP: Duration = Duration::from_millis(10);
pub(super) const STEPS: u32 = 3_000;

/// Held while this lives.
pub(super) struct Lock {
    held: File,
}

impl Lock {
    /// Once no other process writes into the directory.
    #[expect(
        clippy::disallowed_methods,
        reason = "a lock on a file cannot be waited for with a limit"
    )]
    pub(super) fn take(directory: &Path, steps: u32) -> Result<Self, FileError> {
        let path = directory.join(NAME);
        for _ in 0..steps {
            let file = match open(&path) {
                // It is another user's, who has written here before: those of this one can only be told from each other.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(directory),
                opened => opened,
            };
            let file = file.map_err(failed(&path, "open the lock of the folder"))?;
            match file.try_lock() {
                Ok(()) if leads_here(&path, &file) => return Ok(Self { held: file }),
                // It was removed before this one had it, and the next writer makes another.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => thread::sleep(STEP),
                Err(TryLockError::Error(error)) => {
                    return Err(failed(&path, "lock the folder")(error));
                }
            }
        }
        let held = "another process holds the lock and does not end: `fuser` names it by the path of the lock or the folder";
        let held = io::Error::new(io::ErrorKind::TimedOut, held);
        Err(failed(&path, "lock the folder")(held))
    }

    /// What time it is by the file system's clock, which takes no room there.
    pub(super) fn time(&self) -> Option<SystemTime> {
        let now = TimeSpec::UTIME_NOW;
        futimens(&self.held, &now, &now).ok()?;
        self.held.metadata().ok()?.modified().ok()
    }
}

/// Made by the first writer. Opened before it is made, for not even root may make what is another's where a folder is everybody's.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags.bits());
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match options.create_new(true).mode(0o600).open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    options.create_new(false).open(path)?
                }
                made => made?,
            }
        }
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file: remove it")),
    }
}

/// Whether the next writer finds the same one, or has to do without as this one does.
fn leads_here(path: &Path, file: &File) -> bool {
    let Ok(held) = file.metadata() else { return false };
    held.is_dir()
        || fs::symlink_metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()))
}
