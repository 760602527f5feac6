//! The directory, the lock and the files of a store.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::store::OpenError;

/// Name of the database file.
pub(super) const DATABASE: &str = "signet.db";

/// A locked directory with a database file in it.
pub(super) struct StoreFiles {
    database: PathBuf,
    /// The kernel lets go of it when the process ends, however it ends.
    _lock: Flock<File>,
}

impl StoreFiles {
    /// Makes what is missing and takes the lock.
    pub(super) fn prepare(dir: &Path) -> Result<Self, OpenError> {
        make_directory(dir)?;
        let lock = lock(&dir.join("signet.lock"))?;
        let database = dir.join(DATABASE);
        // SQLite gives its log and index the mode of the database, so making this file first settles all three.
        make_file(&database)?;
        sync_directory(dir)?;
        Ok(Self {
            database,
            _lock: lock,
        })
    }

    pub(super) fn database(&self) -> &Path {
        &self.database
    }
}

/// Bytes that a start writes at least: the index of the log, and the first rows.
const FIRST_WRITES: u64 = 1 << 20;

/// What keeps a store in `dir` from being opened, where that is the disk: SQLite says little more than that it failed.
pub(super) fn because_of_the_disk(dir: &Path, error: OpenError) -> OpenError {
    if !matches!(error, OpenError::Io { .. } | OpenError::Database { .. }) {
        return error;
    }
    let Ok(disk) = statvfs(dir) else { return error };
    let (dir, cause) = (dir.to_owned(), Box::new(error));
    if disk.flags().contains(FsFlags::ST_RDONLY) {
        return OpenError::ReadOnly { dir, cause };
    }
    // What the log holds goes into the database once it is recovered.
    let log = dir.join("signet.db-wal").metadata().map_or(0, |log| log.len());
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    match log.saturating_add(FIRST_WRITES).saturating_sub(free) {
        0 => *cause,
        missing => OpenError::DiskFull { dir, missing, cause },
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

fn make_directory(dir: &Path) -> Result<(), OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("create the data directory", dir))?;
    let mode = dir
        .metadata()
        .map_err(io_error("read the data directory", dir))?
        .mode();
    // The group may write: that is how Kubernetes hands over volumes. Whoever else may write could swap the files.
    if mode & 0o002 != 0 {
        return Err(OpenError::Exposed { path: dir.to_owned() });
    }
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
}

fn make_file(path: &Path) -> Result<(), OpenError> {
    private().open(path).map(drop).map_err(io_error("open", path))
}

fn lock(path: &Path) -> Result<Flock<File>, OpenError> {
    let file = private().open(path).map_err(io_error("open", path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => OpenError::InUse {
            path: path.to_owned(),
        },
        errno => io_error("lock", path)(errno.into()),
    })
}

fn sync_directory(dir: &Path) -> Result<(), OpenError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))
}
