//! How a pod's socket folder appears at kubelet's target. What is mounted where is asked of the kernel by identity, never read
//! from the text of a path: kubelet's folder may be reached by links.

mod spot;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::spot::{Node, Spot};

/// Name beside a socket folder under which it is mounted for a moment, to be made read-only.
const SEALED: &str = "sealed";

/// What was found at a target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bound {
    /// The folder was shown there already.
    Before,
    /// Nothing was there.
    Anew,
    /// Another folder was shown there. Containers that run hold it.
    InPlaceOfAnother,
}

/// Makes a pod's socket directory appear at kubelet's target.
pub trait Mounter: Send + Sync {
    /// Shows `source` at `target`, read-only; again is fine.
    ///
    /// # Errors
    /// From the kernel.
    fn bind(&self, source: &Path, target: &Path) -> io::Result<Bound>;

    /// Undoes [`Mounter::bind`] and removes `target`; nothing to undo is fine.
    ///
    /// # Errors
    /// From the kernel.
    fn unbind(&self, source: &Path, target: &Path) -> io::Result<()>;
}

/// Bind mounts. Needs CAP_SYS_ADMIN and, in a container, bidirectional mount propagation below kubelet's `pods`.
#[derive(Debug, Default)]
pub(crate) struct BindMounter;

impl Mounter for BindMounter {
    fn bind(&self, source: &Path, target: &Path) -> io::Result<Bound> {
        let target = Spot::find(target)?;
        target.make_directory()?;
        let wanted = Node::of(source)?;
        if target.mounted()? == Some(wanted) && target.is_sealed()? {
            return Ok(Bound::Before);
        }
        // The flags of a bind mount cannot be changed for whom it has propagated to: they are set before, elsewhere. What fails there
        // leaves the target as it is, or kubelet's next call would no longer find whose place it takes.
        let sealed = Sealed::make(source)?;
        let mut bound = Bound::Anew;
        while let Some(shown) = target.mounted()? {
            if shown != wanted {
                bound = Bound::InPlaceOfAnother;
            }
            target.unmount()?;
        }
        target.bind(&sealed.spot.path())?;
        Ok(bound)
    }

    fn unbind(&self, source: &Path, target: &Path) -> io::Result<()> {
        for place in [target, &source.with_file_name(SEALED)] {
            match Spot::find(place) {
                Ok(spot) => spot.clear()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A mount of a socket folder that is read-only and private, beside that folder; gone when dropped.
struct Sealed {
    spot: Spot,
    folder: PathBuf,
}

impl Sealed {
    fn make(source: &Path) -> io::Result<Self> {
        let folder = source.with_file_name(SEALED);
        let spot = Spot::find(&folder)?;
        // An agent that was killed meanwhile left it.
        spot.clear()?;
        spot.make_directory()?;
        let sealed = Self { spot, folder };
        sealed.spot.bind(source)?;
        sealed.spot.seal()?;
        Ok(sealed)
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if let Err(error) = self.spot.clear() {
            tracing::warn!(
                folder = %self.folder.display(),
                %error,
                "a folder was not unmounted after it had been made read-only; the next call does"
            );
        }
    }
}

/// No mounts and no privileges: `target` becomes a link to `source`. For machines where pods are directories.
#[derive(Debug, Default)]
pub struct LinkMounter;

impl Mounter for LinkMounter {
    fn bind(&self, source: &Path, target: &Path) -> io::Result<Bound> {
        match fs::read_link(target) {
            Ok(there) if there == source => return Ok(Bound::Before),
            Ok(_) => fs::remove_file(target)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => fs::remove_dir(target)?,
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        std::os::unix::fs::symlink(source, target)?;
        Ok(Bound::Anew)
    }

    fn unbind(&self, _: &Path, target: &Path) -> io::Result<()> {
        match fs::remove_file(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
