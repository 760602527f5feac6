//! How many connections and volumes there may be, out of the files that this process may open: no caller can use up what another needs, nor
//! what the agent itself does.

use anyhow::Context;
use signet_runtime::limits::{Wish, divide, open_files};

use crate::sockets::Settings;

/// Files for everything else: listeners, the server, kubelet, administrators, executables that are read, the runtime's own.
const OWN: usize = 72;

const TELEMETRY: Wish = wish(8, 32);
/// Each is a listener.
const VOLUMES: Wish = wish(32, 4096);
/// Connections of pods.
const PODS: Wish = wish(24, 10_000);
/// Connections of users are two files each: the other names the process.
const USERS: Wish = wish(16, 8192);
const WISHES: [Wish; 4] = [TELEMETRY, VOLUMES, PODS, USERS];

const fn wish(least: usize, most: usize) -> Wish {
    Wish { least, most }
}

/// What there is room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rooms {
    /// Connections to health and metrics.
    pub(super) telemetry: usize,
    /// Volumes of pods.
    pub(super) volumes: usize,
    pods: usize,
    users: usize,
}

impl Rooms {
    /// Within the limit of this process.
    ///
    /// # Errors
    /// When it is too low to serve anybody.
    pub(super) fn of_process() -> anyhow::Result<Self> {
        Self::within(open_files().context("the limit of open files")?)
    }

    fn within(files: usize) -> anyhow::Result<Self> {
        let Some([telemetry, volumes, pods, users]) = divide(files.saturating_sub(OWN), WISHES) else {
            let least = OWN + WISHES.iter().map(|wish| wish.least).sum::<usize>();
            anyhow::bail!(
                "this process may open {files} files, and needs {least} at least: raise its limit (LimitNOFILE= of systemd, ulimit -n)"
            );
        };
        Ok(Self {
            telemetry,
            volumes,
            pods,
            users: users / 2,
        })
    }

    /// For the workload sockets.
    pub(super) fn settings(self) -> Settings {
        Settings {
            connections_of_pods: self.pods,
            connections_of_users: self.users,
            ..Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_serve_everybody_and_too_few_say_so() {
        for files in [64, 128] {
            let refused = Rooms::within(files).unwrap_err().to_string();
            let named = format!("may open {files} files, and needs 152 at least");
            assert!(
                refused.contains(&named) && refused.contains("LimitNOFILE"),
                "{refused}"
            );
        }
        for files in [152, 256, 1024, 4096, 20_000, 1 << 20] {
            let rooms = Rooms::within(files).unwrap();
            let taken = rooms.telemetry + rooms.volumes + rooms.pods + 2 * rooms.users;
            assert!(taken + OWN <= files, "{files}: {rooms:?}");
            assert!(
                rooms.pods >= 24 && rooms.users >= 8 && rooms.volumes >= 32,
                "{files}: {rooms:?}"
            );
        }
        let plenty = Rooms::within(1 << 20).unwrap();
        assert_eq!((plenty.pods, plenty.users, plenty.volumes), (10_000, 4096, 4096));
    }
}
