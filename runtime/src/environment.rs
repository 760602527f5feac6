//! The variables of the environment that count. Everything else that a program does is in its configuration and on its
//! command line; docs/operating.md shows this table.

use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::unistd::{AccessFlags, access};

use crate::uds::MAX_PATH_BYTES;

/// A variable that changes what a program does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Which programs look at it.
    pub who: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Makes constants of names and the table of them.
macro_rules! variables {
    ($($constant:ident = $name:literal, $who:literal, $meaning:literal;)+) => {
        $(
            #[doc = $meaning]
            pub const $constant: &str = $name;
        )+

        /// Every variable that counts, in the order of docs/operating.md.
        pub const VARIABLES: &[Variable] = &[$(Variable { name: $name, who: $who, meaning: $meaning }),+];
    };
}

variables! {
    RUST_LOG = "RUST_LOG", "server, agent, `signet-dev`", "which lines are logged; `info` where it is not set";
    RUST_BACKTRACE = "RUST_BACKTRACE", "server, agent", "`1`: the line about a panic says where the thread was";
    SERVER_CONFIG = "SIGNET_SERVER_CONFIG", "server", "the file of `run` and `validate`, where `--config` does not name one";
    ADMIN_SOCKET = "SIGNET_ADMIN_SOCKET", "server", "where the commands find the running server, without `--admin-socket`";
    AGENT_CONFIG = "SIGNET_AGENT_CONFIG", "agent", "the file of `run` and `validate`, where `--config` does not name one";
    AGENT_ADMIN_SOCKET = "SIGNET_AGENT_ADMIN_SOCKET", "agent", "where the commands find the running agent, without `--admin-socket`";
    NODE_NAME = "SIGNET_NODE_NAME", "agent", "the name of the node, where `node.name` is empty";
    ENDPOINT_SOCKET = "SPIFFE_ENDPOINT_SOCKET", "agent, the library for workloads", "the Workload API that is asked, without `--socket`";
    KUBERNETES_HOST = "KUBERNETES_SERVICE_HOST", "server", "with the next one: the API server of the cluster in whose pod it runs, for a cluster without `kubeconfig` and `api_server`";
    KUBERNETES_PORT = "KUBERNETES_SERVICE_PORT", "server", "its port";
    NOTIFY_SOCKET = "NOTIFY_SOCKET", "server, agent", "where systemd is told that the program serves, what stands in the way, and that it ends; no child gets it";
    TMPDIR = "TMPDIR", "`signet-dev`", "where its folder is made without `--dir`, if sockets there have paths that fit";
}

/// The text of a variable; `None` where it is not set, or is no text.
#[must_use]
pub fn text(variable: &str) -> Option<String> {
    env::var(variable).ok()
}

/// Where folders are made whose sockets have paths that are too long below `TMPDIR`.
const SHORT: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Where temporary folders are made: below `TMPDIR`, if a socket that lies at `longest` below it has a path that fits; else below another
/// folder where it does and where this user may write; `TMPDIR` where there is none.
#[must_use]
pub fn temporary_for(longest: &Path) -> PathBuf {
    let temporary = env::temp_dir();
    let fits = |parent: &Path| {
        let resolved = fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
        resolved.join(longest).as_os_str().len() <= MAX_PATH_BYTES
    };
    if fits(&temporary) {
        return temporary;
    }
    let is_usable =
        |parent: &&Path| fits(parent) && access(*parent, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    let short = SHORT.iter().map(Path::new).find(is_usable);
    short.map_or(temporary, Path::to_owned)
}
