//! The requests to the server that are under way.

use std::collections::HashMap;

use signet_runtime::spans;
use tokio::task::{Id, JoinSet};
use tracing::Instrument as _;

use super::issue::{Answer, Requester};
use super::shelf::Proof;
use crate::cache::{Failure, Wanted};

/// Requests to the server at the same time.
const MAX_REQUESTS: usize = 4;

pub(super) struct Requests {
    running: JoinSet<Vec<(Wanted, Answer)>>,
    /// What each is about, for the case that its task dies.
    asked: HashMap<Id, Vec<Wanted>>,
    requester: Requester,
}

impl Requests {
    /// Counts a program that could not be taken on.
    pub(super) fn no_room(&self) {
        if let Some(unix) = &self.requester.unix {
            unix.no_room();
        }
    }

    pub(super) fn new(requester: Requester) -> Self {
        Self {
            running: JoinSet::new(),
            asked: HashMap::new(),
            requester,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.running.len() < MAX_REQUESTS
    }

    /// Asks for all of them in one request, if there are any.
    pub(super) fn start(&mut self, batch: Vec<(Wanted, Option<Proof>)>) {
        if batch.is_empty() {
            return;
        }
        let asked = batch.iter().map(|(wanted, _)| wanted.clone()).collect();
        let asking = self.requester.clone().ask(batch);
        let task = self.running.spawn(asking.instrument(spans::request()));
        self.asked.insert(task.id(), asked);
    }

    /// The answers to the next request that ends, one to each question; `None` while none is under way. Nothing is lost
    /// when it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Vec<(Wanted, Answer)>> {
        match self.running.join_next_with_id().await? {
            Ok((id, answers)) => {
                self.asked.remove(&id);
                Some(answers)
            }
            Err(error) => {
                tracing::error!(%error, "a request for certificates died");
                let failed = |wanted| {
                    let failure = Failure::new("the agent failed to ask the server");
                    (wanted, Answer::Failed(failure))
                };
                let asked = self.asked.remove(&error.id()).unwrap_or_default();
                Some(asked.into_iter().map(failed).collect())
            }
        }
    }
}
