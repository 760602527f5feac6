//! What the machine lets a test do. A test that needs more is ignored, and says in its attribute what it needs and who runs it.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

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

/// Set in the process that [`has_own_mounts`] has started.
const INSIDE: &str = "SIGNET_TEST_MOUNTS";

/// True in a process whose mounts nobody else on the machine sees. Elsewhere the test of this name, with its modules, is run again in one
/// and has passed there. Without root it takes a user namespace too; where the machine gives none, the test fails.
pub fn has_own_mounts(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let private = [as_root(), &["--mount", "--propagation", "private"]].concat();
    let output = Command::new("unshare")
        .args(private)
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}
