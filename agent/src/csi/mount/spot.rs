//! A place in the file system where something is mounted, held by its parent folder: whatever links lead there, and whatever
//! becomes of them meanwhile, every call means the same place.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatVfsMountFlags, Statx, StatxAttributes, StatxFlags, mkdirat, open,
    statvfs, statx, unlinkat,
};

/// Nothing in a pod's folder is run, trusted or changed.
const SEALS: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
/// The same as a mount tells them.
const SEALED: StatVfsMountFlags = StatVfsMountFlags::RDONLY
    .union(StatVfsMountFlags::NOSUID)
    .union(StatVfsMountFlags::NODEV)
    .union(StatVfsMountFlags::NOEXEC);

const NOTHING: Option<&str> = None;

/// Which directory it is, whatever it is called: device and inode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Node {
    device: (u32, u32),
    inode: u64,
}

impl Node {
    /// Of what a path leads to.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
        Ok(Self::from(&found))
    }
}

impl From<&Statx> for Node {
    fn from(found: &Statx) -> Self {
        Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        }
    }
}

/// A name in a folder that is held.
pub(super) struct Spot {
    parent: OwnedFd,
    name: OsString,
}

impl Spot {
    /// The place of this path, whose parent folder must exist.
    pub(super) fn find(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            parent: open(parent, flags, Mode::empty())?,
            name: name.to_owned(),
        })
    }

    /// Makes a directory here, unless there is one. A link could point anywhere: refused.
    pub(super) fn make_directory(&self) -> io::Result<()> {
        match self.look()? {
            Some(found) if FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory => Ok(()),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "the target is there and is not a directory",
            )),
            None => Ok(mkdirat(&self.parent, &self.name, Mode::from_raw_mode(0o750))?),
        }
    }

    /// What is mounted here, on top of what else is.
    pub(super) fn mounted(&self) -> io::Result<Option<Node>> {
        let Some(found) = self.look()? else {
            return Ok(None);
        };
        if !found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel does not tell where something is mounted; Linux 5.8 and later do",
            ));
        }
        let is_mounted = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        Ok(is_mounted.then(|| Node::from(&found)))
    }

    /// Whether nothing can be written, run or trusted through what is mounted here.
    pub(super) fn is_sealed(&self) -> io::Result<bool> {
        Ok(statvfs(self.path())?.f_flag.contains(SEALED))
    }

    /// Shows this directory here, as its mount is.
    pub(super) fn bind(&self, source: &Path) -> io::Result<()> {
        Ok(mount(
            Some(source),
            &self.path(),
            NOTHING,
            MsFlags::MS_BIND,
            NOTHING,
        )?)
    }

    /// Makes what is mounted here nobody else's, and seals it.
    pub(super) fn seal(&self) -> io::Result<()> {
        let change = |flags| mount(NOTHING, &self.path(), NOTHING, flags, NOTHING);
        change(MsFlags::MS_PRIVATE)?;
        Ok(change(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | SEALS)?)
    }

    /// Takes away the uppermost mount.
    pub(super) fn unmount(&self) -> io::Result<()> {
        Ok(umount2(
            &self.path(),
            MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
        )?)
    }

    /// Takes away every mount and the directory; none is fine.
    pub(super) fn clear(&self) -> io::Result<()> {
        while self.mounted()?.is_some() {
            self.unmount()?;
        }
        match unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Where the kernel finds it, for as long as this value lives.
    pub(super) fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.parent.as_raw_fd().to_string())
            .join(&self.name)
    }

    fn look(&self) -> io::Result<Option<Statx>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match statx(&self.parent, &self.name, flags, StatxFlags::BASIC_STATS) {
            Ok(found) => Ok(Some(found)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
