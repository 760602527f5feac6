//! What the writer is given to do.

use tokio::sync::oneshot;

use super::Tx;
use crate::store::StoreError;

/// What a job is to the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// Refused where the disk is nearly full.
    CanWait,
    /// Written while there is room, which nothing makes for it.
    Routine,
    /// What is kept for it is lent to it.
    Protecting,
}

/// Work for the writer. It must not change anything, in tables or memory, before it can still refuse.
pub(super) trait Job: Send {
    fn rows(&self) -> usize;
    fn class(&self) -> Class;
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

pub(super) struct Task<F, T> {
    pub(super) rows: usize,
    pub(super) class: Class,
    pub(super) work: Option<F>,
    pub(super) outcome: Option<T>,
    pub(super) reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn rows(&self) -> usize {
        self.rows
    }

    fn class(&self) -> Class {
        self.class
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.outcome = Some(work(tx)?);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        // A caller that went away does not need the answer; what it asked for stands.
        drop(reply.send(committed.and_then(|()| outcome.ok_or_else(stopped))));
    }
}

pub(super) fn stopped() -> StoreError {
    StoreError::Unavailable {
        message: "the store is closed".to_owned(),
    }
}
