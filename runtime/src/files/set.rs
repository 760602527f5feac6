//! Sets of files that belong together, each published by one rename.
//!
//! ```text
//! DIR/..42/svid.pem …          one generation, complete before anybody sees it
//! DIR/..data -> ..42           the one link that changes
//! DIR/svid.pem -> ..data/svid.pem, and so on for each name
//! ```
//! Whoever resolves `DIR/..data` once and opens what is in there finds files that fit together, whatever is written
//! meanwhile. The layout is that of Kubernetes' volumes, so that whatever follows those follows these.
//!
//! Writers of one folder come one after the other: each holds its lock, `DIR/..lock`. So whatever in it is neither published nor a
//! generation of the past was left by one that was killed, and goes. A generation that was replaced stays for readers who
//! have resolved `..data` already: the last one until the next writing, and each for ten seconds. Those whose time is over go before the
//! next one is written: a folder that they have filled is of use again by itself.

mod lock;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

pub use self::lock::LONGEST_TURN;
use self::lock::{Lock, STEPS};
use super::{FileError, failed, make_dir, sweep};

/// The link that changes.
const DATA: &str = "..data";
/// How the names of everything begin that is no file of a set.
const OWN: &str = "..";
/// How the names of links end that are not in their place yet. One is enough, as there is one writer.
const NEW: &str = ".new";

/// Mode of a generation: whoever may pass the folder itself may open those of its files that are for everybody.
const PASSABLE: u32 = 0o755;
/// Bits of a file that is not whose it has to be yet.
const OWN_ONLY: u32 = 0o600;

/// Longest name of a file in a set, in bytes: for its link on the way it has to fit into a name of 255.
pub const LONGEST_NAME: usize = 255 - OWN.len() - NEW.len();

/// How long a generation stays that was replaced, however many come after it: for a reader that opens what it has resolved.
const GRACE: Duration = Duration::from_secs(10);

/// One file of a set.
#[derive(Clone, Copy)]
pub struct NewFile<'a> {
    /// In its folder, and at the top; of one part, and not beginning with two dots.
    pub name: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
    /// Exactly this, whatever the umask is.
    pub mode: u32,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose a file is, by number; what is left out stays that of the process that writes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Owner {
    /// The user. Another one than its own needs privileges.
    pub uid: Option<u32>,
    /// The group. Without privileges one of the process's own.
    pub gid: Option<u32>,
}

/// How a set is published: readers find it.
#[derive(Debug)]
#[must_use]
pub enum Shown {
    /// By all of its names, whatever happens to the machine.
    Whole,
    /// Not by each name at the top, or not after a loss of power, because of this.
    Partly(FileError),
}

/// Publishes the files as one set in `directory`, which is made when it is missing. Plain files of these names are replaced by
/// links. Any number of processes of one user and of root may do so at once: the last one's set stays. Blocks while others write, for
/// [`LONGEST_TURN`].
///
/// # Errors
/// [`FileError`]; then readers find what they found before.
pub fn publish(directory: &Path, files: &[NewFile<'_>]) -> Result<Shown, FileError> {
    make_dir(directory)?;
    let folder = Folder {
        path: directory,
        opened: File::open(directory).map_err(failed(directory, "open the directory"))?,
        lock: Lock::take(directory, STEPS)?,
    };
    files.iter().try_for_each(|file| folder.check(file.name))?;
    let published = folder.published();
    folder.remove_unpublished(published);
    // Behind the last number there is, which nobody reaches who counts, the first comes again.
    let next = published.map_or(Some(1), |number| number.0.checked_add(1));
    let next = Number(next.unwrap_or(1));
    // What nobody reads any more takes none of the room that the next one needs.
    folder.remove_past(folder.lock.time().map(|now| (next, now)));
    let mut fresh = Fresh::make(folder.of(next))?;
    fresh.fill(files)?;
    folder.link(DATA, &next.name())?;
    fresh.shown = true;
    // Each is tried, also after one that failed.
    let linked = files.iter().map(|file| folder.link_at_top(file.name));
    let linked = linked.fold(Ok(()), Result::and);
    let synced = folder.sync();
    folder.remove_past(None);
    Ok(match linked.and(synced) {
        Ok(()) => Shown::Whole,
        Err(error) => Shown::Partly(error),
    })
}

/// Which generation: they are counted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Number(u64);

impl Number {
    fn name(self) -> String {
        format!("{OWN}{}", self.0)
    }

    fn of_name(name: &str) -> Option<Self> {
        let number = Self(name.strip_prefix(OWN)?.parse().ok()?);
        (number.name() == name).then_some(number)
    }
}

/// A folder whose only writer this is.
struct Folder<'a> {
    path: &'a Path,
    opened: File,
    lock: Lock,
}

