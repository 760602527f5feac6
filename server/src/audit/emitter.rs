//! The task that carries stored lines out: written, synced, and only then let go by the store.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::time::rfc3339;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Vital;
use signet_runtime::signal::Reread;
use signet_runtime::spans;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{AuditCursor, AuditKey, AuditTail, LineSink};
use crate::store::{AuditOutbox, StoreError};

/// How often the head is signed while lines are emitted.
pub(crate) const HEAD_INTERVAL: Duration = Duration::from_secs(10);
/// How often lines are synced and the cursor saved while lines are emitted; as much may be emitted again after a crash.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// Lines carried at a time.
const CHUNK: usize = 2_000;
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How far the audit log has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditProgress {
    /// Position of the last line that is safe where it was written.
    pub emitted: u64,
    /// Why the last try failed; none once lines are taken again.
    pub failing: Option<String>,
}

/// What the emitter works with.
pub(crate) struct EmitterParts {
    /// Where the lines wait.
    pub outbox: Arc<dyn AuditOutbox>,
    /// First part of every line's position.
    pub server_id: String,
    /// Signs the head.
    pub key: AuditKey,
    /// Where lines go.
    pub sink: Box<dyn LineSink>,
    /// The server's time.
    pub clock: Arc<dyn Clock>,
    /// Says when the sink is to be opened again.
    pub reread: Reread,
    /// Where those look on who read the log as it is written.
    pub tail: AuditTail,
}

/// Handle on the emitting task.
pub(crate) struct AuditEmitter {
    stop: CancellationToken,
    progress: watch::Receiver<AuditProgress>,
    task: JoinHandle<()>,
}

impl AuditEmitter {
    /// Starts emitting what is stored and what will be. One emitter per store. A server that does not audit is of no
    /// use: `vital` is held until the end.
    pub(crate) fn spawn(parts: EmitterParts, vital: Vital) -> Self {
        let stop = CancellationToken::new();
        let stored = parts.outbox.stored();
        // Until it is known how far the last run has come, nothing is taken to wait.
        let emitted = *stored.borrow();
        let (sender, progress) = watch::channel(AuditProgress {
            emitted,
            failing: None,
        });
        let worker = Worker {
            stored,
            parts,
            stop: stop.clone(),
            progress: sender,
            end: AuditCursor::default(),
            saved: AuditCursor::default(),
            signed: AuditCursor::default(),
        };
        let emitting = async move {
            let _vital = vital;
            worker.run().await;
        };
        let task = tokio::spawn(emitting.instrument(spans::worker("audit emitter")));
        Self { stop, progress, task }
    }

    /// How far it has come, as it changes.
    pub(crate) fn progress(&self) -> watch::Receiver<AuditProgress> {
        self.progress.clone()
    }

    /// Emits what has been stored until now, signs the head, and ends. Call it last, after
    /// [`AuditLog::flush`](super::AuditLog::flush). Gives up where the sink fails, or does not answer by the deadline: the
    /// lines stay in the store.
    pub(crate) async fn finish(mut self, deadline: Instant) {
        self.stop.cancel();
        match timeout_at(deadline, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "audit emitter ended badly"),
            Err(_) => {
                self.task.abort();
                tracing::error!("nobody takes the audit lines: they stay in the store until the next start");
            }
        }
    }
}

struct Worker {
    parts: EmitterParts,
    stored: watch::Receiver<u64>,
    stop: CancellationToken,
    progress: watch::Sender<AuditProgress>,
    /// The last line emitted; what the store knows of it; what the last head was signed for.
    end: AuditCursor,
    saved: AuditCursor,
    signed: AuditCursor,
}

