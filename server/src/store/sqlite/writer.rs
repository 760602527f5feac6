//! The one thread that writes. It takes every job that waits, runs them in one transaction, commits once, and then
//! answers all of them: the more callers wait, the less a commit costs each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::audit_rows::AuditBuffer;
use super::convert::store_error;
use super::fingerprint::Fingerprints;
use super::state::State;
use crate::audit::{AuditAction, AuditEvent};
use crate::store::StoreError;

/// Jobs that may wait; further callers wait for a place.
const QUEUE: usize = 4096;
/// A transaction takes no further job once it has so many rows.
const GROUP_ROWS: usize = 1024;
/// Audit events of no transaction that may wait; further ones are lost and counted.
const LOOSE_EVENTS: usize = 8192;

/// What a job works with, inside the transaction.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) state: &'a mut State,
    pub(super) audit: &'a mut AuditBuffer,
}

/// Work for the writer. It must not change anything, in tables or memory, before it can still refuse.
trait Job: Send {
    fn rows(&self) -> usize;
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Task<F, T> {
    rows: usize,
    work: Option<F>,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn rows(&self) -> usize {
        self.rows
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

fn stopped() -> StoreError {
    StoreError::Unavailable {
        message: "the store is closed".to_owned(),
    }
}

fn panicked() -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure("a job of the store's writer panicked".into())
}

/// Handle on the writer thread. Dropping it lets the thread finish what waits, then end.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    loose: Arc<LooseEvents>,
    thread: Option<JoinHandle<()>>,
}

/// Audit events that belong to no transaction of their own; the next one takes them along.
#[derive(Default)]
struct LooseEvents {
    waiting: Mutex<VecDeque<AuditEvent>>,
    lost: AtomicU64,
}

impl Writer {
    /// Starts the thread. `stored` is told the newest audit line after each commit.
    pub(super) fn start(
        conn: Connection,
        state: State,
        fingerprints: Fingerprints,
        stored: watch::Sender<u64>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let loose = Arc::new(LooseEvents::default());
        let worker = Worker {
            conn,
            state: Some(state),
            fingerprints,
            jobs,
            loose: loose.clone(),
            stored,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            queue: Some(queue),
            loose,
            thread: Some(thread),
        })
    }

    /// Runs `work` in the next transaction and returns what it returned, once that is durable. `rows` is its weight.
    pub(super) async fn run<T, F>(&self, rows: usize, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task {
            rows,
            work: Some(work),
            outcome: None,
            reply,
        };
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Box::new(task)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Leaves an event for the next transaction.
    pub(super) fn leave(&self, event: AuditEvent) {
        {
            let mut waiting = self.loose.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= LOOSE_EVENTS {
                self.loose.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push_back(event);
        }
        // Wakes the thread when it is idle. When the queue is full it is not idle.
        let (reply, _) = oneshot::channel();
        let nudge = Task {
            rows: 0,
            work: Some(|_: &mut Tx<'_>| Ok(())),
            outcome: None,
            reply,
        };
        if let Some(queue) = &self.queue {
            drop(queue.try_send(Box::new(nudge)));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // Only until the jobs in hand are committed. A panic in the thread has been reported by its hook.
            drop(thread.join());
        }
    }
}

struct Worker {
    conn: Connection,
    /// `None` after a failed transaction, until it is loaded again.
    state: Option<State>,
    fingerprints: Fingerprints,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    loose: Arc<LooseEvents>,
    stored: watch::Sender<u64>,
}

impl Worker {
    fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let group = self.group(first);
            self.commit(group);
        }
        tracing::debug!("store writer stopped");
    }

    fn group(&mut self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut rows = first.rows();
        let mut group = vec![first];
        while rows < GROUP_ROWS && group.len() < GROUP_ROWS {
            let Ok(job) = self.jobs.try_recv() else { break };
            rows += job.rows();
            group.push(job);
        }
        group
    }

    fn commit(&mut self, mut group: Vec<Box<dyn Job>>) {
        let result = self.transaction(&mut group);
        if let Err(error) = &result {
            tracing::error!(%error, jobs = group.len(), "store transaction failed");
        }
        let result = result.map_err(|error| store_error(&error));
        for job in group {
            job.finish(result.clone());
        }
    }

    fn transaction(&mut self, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => State::load(&self.conn, self.fingerprints)?,
        };
        let mut audit = AuditBuffer::default();
        let taken = self.loose.take(&mut audit);
        // A fault in one job must not end the thread, and with it all issuing and revoking for good. What it left half
        // done is rolled back, and the memory is thrown away.
        let applied = catch_unwind(AssertUnwindSafe(|| {
            apply(&self.conn, &mut state, &mut audit, group)
        }));
        match applied.unwrap_or_else(|_| Err(panicked())) {
            Ok(()) => {
                self.stored.send_if_modified(|stored| {
                    let newest = state.next_line - 1;
                    std::mem::replace(stored, newest) != newest
                });
                self.state = Some(state);
                Ok(())
            }
            Err(error) => {
                if let Err(rollback) = self.conn.execute_batch("ROLLBACK") {
                    // SQLite has rolled back by itself after a full disk or an I/O error.
                    tracing::debug!(%rollback, "rollback after a failed transaction");
                }
                self.loose.give_back(taken);
                Err(error)
            }
        }
    }
}

fn apply(
    conn: &Connection,
    state: &mut State,
    audit: &mut AuditBuffer,
    group: &mut [Box<dyn Job>],
) -> rusqlite::Result<()> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for job in group {
        job.run(&mut Tx { conn, state, audit })?;
    }
    audit.write(conn, state)?;
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// Events taken into a transaction, to be given back if it fails.
struct Taken {
    events: VecDeque<AuditEvent>,
    lost: u64,
}

impl LooseEvents {
    fn take(&self, audit: &mut AuditBuffer) -> Taken {
        let events = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let lost = self.lost.swap(0, Ordering::Relaxed);
        for event in &events {
            audit.event(event);
        }
        if let (true, Some(last)) = (lost > 0, events.back()) {
            audit.event(&AuditEvent::new(
                last.time(),
                AuditAction::EventsLost { count: lost },
            ));
        }
        Taken { events, lost }
    }

    fn give_back(&self, taken: Taken) {
        self.lost.fetch_add(taken.lost, Ordering::Relaxed);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for event in taken.events.into_iter().rev() {
            waiting.push_front(event);
        }
    }
}
