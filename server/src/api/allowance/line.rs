//! What one connection may have under way.

use std::{sync::Arc, time::Duration};

use signet_runtime::{
    bucket::{Bucket, Rate},
    sync::Mutex,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{Caller, answer::Untaken};

/// Calls under way on one connection of an agent: its trust stream, and requests beside each other.
pub(super) const AGENTS_CALLS: usize = 32;
/// Those on a connection by a certificate that is worth a trust stream: that, Hello, and an attestation.
pub(super) const GUESTS_CALLS: usize = 4;
/// Those on a connection of a stranger: Hello, and what follows it.
pub(super) const STRANGERS_CALLS: usize = 2;
/// Longest request of a stranger: a token, a CSR, and names. The service's own bound on a message is made for batches
/// of agents; a stranger could make the server hold that much for each of many streams.
pub(in crate::api) const STRANGERS_REQUEST: usize = 24 << 10;

/// Open connections of strangers from one source, which may be the address of many nodes. Strangers are counted apart from
/// agents, so that nobody without a certificate can lock the agents out; whoever comes last is let in.
///
/// It takes more than two and a half seconds of handshakes at the rate of a source to push the oldest out, and an attestation that
/// waits behind all the others has had its turn by then.
pub(in crate::api) const STRANGERS_PER_SOURCE: usize = 256;

/// Calls on one connection without a certificate that counts: Hello costs little, but not nothing. A node that starts makes a few. Of each
/// connection, for many nodes may share the source, and connections of a source are few and have a price.
pub(super) const OTHERS_RATE: Rate = Rate {
    per_second: 8.0,
    burst: 16.0,
};

/// A connection, and what it has under way.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Whose it is.
    pub(super) caller: Caller,
    /// Nothing is served on it before then: the agent connects too often.
    pub(super) wait: Option<Duration>,
    pub(super) calls: Arc<Semaphore>,
    /// Calls that may be begun on it; any number without.
    pub(super) begun: Option<Arc<Mutex<Bucket>>>,
    /// For the one attestation that may wait on it.
    attests: Arc<Semaphore>,
    pub(super) untaken: Arc<Untaken>,
}

impl Line {
    /// With nothing under way.
    pub(crate) fn new(caller: Caller) -> Self {
        let calls = match caller {
            Caller::Agent(_) | Caller::Admin => AGENTS_CALLS,
            Caller::Guest(_) => GUESTS_CALLS,
            Caller::Stranger(_) => STRANGERS_CALLS,
        };
        let rate = || Arc::new(Mutex::new(Bucket::full(OTHERS_RATE, Instant::now())));
        Self {
            begun: matches!(caller, Caller::Guest(_) | Caller::Stranger(_)).then(rate),
            attests: Arc::new(Semaphore::new(1)),
            caller,
            wait: None,
            calls: Arc::new(Semaphore::new(calls)),
            untaken: Arc::default(),
        }
    }

    /// Whose it is.
    pub(in crate::api) const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The right to wait on it for an attestation's turn, or nothing while another does: so the queue of a source is no longer than
    /// the number of its connections.
    pub(in crate::api) fn attest(&self) -> Option<OwnedSemaphorePermit> {
        self.attests.clone().try_acquire_owned().ok()
    }

    /// On which nothing is served before this has passed.
    pub(in crate::api) fn waiting(self, wait: Option<Duration>) -> Self {
        Self { wait, ..self }
    }

    /// Whether an answer on it stands still because its reader takes nothing.
    pub(in crate::api) fn is_stuck(&self) -> bool {
        self.untaken.is_stuck()
    }
}
