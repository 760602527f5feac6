//! What the machine lets a test do, and how a test says that it was not let.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

/// What makes whoever `unshare` runs root: nothing where this process is root, else a user namespace.
pub fn as_root() -> &'static [&'static str] {
    // It belongs to the effective user.
    match fs::metadata("/proc/self").unwrap().uid() {
        0 => &[],
        _ => &["--user", "--map-root-user"],
    }
}

/// Whether `unshare` with these arguments runs a program here: it takes root, or user namespaces where the arguments ask for one, and
/// a sandbox may refuse both.
pub fn can_unshare(args: &[&str]) -> bool {
    let probe = Command::new("unshare").args(args).arg("true").output();
    probe.is_ok_and(|ended| ended.status.success())
}

/// Says that a test, or a part of it, was skipped, and what it needs: past the harness, which hides what a test that passes prints.
pub fn skipped(test: &str, needs: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED (needs {needs}): {test}");
}
