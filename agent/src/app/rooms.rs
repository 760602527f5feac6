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
/// For a door that is shut.
const NONE: Wish = wish(0, 0);

const fn wish(least: usize, most: usize) -> Wish {
    Wish { least, most }
}

/// Which doors there are besides health and metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doors {
    /// The driver's: volumes, and the pods that they are of.
    pub(super) volumes: bool,
    /// The shared socket's: users.
    pub(super) shared: bool,
}

impl Doors {
    const fn wishes(self) -> [Wish; 4] {
        let (volumes, pods) = if self.volumes {
            (VOLUMES, PODS)
        } else {
            (NONE, NONE)
        };
        [TELEMETRY, volumes, pods, if self.shared { USERS } else { NONE }]
    }
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
    pub(super) fn of_process(doors: Doors) -> anyhow::Result<Self> {
        Self::within(open_files().context("the limit of open files")?, doors)
    }

    fn within(files: usize, doors: Doors) -> anyhow::Result<Self> {
        let wishes = doors.wishes();
        let Some([telemetry, volumes, pods, users]) = divide(files.saturating_sub(OWN), wishes) else {
            let least = OWN + wishes.iter().map(|wish| wish.least).sum::<usize>();
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

    const ALL: Doors = Doors {
        volumes: true,
        shared: true,
    };

    #[test]
    fn few_files_serve_everybody_and_too_few_say_so() {
        for files in [64, 128] {
            let refused = Rooms::within(files, ALL).unwrap_err().to_string();
            let named = format!("may open {files} files, and needs 152 at least");
            assert!(
                refused.contains(&named) && refused.contains("LimitNOFILE"),
                "{refused}"
            );
        }
        for files in [152, 256, 1024, 4096, 20_000, 1 << 20] {
            let rooms = Rooms::within(files, ALL).unwrap();
            let taken = rooms.telemetry + rooms.volumes + rooms.pods + 2 * rooms.users;
            assert!(taken + OWN <= files, "{files}: {rooms:?}");
            assert!(
                rooms.pods >= 24 && rooms.users >= 8 && rooms.volumes >= 32,
                "{files}: {rooms:?}"
            );
        }
        let plenty = Rooms::within(1 << 20, ALL).unwrap();
        assert_eq!((plenty.pods, plenty.users, plenty.volumes), (10_000, 4096, 4096));
    }

    #[test]
    fn a_door_that_is_shut_takes_no_files() {
        let without = Doors { shared: false, ..ALL };
        let (all, more) = (
            Rooms::within(1024, ALL).unwrap(),
            Rooms::within(1024, without).unwrap(),
        );
        assert_eq!(more.users, 0);
        assert!(more.volumes > all.volumes && more.pods > all.pods, "{more:?}");
        let shared = Doors {
            volumes: false,
            ..ALL
        };
        let users = Rooms::within(1024, shared).unwrap();
        assert!(users.volumes == 0 && users.pods == 0 && users.users > all.users);
    }
}
