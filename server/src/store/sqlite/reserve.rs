//! Room on the disk for what protects. Issuing stops while there is still some, and a file keeps more of it, which is lent to
//! revocations, lists and the journal alone: a disk that fills lets the revoked in nowhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

const MIB: u64 = 1 << 20;
/// What the file keeps: the database's log at its longest goes into the database within it.
const KEPT: u64 = 16 * MIB;
/// Where less than this is free, nothing is issued: what was begun ends within it.
const LEFT: u64 = 8 * MIB;
/// What is free before something that protects is written: the longest list, as the log has it, nearly twice.
const SLICE: u64 = 6 * MIB;
/// What the file leaves to others when it takes back what it lent.
const SPARE: u64 = MIB;

/// Whether there is room for what can wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Space {
    Enough,
    Short,
}

/// Length of the file, now `kept`, that leaves `room` bytes free where `free` are, as far as it can.
const fn lent(free: u64, kept: u64, room: u64) -> u64 {
    kept.saturating_sub(room.saturating_sub(free))
}

/// Length of the file, now `kept`, that takes what is free beyond `leave` bytes.
fn taken(free: u64, kept: u64, leave: u64) -> u64 {
    kept.saturating_add(free.saturating_sub(leave))
        .min(KEPT)
        .max(kept)
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PathBuf,
    /// Bytes that the file really takes.
    kept: u64,
    /// The file system promises nobody room, so only what is free now counts.
    is_off: bool,
    /// What was free before something was lent: the file leaves no more than that to others when it takes it back.
    free_before: u64,
    /// The disk took less than it had promised, as with a quota: what it says is free is not believed.
    is_pressed: bool,
    /// Why the file could not be made as long as it should be; said once.
    failed: Option<io::ErrorKind>,
    space: Space,
}

impl Reserve {
    /// In the folder of the store; what an earlier process kept is kept on, but for the room that opening a database takes.
    pub(super) fn of(dir: &Path) -> Self {
        let mut reserve = Self {
            dir: dir.to_owned(),
            kept: 0,
            is_off: false,
            free_before: 0,
            is_pressed: false,
            failed: None,
            space: Space::Enough,
        };
        reserve.measure();
        reserve.look(true);
        reserve
    }

    fn path(&self) -> PathBuf {
        self.dir.join("signet.reserve")
    }

    /// The log of the database in the same folder.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("signet.db-wal")
    }

    /// What can be had, as far as that is known.
    fn free(&self) -> Option<u64> {
        if self.is_pressed {
            return Some(0);
        }
        let disk = statvfs(&self.dir).ok()?;
        Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    /// Looks at the disk before something is written. What protects finds room as long as there is some.
    pub(super) fn look(&mut self, protecting: bool) -> Space {
        if !protecting {
            self.try_again();
        }
        // A disk that cannot be asked says what is wrong when it is written to.
        let Some(free) = self.free() else {
            return Space::Enough;
        };
        self.free_before = free;
        let length = match protecting && free < SLICE {
            true => lent(free, self.kept, SLICE),
            false => taken(free, self.kept, LEFT),
        };
        self.resize(length);
        let missing = self.missing();
        let space = if missing == 0 { Space::Enough } else { Space::Short };
        if std::mem::replace(&mut self.space, space) != space {
            let dir = self.dir.display();
            match space {
                Space::Enough => tracing::info!(%dir, "the disk has room again: certificates are issued"),
                Space::Short => {
                    tracing::error!(%dir, free, missing, "the disk is nearly full: revocations, lists and authorities are still written, nothing is issued until `missing` bytes more are free");
                }
            }
        }
        space
    }

    /// What was found at the last look.
    pub(super) const fn space(&self) -> Space {
        self.space
    }

    /// Bytes to free before certificates are issued.
    fn missing(&self) -> u64 {
        let owed = if self.is_off {
            0
        } else {
            KEPT - self.kept.min(KEPT)
        };
        (owed + LEFT).saturating_sub(self.free().unwrap_or(u64::MAX))
    }

    /// Why what can wait is refused, and what to do.
    pub(super) fn refusal(&self) -> String {
        let (free, missing) = (self.free().unwrap_or(0), self.missing());
        format!(
            "the disk of {} is nearly full ({free} bytes are free), and what is left is kept for revocations: free at least {missing} bytes there",
            self.dir.display()
        )
    }

    /// Whether so many bytes are free. What protects is lent what is missing.
    pub(super) fn has_room(&mut self, room: u64, protecting: bool) -> bool {
        if protecting && let Some(free) = self.free() {
            self.resize(lent(free, self.kept, room));
        }
        self.free().is_some_and(|free| free >= room)
    }

    /// Takes back what was lent, before somebody else on the disk does: of that nobody gets anything.
    pub(super) fn take_back(&mut self) {
        // Under a quota only the attempt shows what there is.
        let free = match self.is_pressed {
            true => KEPT + SPARE,
            false => self.free().unwrap_or(0),
        };
        self.resize(taken(free, self.kept, self.free_before.min(SPARE)));
    }

    /// A write found no room, whatever the disk says is free.
    pub(super) const fn found_none(&mut self) {
        self.is_pressed = true;
    }

    fn resize(&mut self, length: u64) {
        if length == self.kept || (self.is_off && length > self.kept) {
            return;
        }
        let failed = set_length(&self.path(), self.kept, length).err();
        self.measure();
        let kind = failed.as_ref().map(io::Error::kind);
        if let Some(error) = failed {
            let errno = error.raw_os_error().map(Errno::from_raw);
            self.is_off = matches!(errno, Some(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS));
            let is_full = matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT));
            self.is_pressed |= is_full;
            if !is_full && self.failed != kind {
                tracing::warn!(%error, file = %self.path().display(), "no room on the disk can be kept for revocations");
            }
        }
        self.failed = kind;
    }

    /// Looks whether a disk that took less than it promised takes more now.
    fn try_again(&mut self) {
        if std::mem::take(&mut self.is_pressed) {
            self.resize(KEPT);
            self.is_pressed = !self.is_off && self.kept < KEPT;
        }
    }

    /// A file with holes, from a copy of the folder, keeps nothing where they are.
    fn measure(&mut self) {
        self.kept =
            fs::metadata(self.path()).map_or(0, |file| file.len().min(file.blocks().saturating_mul(512)));
    }
}

fn set_length(path: &Path, from: u64, to: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file: File = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if to > from {
        posix_fallocate(file, 0, to.cast_signed())?;
        return Ok(());
    }
    file.set_len(to)
}

#[cfg(test)]
mod tests;
