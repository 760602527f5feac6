//! The newest lines of the log as they were emitted, for admins who look on. Readers hold a place and no line, so one who takes nothing holds
//! up nobody: what went by meanwhile is counted and told to him.

mod filter;
mod history;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use signet_runtime::drain::Drain;
use signet_runtime::limits::{Limit, bytes};
use signet_runtime::sync::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

pub(crate) use self::filter::Filter;
pub(crate) use self::history::{Place, Told};

/// Lines that are kept, and their bytes.
const MOST_LINES: usize = 10_000;
const MOST_BYTES: usize = 8 << 20;
/// Lines of one look.
const BATCH: usize = 256;
/// Admins whose questions have files read at the same time, and as many for whom many lines are held; others wait.
const SCANS: usize = 2;
/// Admins who read the log at the same time: less than have connections, so that none of them is in an admin's way.
pub(crate) const MOST_READERS: usize = 16;

/// How much of the log is kept for those who look on, for the table of limits.
pub(crate) fn kept() -> Limit {
    Limit {
        who: "all admins who read the audit log",
        what: "emitted lines that are kept for them; who has taken less is told how many he missed",
        share: "none".to_owned(),
        cap: format!(
            "{MOST_LINES} lines, and {}; {MOST_READERS} read at a time",
            bytes(MOST_BYTES as u64)
        ),
        counted: "server::audit::tail",
        metric: "signet_server_audit_lines_missed_total",
    }
}

/// The newest lines. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct AuditTail(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server_id: String,
    file: Option<PathBuf>,
    ring: Mutex<Ring>,
    news: watch::Sender<News>,
    scans: Semaphore,
    many: Semaphore,
    readers: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    /// How many lines there ever were here.
    lines: u64,
    /// There will be no more.
    is_over: bool,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<(Place, Arc<str>)>,
    bytes: usize,
    /// How many lines there ever were here: the number of the next one.
    next: u64,
    /// The sequence of the newest line emitted, by this process or the one before.
    newest: u64,
}

impl Ring {
    fn push(&mut self, place: Place, line: Arc<str>) {
        self.bytes += line.len();
        self.next += 1;
        self.lines.push_back((place, line));
        while self.lines.len() > MOST_LINES || self.bytes > MOST_BYTES {
            let Some((_, gone)) = self.lines.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(gone.len());
        }
    }

    /// Number of the oldest line.
    fn first(&self) -> u64 {
        self.next - self.lines.len() as u64
    }
}

impl AuditTail {
    /// Of the log of this server, which is written into this file, if into one.
    pub(crate) fn new(server_id: &str, file: Option<&Path>) -> Self {
        Self(Arc::new(Shared {
            server_id: server_id.to_owned(),
            file: file.map(Path::to_owned),
            ring: Mutex::default(),
            news: watch::Sender::default(),
            scans: Semaphore::new(SCANS),
            many: Semaphore::new(SCANS),
            readers: Arc::new(Semaphore::new(MOST_READERS)),
        }))
    }

    /// The process before has emitted up to here.
    pub(super) fn resumed(&self, sequence: u64) {
        self.0.ring.lock().newest = sequence;
    }

    /// These were emitted, with their sequences. What is emitted again after a failure is known.
    pub(crate) fn emitted(&self, lines: impl IntoIterator<Item = (u64, String)>) {
        let mut ring = self.0.ring.lock();
        for (sequence, line) in lines {
            if sequence > ring.newest {
                ring.newest = sequence;
                ring.push(Place::line(sequence), line.into());
            }
        }
        self.tell(&ring);
    }

    /// This head was, behind the line of this sequence.
    pub(super) fn signed(&self, sequence: u64, head: String) {
        let mut ring = self.0.ring.lock();
        ring.push(Place::head(sequence), head.into());
        self.tell(&ring);
    }

    fn tell(&self, ring: &Ring) {
        self.0.news.send_modify(|news| news.lines = ring.next);
    }

    /// Whoever looks on is let go when the server ends: its doors wait for those who are inside.
    pub(crate) fn end_with(&self, drain: &Drain) {
        let (tail, ending) = (self.clone(), drain.clone());
        drain.spawn(async move {
            ending.signalled().await;
            tail.close();
        });
    }

