//! What the machine lets a test do. A test that needs more is ignored, and says in its attribute what it needs and who runs it.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

/// Longest path of where tests make the folders of their sockets, whose paths may have 107 bytes.
const SHORT: usize = 24;

/// Where folders are made below which there is room for the paths of sockets, whatever TMPDIR says. `certs` compiles this too, and
/// knows no runtime, which has more to say about it (`environment::temporary_for`).
pub fn short_parent() -> PathBuf {
    let usual = env::temp_dir();
    let is_short = usual.as_os_str().len() <= SHORT;
    if is_short { usual } else { PathBuf::from("/tmp") }
}

/// A folder of a test's own, below which there is room for the paths of sockets.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(short_parent()).unwrap()
}

/// What makes whoever `unshare` runs root: nothing where this process is root, else a user namespace.
pub fn as_root() -> &'static [&'static str] {
    // It belongs to the effective user.
    match fs::metadata("/proc/self").unwrap().uid() {
        0 => &[],
        _ => &["--user", "--map-root-user"],
    }
}
