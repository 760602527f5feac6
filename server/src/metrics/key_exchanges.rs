//! Which key exchanges the doors have had.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use signet_certs::tls::KeyExchange;

/// Labels of a key exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Had {
    door: &'static str,
    group: &'static str,
}

/// Key exchanges of one door. Clones are of the same one; the default is nobody's.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyExchanges {
    door: &'static str,
    had: Family<Had, Counter>,
}

impl KeyExchanges {
    /// Counted in `had`; every group is a series from the start.
    pub(super) fn new(door: &'static str, had: &Family<Had, Counter>) -> Self {
        for group in KeyExchange::ALL.map(KeyExchange::name) {
            drop(had.get_or_create(&Had { door, group }));
        }
        Self {
            door,
            had: had.clone(),
        }
    }

    /// A handshake has come to its end. At the door of agents this is for those that have proved themselves: what strangers offer
    /// says nothing of the fleet.
    pub(crate) fn count(&self, group: Option<KeyExchange>) {
        if let Some(group) = group {
            let (door, group) = (self.door, group.name());
            self.had.get_or_create(&Had { door, group }).inc();
        }
    }
}
