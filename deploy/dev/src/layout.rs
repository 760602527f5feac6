//! The folder: whether it may be used, and what an earlier run left there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use signet_runtime::{environment, files::make_dir, uds::MAX_PATH_BYTES};

/// Name of the one node, and of its folder.
pub(crate) const NODE: &str = "laptop";
/// Says that the folders beside it are ours to remove.
const MARKER: &str = ".signet-dev";
/// What a run makes and the next one removes.
const OURS: [&str; 4] = ["server", NODE, "kubeconfig", "env"];

/// The longest path of a socket below the folder.
const LONGEST: &str = "laptop/volumes/0123456789abcdef/socket/spiffe.sock";

/// Where a folder of this name is made when nobody says where.
pub(crate) fn parent_for(name: &str) -> PathBuf {
    environment::temporary_for(&Path::new(name).join(LONGEST))
}

/// By how many bytes the path of a socket below this folder is too long.
fn too_long(folder: &Path) -> usize {
    folder
        .join(LONGEST)
        .as_os_str()
        .len()
        .saturating_sub(MAX_PATH_BYTES)
}

/// The folder of one run.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the folder and removes what an earlier run left. Other files are not touched.
    pub(crate) fn prepare(dir: &Path) -> anyhow::Result<Self> {
        make_dir(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let root =
            fs::canonicalize(dir).with_context(|| format!("cannot use the folder {}", dir.display()))?;
        let layout = Self { root };
        layout.check_length()?;
        layout.check_not_running()?;
        let marker = layout.root.join(MARKER);
        for name in OURS {
            let path = layout.root.join(name);
            if fs::symlink_metadata(&path).is_err() {
                continue;
            }
            ensure!(
                marker.exists(),
                "{} is there and not from signet-dev: choose another folder with --dir, or move it away",
                path.display()
            );
            let removed = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.with_context(|| format!("cannot remove {} of an earlier run", path.display()))?;
        }
        fs::write(&marker, "folders beside this file belong to signet-dev\n")
            .with_context(|| format!("cannot write to the folder {}", layout.root.display()))?;
        Ok(layout)
    }

    /// A Unix socket's path has at most 107 bytes; the longest of ours decides.
    fn check_length(&self) -> anyhow::Result<()> {
        let room = too_long(&self.root);
        if room > 0 {
            bail!(
                "the folder {} is too long for Unix sockets: its path must be {room} bytes shorter (--dir)",
                self.root.display()
            );
        }
        Ok(())
    }

    fn check_not_running(&self) -> anyhow::Result<()> {
        if std::os::unix::net::UnixStream::connect(self.root.join("server/admin.sock")).is_ok() {
            bail!(
                "another signet-dev runs in {}: end it, or choose another folder with --dir",
                self.root.display()
            );
        }
        Ok(())
    }

    pub(crate) fn env_file(&self) -> PathBuf {
        self.root.join("env")
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_left_alone_and_foreign_folders_refused() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        fs::create_dir(layout.root.join("server")).unwrap();
        Layout::prepare(dir.path()).unwrap();
        assert!(!layout.root.join("server").exists(), "an earlier run's files go");
        assert!(dir.path().join("notes.txt").exists());

        let foreign = tempfile::tempdir_in("/tmp").unwrap();
        fs::create_dir(foreign.path().join("server")).unwrap();
        let error = Layout::prepare(foreign.path()).unwrap_err().to_string();
        assert!(error.contains("not from signet-dev"), "{error}");
    }

    #[test]
    fn the_longest_socket_is_in_the_folder_of_the_node() {
        assert!(Path::new(LONGEST).starts_with(NODE));
        assert!(too_long(Path::new("/tmp/signet-dev-4294967295")) == 0);
    }

    #[test]
    fn a_folder_too_long_for_sockets_is_refused_by_name() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let long = dir.path().join("x".repeat(80));
        let error = Layout::prepare(&long).unwrap_err().to_string();
        assert!(
            error.contains("too long for Unix sockets") && error.contains("xxxx"),
            "{error}"
        );
    }
}