#[derive(Debug, thiserror::Error)]
enum EmitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write the audit log: {0}")]
    Sink(#[from] std::io::Error),
    #[error("cannot sign the head of the audit log: {0}")]
    Sign(#[from] signet_certs::signer::SignError),
}

impl Worker {
    async fn run(mut self) {
        if !self.resume().await {
            return;
        }
        let first = Instant::now() + HEAD_INTERVAL;
        let mut heads = interval_at(first, HEAD_INTERVAL);
        heads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saves = interval_at(Instant::now() + SAVE_INTERVAL, SAVE_INTERVAL);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let result = tokio::select! {
                () = self.stop.cancelled() => break,
                _ = heads.tick() => self.sign_head().await,
                _ = saves.tick() => self.save(None).await,
                () = self.parts.reread.told() => self.reopen().await,
                more = wait_for_more(&mut self.stored, self.end.sequence) => {
                    if !more { break }
                    self.emit().await
                }
            };
            if let Err(error) = result {
                tracing::error!(%error, "audit lines wait in the store");
                self.progress
                    .send_modify(|progress| progress.failing = Some(error.to_string()));
                if matches!(error, EmitError::Sink(_)) {
                    self.rewind();
                }
                tokio::select! { () = sleep(RETRY) => {}, () = self.stop.cancelled() => {} }
            }
        }
        if let Err(error) = self.last_words().await {
            tracing::error!(%error, "audit lines stay in the store until the next start");
        }
    }

    /// Goes on where the last run had saved.
    async fn resume(&mut self) -> bool {
        loop {
            match self.parts.outbox.cursor().await {
                Ok(cursor) => {
                    (self.end, self.saved, self.signed) = (cursor, cursor, cursor);
                    self.parts.tail.resumed(cursor.sequence);
                    self.tell_saved();
                    return true;
                }
                Err(error) => tracing::error!(%error, "cannot read how far the audit log has come"),
            }
            tokio::select! { () = sleep(RETRY) => {}, () = self.stop.cancelled() => return false }
        }
    }

    async fn emit(&mut self) -> Result<(), EmitError> {
        let lines = self.parts.outbox.lines_after(self.end.sequence, CHUNK).await?;
        let mut end = self.end;
        let mut text = String::new();
        let mut told = Vec::with_capacity(lines.len());
        for line in &lines {
            let (emitted, next) = end.extend(&self.parts.server_id, line);
            text.push_str(&emitted);
            text.push('\n');
            end = next;
            told.push((line.sequence, emitted));
        }
        if !text.is_empty() {
            self.parts.sink.write(text.into_bytes()).await?;
            self.parts.tail.emitted(told);
        }
        self.end = end;
        Ok(())
    }

    /// What was written since the last sync may be gone, and is written again: the same lines, byte for byte.
    fn rewind(&mut self) {
        self.end = self.saved;
    }

    /// Lets the store drop what is on the disk.
    async fn save(&mut self, head: Option<String>) -> Result<(), EmitError> {
        if self.end != self.saved || head.is_some() {
            self.parts.sink.sync().await?;
            self.parts.outbox.advance(self.end, head).await?;
            self.saved = self.end;
            self.tell_saved();
        }
        Ok(())
    }

    fn tell_saved(&self) {
        self.progress.send_replace(AuditProgress {
            emitted: self.saved.sequence,
            failing: None,
        });
    }

    /// The next lines go where the name leads now.
    async fn reopen(&mut self) -> Result<(), EmitError> {
        self.save(None).await?;
        Ok(self.parts.sink.reopen().await?)
    }

    async fn sign_head(&mut self) -> Result<(), EmitError> {
        if self.end == self.signed {
            return Ok(());
        }
        let now = rfc3339(self.parts.clock.now());
        let head = self.parts.key.head(&self.parts.server_id, &self.end, &now)?;
        self.parts.sink.write(format!("{head}\n").into_bytes()).await?;
        self.parts.tail.signed(self.end.sequence, head.clone());
        self.save(Some(head)).await?;
        // Not before: a head that the disk has lost is signed again.
        self.signed = self.end;
        Ok(())
    }

    async fn last_words(&mut self) -> Result<(), EmitError> {
        while *self.stored.borrow_and_update() > self.end.sequence {
            let before = self.end.sequence;
            self.emit().await?;
            if self.end.sequence == before {
                break;
            }
        }
        self.sign_head().await
    }
}

/// Whether there are lines after `sequence`; false when the store is gone.
async fn wait_for_more(stored: &mut watch::Receiver<u64>, sequence: u64) -> bool {
    stored.wait_for(|newest| *newest > sequence).await.is_ok()
}