impl Folder<'_> {
    fn of(&self, number: Number) -> PathBuf {
        self.path.join(number.name())
    }

    /// What readers find.
    fn published(&self) -> Option<Number> {
        let target = fs::read_link(self.path.join(DATA)).ok()?;
        Number::of_name(target.to_str()?)
    }

    fn entries(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let entries = fs::read_dir(self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
    }

    /// Every generation that is there, oldest first.
    fn generations(&self) -> Vec<Number> {
        let mut found: Vec<_> = self
            .entries()
            .filter_map(|(name, _)| Number::of_name(&name))
            .collect();
        found.sort_unstable();
        found
    }

    /// What killed writers have left: generations that nobody was shown, and links on their way. What cannot be removed is in
    /// nobody's way but that of its own successor, which says so.
    fn remove_unpublished(&self, published: Option<Number>) {
        for number in self.generations() {
            if published.is_none_or(|published| number > published) {
                let _ = fs::remove_dir_all(self.of(number));
            }
        }
        for (name, path) in self.entries() {
            if name.starts_with(OWN) && name.ends_with(NEW) {
                // Whoever else made a folder of that name stands in the way of the link.
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
    }

    /// A link that leads to `target`, in place of whatever file or link has this name.
    fn link(&self, name: &str, target: &str) -> Result<(), FileError> {
        let temporary = self
            .path
            .join(format!("{OWN}{}{NEW}", name.trim_start_matches('.')));
        symlink(target, &temporary).map_err(failed(&temporary, "make the link"))?;
        let path = self.path.join(name);
        fs::rename(&temporary, &path).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(&path, "put the link in place")(error)
        })
    }

    /// A directory is not replaced: nobody has put it there for us.
    fn check(&self, name: &str) -> Result<(), FileError> {
        let path = self.path.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            return Err(failed(&path, "put a link in its place")(
                io::ErrorKind::IsADirectory.into(),
            ));
        }
        Ok(())
    }

    /// The name by which readers find the file that is published. An earlier version had a plain file there, and left parts of
    /// it when it was killed.
    fn link_at_top(&self, name: &str) -> Result<(), FileError> {
        let target = format!("{DATA}/{name}");
        let path = self.path.join(name);
        if fs::read_link(&path).is_ok_and(|found| found == Path::new(&target)) {
            return Ok(());
        }
        sweep(&path);
        self.link(name, &target)
    }

    fn sync(&self) -> Result<(), FileError> {
        self.opened
            .sync_all()
            .map_err(failed(self.path, "sync the directory"))
    }

    /// Beside those that are there, or beside `next` too, which is about to be filled. Whatever goes wrong may go wrong: the next writer
    /// tries again.
    fn remove_past(&self, next: Option<(Number, SystemTime)>) {
        let filled = |number| fs::metadata(self.of(number)).and_then(|found| found.modified());
        let generations = self.generations().into_iter();
        let dated: Vec<_> = generations
            .filter_map(|number| Some((number, filled(number).ok()?)))
            .chain(next)
            .collect();
        for number in past(&dated) {
            let _ = fs::remove_dir_all(self.of(number));
        }
    }
}

/// Which generations go, of all with the moments when they were filled, oldest first. The file system's clock says how long ago
/// each was replaced; where it has gone back, that was long ago.
fn past(generations: &[(Number, SystemTime)]) -> Vec<Number> {
    let Some((_, now)) = generations.last() else {
        return Vec::new();
    };
    let kept = |replaced: SystemTime| now.duration_since(replaced).is_ok_and(|age| age < GRACE);
    // The one that was replaced just now has no third beside it.
    let outlived = generations.windows(3).filter_map(|three| match three {
        [(number, _), (_, replaced), _] if !kept(*replaced) => Some(*number),
        _ => None,
    });
    outlived.collect()
}

/// A generation that is being filled: gone with this, unless readers were shown it.
struct Fresh {
    path: PathBuf,
    shown: bool,
}

impl Fresh {
    /// What is there already is somebody else's, and stays.
    fn make(path: PathBuf) -> Result<Self, FileError> {
        let made = DirBuilder::new().mode(PASSABLE).create(&path);
        made.map_err(failed(&path, "make the directory"))?;
        Ok(Self { path, shown: false })
    }

    fn fill(&self, files: &[NewFile<'_>]) -> Result<(), FileError> {
        // Whoever else may write the folder may have put a link in its place.
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
            .open(&self.path)
            .map_err(failed(&self.path, "open the directory"))?;
        set_mode(&directory, PASSABLE).map_err(failed(&self.path, "set the mode"))?;
        for file in files {
            write(&directory, &self.path, file)?;
        }
        directory
            .sync_all()
            .map_err(failed(&self.path, "sync the directory"))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.shown {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// In the directory that was opened, whatever goes by its path by now: whoever else may write the folder may have put a link there.
fn write(directory: &File, path: &Path, file: &NewFile<'_>) -> Result<(), FileError> {
    let path = &path.join(file.name);
    // Nobody else may open it before it is of its group: rights of a group are for that one.
    let mode = Mode::from_bits_truncate(file.mode & OWN_ONLY);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = openat(directory, file.name, flags, mode);
    let opened = opened.map_err(|errno| failed(path, "write")(errno.into()))?;
    let opened = File::from(opened);
    let give = |uid, gid| fchown(&opened, uid, gid).map_err(failed(path, "give it its owner"));
    let Owner { uid, gid } = file.owner;
    if gid.is_some() {
        give(None, gid)?;
    }
    (&opened).write_all(file.bytes).map_err(failed(path, "write"))?;
    set_mode(&opened, file.mode).map_err(failed(path, "set the mode"))?;
    // Last: once it is another's, its mode takes one privilege more (CAP_FOWNER beside CAP_CHOWN).
    if uid.is_some() {
        give(uid, None)?;
    }
    opened.sync_all().map_err(failed(path, "sync"))
}

/// The umask has taken bits from the mode that it was made with.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
