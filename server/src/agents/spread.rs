//! What the live agents hold, for whoever decides that a bundle has spread.

use std::collections::BTreeMap;

use signet_certs::id::SpiffeId;
use tokio::sync::watch;

use crate::authority::SpreadReports;

/// The reports as last published.
#[derive(Debug)]
pub(super) struct Spread(watch::Sender<SpreadReports>);

impl Default for Spread {
    fn default() -> Self {
        Self(watch::Sender::new(SpreadReports::default()))
    }
}

impl Spread {
    pub(super) fn subscribe(&self) -> watch::Receiver<SpreadReports> {
        self.0.subscribe()
    }

    /// Publishes the live agents with the sequences they reported, where that differs.
    pub(super) fn publish<'a>(&self, live: impl Iterator<Item = (&'a SpiffeId, u64)>) {
        let agents: BTreeMap<String, u64> = live.map(|(id, sequence)| (id.to_string(), sequence)).collect();
        self.0.send_if_modified(|current| {
            let changed = current.agents != agents;
            if changed {
                *current = SpreadReports { agents };
            }
            changed
        });
    }
}
