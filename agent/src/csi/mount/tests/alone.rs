//! Mounts that nobody else on the machine sees: a test runs itself again in a mount namespace of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use signet_testkit::machine::has_own_mounts;

/// Runs `inside` with a tmpfs whose mounts others may share, as those of a node are. `test` is the test's name with its modules.
pub(crate) fn alone(test: &str, inside: impl FnOnce(&Path)) {
    if !has_own_mounts(test) {
        return;
    }
    let dir = signet_testkit::folder();
    let none: Option<&str> = None;
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mount(none, dir.path(), none, MsFlags::MS_SHARED, none).unwrap();
    inside(dir.path());
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
