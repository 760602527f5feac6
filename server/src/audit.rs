//! The audit log: every decision is one line of JSON (design §11).
//!
//! An event is stored first and emitted from the store, in order and at least once. Each emitted line carries its
//! position (server, boot, sequence) and the SHA-256 of the line before, so a line that is missing, changed or moved
//! shows; every ten seconds in which something was emitted the head of that chain is signed by the audit key, so a tail
//! that was cut off shows too. What a line says about the same position never changes: one that appears twice, after a
//! crash, is the same byte for byte.
//!
//! Tokens and private keys have no place in any event.

mod emitter;
mod event;
mod key;
mod line;
mod sampler;
mod sink;
#[cfg(test)]
mod tests;
mod verify;

pub use self::emitter::{AuditEmitter, HEAD_INTERVAL};
pub use self::event::{AuditAction, AuditEvent, RevokedSerial};
pub use self::key::AuditKey;
pub use self::line::{AuditCursor, StoredLine};
pub(crate) use self::sampler::{Sampled, Sampler};
pub use self::sink::AuditSink;
pub use self::verify::{ChainError, ChainSummary, verify_chain};
use crate::store::{SealedKey, StoreFuture};

/// Where stored events wait until they are emitted. Implemented by every store.
pub trait AuditOutbox: Send + Sync {
    /// The sequence of the newest stored line; changes when one is added.
    fn stored(&self) -> tokio::sync::watch::Receiver<u64>;

    /// How far emission has come, as last saved.
    fn cursor(&self) -> StoreFuture<'_, AuditCursor>;

    /// Up to `limit` lines after `sequence`, in order.
    fn lines_after(&self, sequence: u64, limit: usize) -> StoreFuture<'_, Vec<StoredLine>>;

    /// Saves how far emission has come, with the newest signed head, and drops the lines up to there.
    fn advance(&self, cursor: AuditCursor, head: Option<String>) -> StoreFuture<'_, ()>;

    /// Keeps the sealed audit key.
    fn save_key(&self, key: SealedKey) -> StoreFuture<'_, ()>;
}
