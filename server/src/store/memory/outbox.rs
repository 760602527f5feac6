//! Audit lines on their way out.

use tokio::sync::watch;

use super::MemoryStore;
use crate::audit_event::{AuditCursor, AuditEvent, StoredLine};
use crate::store::{AuditOutbox, StoreFuture};

impl AuditOutbox for MemoryStore {
    fn append(&self, events: Vec<AuditEvent>) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            self.fails(&self.audit_failures)?;
            kept.audit(events);
            Ok(())
        })
    }

    fn stored(&self) -> watch::Receiver<u64> {
        self.stored_lines.subscribe()
    }

    fn bound(&self, most: Option<u64>) {
        self.kept().most_lines = most;
    }

    fn left_out(&self) -> u64 {
        self.kept().left_out
    }

    fn cursor(&self) -> StoreFuture<'_, AuditCursor> {
        self.look(move |kept| kept.cursor)
    }

    fn head(&self) -> StoreFuture<'_, Option<String>> {
        self.look(|kept| kept.head.clone())
    }

    fn lines_after(&self, sequence: u64, limit: usize) -> StoreFuture<'_, Vec<StoredLine>> {
        self.look(move |kept| kept.lines_after(sequence, limit, &self.info))
    }

    fn advance(&self, cursor: AuditCursor, head: Option<String>) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            kept.advance(cursor, head);
            Ok(())
        })
    }
}