    /// There will be no more for those who look on, nor for those who wait.
    pub(crate) fn close(&self) {
        self.0.many.close();
        self.0.scans.close();
        self.0.news.send_modify(|news| news.is_over = true);
    }

    /// Somebody who looks on from now on.
    pub(crate) fn reader(&self) -> Reader {
        let ring = self.0.ring.lock();
        Reader {
            next: ring.next,
            at: Place::line(ring.newest + 1),
            news: self.0.news.subscribe(),
            tail: self.clone(),
        }
    }

    /// A place among those who read; none where there are as many as there may be.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.readers.clone().try_acquire_owned().ok()
    }

    /// Waits for leave to hold many lines for somebody who takes them one by one.
    pub(crate) async fn many(&self) -> Option<SemaphorePermit<'_>> {
        self.0.many.acquire().await.ok()
    }

    /// That leave where nobody is before him.
    pub(crate) fn many_now(&self) -> Option<SemaphorePermit<'_>> {
        self.0.many.try_acquire().ok()
    }

    /// The last `most` lines before a place that the filter wants, from the files of the log, in order; `goes_on` is asked now and then.
    /// Waits its turn.
    pub(crate) async fn history(
        &self,
        before: Place,
        filter: Filter,
        most: usize,
        goes_on: impl Fn() -> bool + Send + 'static,
    ) -> Told {
        let Some(file) = self.0.file.clone() else {
            return Told::nowhere(before);
        };
        let Ok(_turn) = self.0.scans.acquire().await else {
            return Told::default();
        };
        let server_id = self.0.server_id.clone();
        let read = move || history::read(&file, &server_id, before, &filter, most, goes_on);
        let told = signet_runtime::spans::spawn_blocking(read).await;
        told.unwrap_or_else(|error| Told::only(format!("the files of the log could not be read: {error}")))
    }
}

/// What is kept of the time before a reader came.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// In order.
    pub lines: Vec<Arc<str>>,
    /// Where the oldest of them stands, or the next one will.
    pub before: Place,
}

/// Somebody who looks on.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Number of the line that he has not seen.
    next: u64,
    /// Where he came.
    at: Place,
    news: watch::Receiver<News>,
    tail: AuditTail,
}

/// What a reader is told at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// So many went by unseen before these.
    pub missed: u64,
    /// In order.
    pub lines: Vec<Arc<str>>,
}

impl Reader {
    /// The last `most` lines that he came too late for, of those that are kept and wanted. Blocks.
    pub(crate) fn kept(&self, filter: &Filter, most: usize) -> Kept {
        let (lines, oldest): (Vec<_>, _) = {
            let ring = self.tail.0.ring.lock();
            let before = usize::try_from(self.next.saturating_sub(ring.first())).unwrap_or(usize::MAX);
            let lines = ring.lines.iter().take(before);
            (
                lines.map(|(_, line)| line.clone()).collect(),
                ring.lines.front().map(|(place, _)| *place),
            )
        };
        let before = oldest.filter(|_| !lines.is_empty()).unwrap_or(self.at);
        let wanted = lines.into_iter().rev().filter(|line| filter.wants(line));
        let mut lines: Vec<_> = wanted.take(most).collect();
        lines.reverse();
        Kept { lines, before }
    }

    /// What has come since, some of it.
    pub(crate) fn take(&mut self) -> Batch {
        let ring = self.tail.0.ring.lock();
        let missed = ring.first().saturating_sub(self.next);
        let from = self.next.max(ring.first());
        let skipped = usize::try_from(from - ring.first()).unwrap_or(usize::MAX);
        let lines = ring.lines.iter().skip(skipped).take(BATCH);
        let lines: Vec<_> = lines.map(|(_, line)| line.clone()).collect();
        self.next = from + lines.len() as u64;
        Batch { missed, lines }
    }

    /// Waits until there is something to take; false once there will be no more.
    pub(crate) async fn more(&mut self) -> bool {
        let next = self.next;
        let news = self.news.wait_for(|news| news.lines > next || news.is_over).await;
        news.is_ok_and(|news| !news.is_over)
    }
}
