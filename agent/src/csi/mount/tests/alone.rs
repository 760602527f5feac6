//! Mounts that nobody else on the machine sees: a test runs itself again in a mount namespace of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use nix::mount::{MsFlags, mount};
use signet_testkit::machine::as_root;

/// Set in the process that has the namespace.
const INSIDE: &str = "SIGNET_TEST_MOUNTS";

/// Runs `inside` with a tmpfs whose mounts others may share, as those of a node are. `test` is the test's name with its modules.
/// Without root it takes a user namespace too; where the machine gives none, the test fails.
pub(crate) fn alone(test: &str, inside: impl FnOnce(&Path)) {
    if env::var_os(INSIDE).is_none() {
        return again(test);
    }
    let dir = signet_testkit::folder();
    let none: Option<&str> = None;
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mount(none, dir.path(), none, MsFlags::MS_SHARED, none).unwrap();
    inside(dir.path());
}

fn again(test: &str) {
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
}

/// What another mount namespace sees, into which mounts propagate from this one: the host, seen from a container.
pub(crate) struct Peer(Child);

impl Peer {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "unchanged", "cat"]);
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let peer = Self(child);
        // It is `cat` once it has the namespace.
        while fs::read_to_string(peer.file("comm")).unwrap().trim() != "cat" {
            std::thread::yield_now();
        }
        peer
    }

    /// Mounts at this path, resolved, with their options.
    pub(crate) fn mounts_at(&self, path: &Path) -> Vec<String> {
        mounts_at(&self.file("mountinfo"), path)
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same in this namespace.
pub(crate) fn own_mounts_at(path: &Path) -> Vec<String> {
    mounts_at("/proc/self/mountinfo", path)
}

fn mounts_at(file: &str, path: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| Path::new(fields[4]) == path)
        .map(|fields| fields[5].to_owned())
        .collect()
}
