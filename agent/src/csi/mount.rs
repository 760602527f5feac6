//! The only system calls of the driver that touch mounts.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Makes a pod's socket directory appear at kubelet's target.
pub trait Mounter: Send + Sync {
    /// Shows `source` at `target`, read-only; again is fine.
    ///
    /// # Errors
    /// From the kernel.
    fn bind(&self, source: &Path, target: &Path) -> io::Result<()>;

    /// Undoes [`Mounter::bind`] and removes `target`; nothing to undo is fine.
    ///
    /// # Errors
    /// From the kernel.
    fn unbind(&self, target: &Path) -> io::Result<()>;
}

/// Bind mounts. Needs CAP_SYS_ADMIN and, in a container, bidirectional mount propagation below kubelet's folder.
#[derive(Debug, Default)]
pub(crate) struct BindMounter;

impl Mounter for BindMounter {
    fn bind(&self, source: &Path, target: &Path) -> io::Result<()> {
        make_target(target)?;
        // A mount of something else is what an agent left behind whose directory is gone.
        while is_mount_point(target)? && !same_directory(source, target)? {
            umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
        let none: Option<&str> = None;
        if !is_mount_point(target)? {
            mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
        }
        // A bind mount takes its flags only in a second step. Also for one that is there already: an agent that died between
        // the two steps left it writable.
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        if let Err(error) = mount(none, target, none, flags, none) {
            // Never leave a writable mount behind.
            let _ = umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            return Err(error.into());
        }
        Ok(())
    }

    fn unbind(&self, target: &Path) -> io::Result<()> {
        // A crash between two publishes could have stacked mounts.
        while is_mount_point(target)? {
            umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
        remove_if_there(fs::remove_dir(target))
    }
}

/// No mounts and no privileges: `target` becomes a link to `source`. For machines where pods are directories.
#[derive(Debug, Default)]
pub struct LinkMounter;

impl Mounter for LinkMounter {
    fn bind(&self, source: &Path, target: &Path) -> io::Result<()> {
        match fs::read_link(target) {
            Ok(there) if there == source => return Ok(()),
            Ok(_) => fs::remove_file(target)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => fs::remove_dir(target)?,
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        std::os::unix::fs::symlink(source, target)
    }

    fn unbind(&self, target: &Path) -> io::Result<()> {
        remove_if_there(fs::remove_file(target))
    }
}

fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// kubelet makes the parent only. A link at the target could point anywhere: refused.
fn make_target(target: &Path) -> io::Result<()> {
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "the target is there and is not a directory",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(target),
        Err(error) => Err(error),
    }
}

fn same_directory(left: &Path, right: &Path) -> io::Result<bool> {
    let (left, right) = (fs::metadata(left)?, fs::symlink_metadata(right)?);
    Ok((left.dev(), left.ino()) == (right.dev(), right.ino()))
}

fn is_mount_point(target: &Path) -> io::Result<bool> {
    let file = fs::File::open("/proc/self/mountinfo")?;
    for line in BufReader::new(file).split(b'\n') {
        if mount_point(&line?).as_deref() == Some(target) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fifth field of a line of mountinfo, with its octal escapes undone (proc(5)).
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escape = (first == b'\\').then(|| tail.get(..3)).flatten();
        let octal = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                path.push(byte);
                rest = &tail[3..];
            }
            None => {
                path.push(first);
                rest = tail;
            }
        }
    }
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let line = br"36 35 98:0 /mnt1 /var/lib/a\040b\134c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/var/lib/a b\c")));
        assert_eq!(mount_point(b"short line"), None);
        assert!(is_mount_point(Path::new("/proc")).unwrap());
    }

    #[test]
    fn links_come_and_go_and_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("pods/u/mount"));
        fs::create_dir(&source).unwrap();
        let mounter = LinkMounter;
        mounter.bind(&source, &target).unwrap();
        mounter.bind(&source, &target).unwrap();
        assert_eq!(fs::read_link(&target).unwrap(), source);
        mounter.unbind(&target).unwrap();
        mounter.unbind(&target).unwrap();
        assert!(!target.exists() && source.exists());
    }

    #[test]
    fn a_link_at_the_target_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("mount");
        std::os::unix::fs::symlink("/etc", &target).unwrap();
        assert!(BindMounter.bind(dir.path(), &target).is_err());
    }
}
