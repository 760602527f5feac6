//! Room on the disk for what protects. Issuing stops while there is still some, and a file keeps more of it, which is given up for
//! revocations, lists and the journal alone: a disk that fills lets the revoked in nowhere.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

/// What the file keeps: a list of the longest, twice, with the database's log of it.
const KEPT: u64 = 8 << 20;
/// Where less than this is free, nothing is issued: what was begun ends within it.
const LEFT: u64 = 4 << 20;

/// Whether there is room for what can wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Space {
    Enough,
    Short,
}

/// What is to be done about the file, with so much free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Keep,
    GiveUp,
    Nothing,
}

const fn step(free: u64, kept: bool, protecting: bool) -> Step {
    if !kept && free >= KEPT + 2 * LEFT {
        Step::Keep
    } else if kept && protecting && free < LEFT {
        Step::GiveUp
    } else {
        Step::Nothing
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PathBuf,
    kept: bool,
    /// The disk cannot promise room, so nothing is refused for the lack of it.
    is_off: bool,
    space: Space,
}

impl Reserve {
    /// In the folder of the store; what an earlier process kept is kept on.
    pub(super) fn of(dir: &Path) -> Self {
        let mut reserve = Self {
            dir: dir.to_owned(),
            kept: false,
            is_off: false,
            space: Space::Enough,
        };
        reserve.kept = fs::metadata(reserve.path()).is_ok_and(|file| file.len() == KEPT);
        reserve.look(false);
        reserve
    }

    fn path(&self) -> PathBuf {
        self.dir.join("signet.reserve")
    }

    /// Looks at the disk before something is written, and gives the file up where something that protects would find no room.
    pub(super) fn look(&mut self, protecting: bool) -> Space {
        let Ok(disk) = statvfs(&self.dir) else {
            return Space::Enough;
        };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        match step(free, self.kept, protecting) {
            Step::Keep if !self.is_off => self.keep(),
            Step::GiveUp => self.give_up(),
            _ => {}
        }
        let space = match self.is_off || (self.kept && free >= LEFT) {
            true => Space::Enough,
            false => Space::Short,
        };
        if std::mem::replace(&mut self.space, space) != space {
            let dir = self.dir.display();
            match space {
                Space::Enough => tracing::info!(%dir, "the disk has room again: certificates are issued"),
                Space::Short => {
                    tracing::error!(%dir, free, "the disk is nearly full: revocations, lists and authorities are still written, nothing is issued");
                }
            }
        }
        space
    }

    fn keep(&mut self) {
        match allocate(&self.path()) {
            Ok(()) => self.kept = true,
            Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) => {
                drop(fs::remove_file(self.path()));
            }
            Err(error) => {
                tracing::warn!(%error, file = %self.path().display(), "no room on the disk can be kept for revocations");
                self.is_off = true;
            }
        }
    }

    fn give_up(&mut self) {
        if let Err(error) = fs::remove_file(self.path()) {
            tracing::error!(%error, file = %self.path().display(), "the room that was kept cannot be given up");
        }
        self.kept = false;
    }
}

fn allocate(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    posix_fallocate(options.open(path)?, 0, KEPT.cast_signed())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_up_for_what_protects_alone_and_kept_again_once_there_is_plenty() {
        let plenty = KEPT + 2 * LEFT;
        for (free, kept, protecting, expected) in [
            (plenty, false, false, Step::Keep),
            (plenty, true, true, Step::Nothing),
            (plenty - 1, false, true, Step::Nothing),
            (LEFT, true, true, Step::Nothing),
            (LEFT - 1, true, false, Step::Nothing),
            (LEFT - 1, true, true, Step::GiveUp),
            (KEPT, false, true, Step::Nothing),
        ] {
            assert_eq!(
                step(free, kept, protecting),
                expected,
                "{free} {kept} {protecting}"
            );
        }
    }

    #[test]
    fn a_folder_on_a_disk_with_room_keeps_some() {
        let folder = signet_testkit::folder();
        let mut reserve = Reserve::of(folder.path());
        assert_eq!(reserve.look(true), Space::Enough);
        assert_eq!(fs::metadata(reserve.path()).unwrap().len(), KEPT);
        assert!(Reserve::of(folder.path()).kept);
    }
}
