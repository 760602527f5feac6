//! The lock that writers of one folder hold. It is on a file that only its owner may open, for whoever may open a file may hold a lock on
//! it, and so keep every set from being replaced.
//!
//! Writers are of the folder's owner and of root, who opens everything (with CAP_DAC_OVERRIDE). So what root makes belongs to the folder's owner from the moment
//! it is seen. A lock of root's in another's folder is set aside, by that one or by root: it is renamed, and whoever holds
//! the new one waits until nobody holds the old.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use nix::unistd::geteuid;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::clock::{Clock as _, SystemClock};
use crate::files::{FileError, create, failed};

/// Its name in the folder: neither a generation's nor that of something on its way.
pub(super) const NAME: &str = "..lock";
/// That of one that was set aside. What writers have left behind ends otherwise, and goes while this may be held.
pub(super) const ASIDE: &str = "..lock.was";
/// Nobody else may open it.
const MODE: u32 = 0o600;
/// Who may open all of them.
const ROOT: u32 = 0;

/// How long is waited for another writer: so many of these steps.
const STEP: Duration = Duration::from_millis(10);
pub(super) const STEPS: u32 = 3_000;
/// The same as a time, but for what each step does beside waiting.
pub const LONGEST_TURN: Duration = STEP.saturating_mul(STEPS);
/// How long a lock of root's stays that was set aside and that the folder's owner cannot open: who holds it, or is about to, writes a set.
const ASIDE_STAYS: Duration = Duration::from_secs(10);

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
            let opened = open(directory, &path).map_err(failed(&path, "open the lock of the folder"))?;
            let Some(file) = opened else {
                thread::sleep(STEP);
                continue;
            };
            match file.try_lock() {
                // It was removed before this one had it, and the next writer makes another.
                Ok(()) if !leads_here(&path, &file) => {}
                Ok(()) => match is_free_of_the_last(directory)? {
                    true => return Ok(Self { held: file }),
                    false => {
                        drop(file);
                        thread::sleep(STEP);
                    }
                },
                Err(TryLockError::WouldBlock) => thread::sleep(STEP),
                Err(TryLockError::Error(error)) => {
                    return Err(failed(&path, "lock the folder")(error));
                }
            }
        }
        let held =
            "another process holds the lock and does not end: `fuser` names it by the path of the lock";
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

/// Made by the first writer; nothing where it is to be tried again. Opened before it is made, for not even root may make what is another's
/// where a folder is everybody's.
fn open(directory: &Path, path: &Path) -> io::Result<Option<File>> {
    let file = match existing(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(directory, path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return set_aside(directory, path).map(|()| None);
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file: remove it"));
    }
    // Not given away: the folder's owner may have put any file of root's there, to have it.
    if geteuid().is_root() && found.uid() == ROOT && fs::metadata(directory)?.uid() != ROOT {
        return set_aside(directory, path).map(|()| None);
    }
    Ok(Some(file))
}

fn existing(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags.bits());
    options.open(path)
}

fn make(directory: &Path, path: &Path) -> io::Result<Option<File>> {
    let owner = fs::metadata(directory)?.uid();
    if !geteuid().is_root() || owner == ROOT {
        let mut options = OpenOptions::new();
        let made = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(path);
        return match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            made => made.map(Some),
        };
    }
    // Nobody finds one that its owner cannot open.
    let (temporary, file) = create(directory, NAME.as_ref(), MODE)?;
    let given = fchown(&file, Some(owner), None).map_err(|error| {
        let said = format!(
            "it has to be the folder's owner's, user {owner}, and cannot be given to him, for which root needs CAP_CHOWN: {error}"
        );
        io::Error::new(error.kind(), said)
    });
    let placed =
        given.and_then(
            |()| match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(true),
                // Another writer was faster, or has removed it as something left behind.
                Err(Errno::EXIST | Errno::NOENT) => Ok(false),
                Err(errno) => Err(errno.into()),
            },
        );
    if !matches!(placed, Ok(true)) {
        let _ = fs::remove_file(&temporary);
    }
    Ok(placed?.then_some(file))
}

/// Makes way for another one, where it is certain whose the folder is. It is not removed: somebody may have opened and locked it since.
fn set_aside(directory: &Path, path: &Path) -> io::Result<()> {
    let (me, folder) = (geteuid().as_raw(), fs::metadata(directory)?.uid());
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.uid(),
    };
    if (me != folder && me != ROOT) || (found != me && found != ROOT) {
        let said = match me {
            ROOT => format!("it is user {found}'s, and without CAP_DAC_OVERRIDE root may not open it"),
            _ => format!(
                "it is user {found}'s, and this one, {me}, may not open it: a folder has the writers of one user and of root; give each \
                 user a folder of its own, or remove the lock once nobody else writes there"
            ),
        };
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
    }
    match renameat_with(CWD, path, CWD, directory.join(ASIDE), RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // The one that was set aside before goes first.
        Err(Errno::EXIST) => is_free_of_the_last(directory).map(drop).map_err(io::Error::from),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether nobody holds the one that was set aside, which is gone then.
fn is_free_of_the_last(directory: &Path) -> Result<bool, FileError> {
    let path = directory.join(ASIDE);
    let opened = match existing(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        // Root holds none in another's folder that it has not given away; but the folder may have been root's until just now.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && owns(directory) => {
            if is_fresh(&path, SystemClock.now()) {
                return Ok(false);
            }
            None
        }
        opened => Some(opened.map_err(failed(&path, "open the lock of before"))?),
    };
    if let Some(file) = &opened {
        match file.try_lock() {
            Ok(()) if !leads_here(&path, file) => return Ok(false),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(failed(&path, "lock it")(error)),
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, "remove it")(error)),
        _ => Ok(true),
    }
}

/// Whether it was set aside a moment ago. Where the clock has gone back, that was long ago.
fn is_fresh(path: &Path, now: SystemTime) -> bool {
    let set_aside = fs::symlink_metadata(path).ok().and_then(|found| {
        let (seconds, nanoseconds) = (found.ctime(), found.ctime_nsec());
        let since = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since)
    });
    set_aside.is_some_and(|then| now.duration_since(then).is_ok_and(|age| age < ASIDE_STAYS))
}

fn owns(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.uid() == geteuid().as_raw())
}

/// Whether the next writer finds the same one.
fn leads_here(path: &Path, file: &File) -> bool {
    let Ok(held) = file.metadata() else { return false };
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()))
}
