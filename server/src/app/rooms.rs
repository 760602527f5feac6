//! How many connections each door has, and how many calls to API servers are under way, out of the files that this process may open: none of
//! them can use up what another needs, nor what the store and the logs do.

use anyhow::Context;
use signet_runtime::limits::{Wish, divide, open_files};

use crate::api::listener;

/// Files for everything but connections: the store, logs, listeners, the runtime's own.
const OWN: usize = 56;
/// Files for the server's own calls to the API server of one cluster: two watches, a probe, two reads of its keys, one for what is looked at
/// again after an outage, and two that are ending.
const CLUSTER: usize = 8;

/// Connections of every door, and to API servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rooms {
    /// The agents' door.
    pub agents: listener::Rooms,
    /// Admins.
    pub admin: usize,
    /// Health and metrics.
    pub telemetry: usize,
    /// Signed objects.
    pub publish: usize,
    /// The bundle endpoint.
    pub bundle: usize,
    /// Calls to API servers that callers cause: each has a connection.
    pub calls: usize,
}

const HANDSHAKES: Wish = wish(32, 2048);
const AGENTS: Wish = wish(64, 20_000);
const GUESTS: Wish = wish(8, 2048);
const STRANGERS: Wish = wish(16, 1024);
pub(super) const ADMIN: Wish = wish(8, 32);
const TELEMETRY: Wish = wish(8, 32);
const PUBLISH: Wish = wish(24, 1024);
const BUNDLE: Wish = wish(16, 1024);
pub(super) const CALLS: Wish = wish(16, 1024);

/// Of a server that watches so many clusters: each has room for one call at least.
fn wishes(clusters: usize) -> [Wish; 9] {
    let calls = wish(CALLS.least.max(clusters), CALLS.most.max(clusters));
    [
        HANDSHAKES, AGENTS, GUESTS, STRANGERS, ADMIN, TELEMETRY, PUBLISH, BUNDLE, calls,
    ]
}

const fn wish(least: usize, most: usize) -> Wish {
    Wish { least, most }
}

impl Rooms {
    /// Within the limit of this process, which watches so many clusters.
    ///
    /// # Errors
    /// When it leaves a door without what it needs at least.
    pub(super) fn of_process(clusters: usize) -> anyhow::Result<Self> {
        Self::within(clusters, open_files().context("the limit of open files")?)
    }

    fn within(clusters: usize, files: usize) -> anyhow::Result<Self> {
        let own = OWN + CLUSTER * clusters;
        let wishes = wishes(clusters);
        let parts = divide(files.saturating_sub(own), wishes);
        let Some(
            [
                handshakes,
                agents,
                guests,
                strangers,
                admin,
                telemetry,
                publish,
                bundle,
                calls,
            ],
        ) = parts
        else {
            let least = own + wishes.iter().map(|wish| wish.least).sum::<usize>();
            anyhow::bail!(
                "this process may open {files} files, and needs {least} at least: raise its limit (LimitNOFILE= of systemd, ulimit -n)"
            );
        };
        Ok(Self {
            agents: listener::Rooms {
                handshakes,
                agents,
                guests,
                strangers,
            },
            admin,
            telemetry,
            publish,
            bundle,
            calls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rooms: Rooms) -> usize {
        let agents = rooms.agents;
        agents.handshakes
            + agents.agents
            + agents.guests
            + agents.strangers
            + rooms.admin
            + rooms.telemetry
            + rooms.publish
            + rooms.bundle
            + rooms.calls
    }

    #[test]
    fn every_door_works_within_a_small_limit_and_none_takes_all_of_a_large_one() {
        let refused = Rooms::within(1, 200).unwrap_err().to_string();
        assert!(
            refused.contains("needs 256 at least") && refused.contains("LimitNOFILE"),
            "{refused}"
        );
        for files in [256, 300, 1024, 20_000, 1 << 20] {
            let rooms = Rooms::within(1, files).unwrap();
            assert!(sum(rooms) + OWN + CLUSTER <= files, "{files}: {rooms:?}");
            assert!(rooms.admin >= 8 && rooms.agents.agents >= 64, "{rooms:?}");
            assert!(rooms.calls >= 16, "{rooms:?}");
        }
        assert_eq!(Rooms::within(1, 1 << 20).unwrap().agents.agents, 20_000);
        assert!(Rooms::within(2, 263).is_err() && Rooms::within(2, 264).is_ok());
    }

    #[test]
    fn each_of_many_clusters_has_room_for_a_call() {
        for clusters in [1, 16, 17, 40, 2000] {
            let least = 256 + CLUSTER * (clusters - 1) + clusters.saturating_sub(16);
            let refused = Rooms::within(clusters, least - 1).unwrap_err().to_string();
            assert!(refused.contains(&format!("needs {least} at least")), "{refused}");
            for files in [least, least + 1000, 1 << 20] {
                let rooms = Rooms::within(clusters, files).unwrap();
                assert!(rooms.calls >= clusters, "{clusters}, {files}: {rooms:?}");
                assert!(
                    sum(rooms) + OWN + CLUSTER * clusters <= files,
                    "{files}: {rooms:?}"
                );
            }
        }
    }
}
