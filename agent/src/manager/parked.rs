//! Certificates that came before the bundle that verifies them.

use std::time::Duration;

use signet_certs::signer::LeafKey;

use crate::cache::{Wanted, WorkloadId};
use crate::server_client::IssuedChain;
use crate::time::Moment;

/// How long a certificate waits for its bundle.
const PARKED_FOR: Duration = Duration::from_secs(60);

/// A certificate as it came, with the key that it certifies.
pub(super) struct Received {
    pub(super) wanted: Wanted,
    pub(super) chain: IssuedChain,
    pub(super) key: LeafKey,
    /// From then on, by elapsed time, it waits for nothing.
    pub(super) until: Duration,
}

impl Received {
    pub(super) fn new(wanted: Wanted, chain: IssuedChain, key: LeafKey, now: Moment) -> Self {
        Self {
            wanted,
            chain,
            key,
            until: now.elapsed + PARKED_FOR,
        }
    }
}

/// Those that wait; their identities count as in flight.
#[derive(Default)]
pub(super) struct Parked(Vec<Received>);

impl Parked {
    pub(super) fn push(&mut self, received: Received) {
        self.0.push(received);
    }

    /// Those that have waited long enough.
    pub(super) fn take_overdue(&mut self, now: Moment) -> Vec<Received> {
        self.0
            .extract_if(.., |received| received.until <= now.elapsed)
            .collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Received> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn forget(&mut self, id: &WorkloadId) {
        self.0.retain(|received| received.wanted.workload != *id);
    }

    /// When the first has waited long enough.
    pub(super) fn next_overdue(&self) -> Option<Duration> {
        self.0.iter().map(|received| received.until).min()
    }
}
