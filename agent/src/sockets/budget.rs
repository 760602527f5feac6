//! What one caller may use of the agent.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Settings;
use crate::shared::Shared;

/// Untaken messages are counted in these units, so that their number fits the semaphore.
const UNIT: usize = 1024;

/// The share of one caller.
#[derive(Debug)]
pub(super) struct Budget {
    connections: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    untaken: Arc<Semaphore>,
    untaken_units: usize,
}

impl Budget {
    pub(super) fn new(settings: &Settings) -> Self {
        let untaken_units = settings.max_untaken_bytes_per_caller.div_ceil(UNIT).max(1);
        Self {
            connections: Arc::new(Semaphore::new(settings.max_connections_per_caller)),
            streams: Arc::new(Semaphore::new(settings.max_streams_per_caller)),
            untaken: Arc::new(Semaphore::new(untaken_units)),
            untaken_units,
        }
    }

    pub(super) fn try_connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    pub(super) fn try_stream(&self) -> Option<OwnedSemaphorePermit> {
        self.streams.clone().try_acquire_owned().ok()
    }

    pub(super) fn try_untaken(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.untaken
            .clone()
            .try_acquire_many_owned(self.units(bytes))
            .ok()
    }

    pub(super) async fn untaken(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.untaken
            .clone()
            .acquire_many_owned(self.units(bytes))
            .await
            .ok()
    }

    /// At most the whole budget, so that a message larger than it passes alone.
    fn units(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).min(self.untaken_units);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

/// Who shares a budget.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Sharer {
    /// A pod, by UID: its author decides how many volumes it has.
    Pod(String),
    /// A user id on the shared sockets.
    User(u32),
}

/// Budgets of those who are connected or may connect.
#[derive(Debug)]
pub(super) struct Budgets {
    settings: Settings,
    known: Shared<Sharer, Budget>,
}

impl Budgets {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            known: Shared::default(),
        }
    }

    /// The budget of a caller; the same one as long as any of its connections or sockets lives.
    pub(super) fn of(&self, sharer: Sharer) -> Arc<Budget> {
        self.known.of(sharer, || Budget::new(&self.settings))
    }
}
