//! The one thread that writes. It takes every job that waits, runs them in one transaction, commits once, and then
//! answers all of them: the more callers wait, the less a commit costs each.

mod job;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use signet_runtime::spans;
use tokio::sync::{mpsc, oneshot, watch};

use self::job::{Class, Job, Task, stopped};
use super::audit_rows::AuditBuffer;
use super::convert::store_error;
use super::fingerprint::Fingerprints;
use super::reserve::{Reserve, Space};
use super::schema;
use super::state::State;
use crate::store::StoreError;

/// Jobs that may wait; further callers wait for a place.
const QUEUE: usize = 4096;
/// A transaction takes no further job once it has so many rows.
pub(super) const GROUP_ROWS: usize = 1024;

/// What a job works with, inside the transaction.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) state: &'a mut State,
    pub(super) audit: &'a mut AuditBuffer,
}

fn panicked() -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure("a job of the store's writer panicked".into())
}

/// Handle on the writer thread. Dropping it lets the thread finish what waits, then end.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    failed: watch::Receiver<u64>,
    lines: Arc<LineBound>,
    #[cfg(test)]
    pub(super) gate: super::gate::Gate,
}

/// The bound of the audit lines that wait.
struct LineBound {
    most: AtomicU64,
    left_out: AtomicU64,
}

impl Writer {
    /// Starts the thread. `stored` is told the newest audit line after each commit.
    pub(super) fn start(
        conn: Connection,
        state: State,
        fingerprints: Fingerprints,
        reserve: Reserve,
        stored: watch::Sender<u64>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (failures, failed) = watch::channel(0);
        let lines = Arc::new(LineBound {
            most: AtomicU64::new(u64::MAX),
            left_out: AtomicU64::new(0),
        });
        let worker = Worker {
            log: reserve.log(),
            lines: lines.clone(),
            conn,
            state: Some(state),
            fingerprints,
            reserve,
            jobs,
            stored,
            failures,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || spans::worker("store").in_scope(|| worker.run()))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            failed,
            lines,
            #[cfg(test)]
            gate: super::gate::Gate::default(),
        })
    }

    /// See [`AuditOutbox::bound`](crate::store::AuditOutbox::bound).
    pub(super) fn bound_lines(&self, most: Option<u64>) {
        self.lines.most.store(most.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// See [`AuditOutbox::left_out`](crate::store::AuditOutbox::left_out).
    pub(super) fn lines_left_out(&self) -> u64 {
        self.lines.left_out.load(Ordering::Relaxed)
    }

    /// How many transactions have failed; told before their callers are.
    pub(super) fn failed(&self) -> watch::Receiver<u64> {
        self.failed.clone()
    }

    /// Runs `work` in the next transaction and returns what it returned, once that is durable. `rows` is its weight.
    pub(super) async fn run<T, F>(&self, rows: usize, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.queued(rows, Class::Routine, work).await
    }

    /// As [`run`](Self::run), for what protects: where the disk is full it is written in the room that is kept for it.
    pub(super) async fn run_protecting<T, F>(&self, rows: usize, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.queued(rows, Class::Protecting, work).await
    }

    /// As [`run`](Self::run), but not where the disk is nearly full: what is left there is for what protects.
    pub(super) async fn run_with_room<T, F>(&self, rows: usize, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.queued(rows, Class::CanWait, work).await
    }

    async fn queued<T, F>(&self, rows: usize, class: Class, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task {
            rows,
            class,
            work: Some(work),
            outcome: None,
            reply,
        };
        #[cfg(test)]
        self.gate.pass().await;
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Box::new(task)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
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
    reserve: Reserve,
    /// The database's log.
    log: PathBuf,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    stored: watch::Sender<u64>,
    failures: watch::Sender<u64>,
    lines: Arc<LineBound>,
}

impl Worker {
    fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let group = self.group(first);
            let group = self.with_room(group);
            if !group.is_empty() {
                self.commit(group);
            }
        }
        tracing::debug!("store writer stopped");
    }

    fn group(&mut self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut rows = first.rows();
        let mut group = vec![first];
        if self.reserve.space() == Space::Short {
            // Room is made for one.
            return group;
        }
        while rows < GROUP_ROWS && group.len() < GROUP_ROWS {
            let Ok(job) = self.jobs.try_recv() else { break };
            rows += job.rows();
            group.push(job);
        }
        group
    }

    /// Refuses what can wait where the disk is nearly full.
    fn with_room(&mut self, group: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        if self.reserve.look(is_protecting(&group)) == Space::Enough {
            return group;
        }
        let (refused, group): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|job| job.class() == Class::CanWait);
        if !refused.is_empty() {
            self.failures.send_modify(|failures| *failures += 1);
        }
        let message = self.reserve.refusal();
        for job in refused {
            job.finish(Err(StoreError::Unavailable {
                message: message.clone(),
            }));
        }
        group
    }

    fn commit(&mut self, mut group: Vec<Box<dyn Job>>) {
        let protecting = is_protecting(&group);
        let result = self.transaction(&mut group);
        if let Err(error) = &result {
            tracing::error!(%error, jobs = group.len(), "store transaction failed");
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
                self.reserve.found_none();
            }
            self.failures.send_modify(|failures| *failures += 1);
        }
        let result = result.map_err(|error| store_error(&error));
        for job in group {
            job.finish(result.clone());
        }
        if self.reserve.space() == Space::Short {
            self.empty_log(protecting);
        }
    }

    /// Where the disk is nearly full the log is emptied after each transaction, or it would grow with each until nothing is left.
    fn empty_log(&mut self, protecting: bool) {
        let log = fs::metadata(&self.log).map_or(0, |log| log.len());
        if log > 0 && (self.reserve.has_room(log, protecting) || protecting) {
            // Whoever reads an older state is not waited for: the next time will do.
            let emptied = checkpoint(&self.conn);
            if let Err(error) = emptied {
                tracing::debug!(%error, "the log of the store was not emptied");
            }
        }
        if protecting {
            self.reserve.take_back();
        }
    }

    fn transaction(&mut self, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => State::load(&self.conn, self.fingerprints)?,
        };
        let mut audit = AuditBuffer::default();
        let most = self.lines.most.load(Ordering::Relaxed);
        // A fault in one job must not end the thread, and with it all issuing and revoking for good. What it left half
        // done is rolled back, and the memory is thrown away.
        let applied = catch_unwind(AssertUnwindSafe(|| {
            apply(&self.conn, &mut state, &mut audit, most, group)
        }));
        match applied.unwrap_or_else(|_| Err(panicked())) {
            Ok(left_out) => {
                self.lines.left_out.fetch_add(left_out, Ordering::Relaxed);
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
                Err(error)
            }
        }
    }
}

fn is_protecting(group: &[Box<dyn Job>]) -> bool {
    group.iter().any(|job| job.class() == Class::Protecting)
}

/// Puts what the log holds into the database, and gives the log's room back.
fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::ZERO)?;
    let emptied = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    conn.busy_timeout(schema::BUSY)?;
    emptied
}

fn apply(
    conn: &Connection,
    state: &mut State,
    audit: &mut AuditBuffer,
    most: u64,
    group: &mut [Box<dyn Job>],
) -> rusqlite::Result<u64> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for job in group {
        job.run(&mut Tx { conn, state, audit })?;
    }
    let waiting = (state.next_line - 1).saturating_sub(state.emitted);
    let left_out = audit.keep_if(waiting < most, conn, &mut state.left_out)?;
    state.next_line += audit.write(conn, state.next_line, state.boot, state.mark)?;
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(left_out)
}
