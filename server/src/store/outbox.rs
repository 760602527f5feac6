//! The audit log's way out: what was decided is stored first, and leaves from here.

use tokio::sync::watch;

use super::StoreFuture;
use crate::audit_event::{AuditCursor, AuditEvent, StoredLine};

/// Where stored events wait until they are emitted.
pub(crate) trait AuditOutbox: Send + Sync {
    /// Stores events that belong to no other transaction, in order: all of them or none.
    fn append(&self, events: Vec<AuditEvent>) -> StoreFuture<'_, ()>;

    /// The sequence of the newest stored line; changes when one is added.
    fn stored(&self) -> watch::Receiver<u64>;

    /// From so many waiting lines on, further ones are left out, and counted in a line of their own once they are not;
    /// `None`, as at the start: never. Changes that they tell of are stored all the same.
    fn bound(&self, most: Option<u64>);

    /// How many lines were left out since the store was opened.
    fn left_out(&self) -> u64;

    /// How far emission has come, as last saved.
    fn cursor(&self) -> StoreFuture<'_, AuditCursor>;

    /// The newest signed head, as last saved.
    fn head(&self) -> StoreFuture<'_, Option<String>>;

    /// About `limit` lines after `sequence`, in order; none only when there is none.
    fn lines_after(&self, sequence: u64, limit: usize) -> StoreFuture<'_, Vec<StoredLine>>;

    /// Saves how far emission has come, with the newest signed head, and drops the lines up to there. A cursor that
    /// lies behind the saved one changes nothing.
    fn advance(&self, cursor: AuditCursor, head: Option<String>) -> StoreFuture<'_, ()>;
}
