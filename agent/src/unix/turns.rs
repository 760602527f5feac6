//! Who may have a process looked at now.

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shared::Shared;

/// Processes that are looked at at the same time. A user has one turn: reading a large executable takes seconds, and who
/// touches it or starts copies of it could have it read without end, in place of everybody else's.
const MAX_TURNS: usize = 4;

/// One turn for each user, and few in all.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    by_user: Shared<u32, Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_TURNS)),
            by_user: Shared::default(),
        }
    }
}

impl Turns {
    /// Waits for the user's turn, then for one of all.
    pub(super) async fn take(&self, uid: u32) -> io::Result<[OwnedSemaphorePermit; 2]> {
        let own = self.by_user.of(uid, || Semaphore::new(1));
        let own = own.acquire_owned().await.map_err(io::Error::other)?;
        let any = self.all.clone().acquire_owned().await.map_err(io::Error::other)?;
        Ok([own, any])
    }
}
