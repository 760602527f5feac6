//! The audit log: every decision is one line of JSON (design §11).
//!
//! An event is stored first and emitted from the store, in order and at least once. Each emitted line carries its
//! position (server, boot, sequence) and the SHA-256 of the line before, so a line that is missing, changed or moved
//! shows; every ten seconds in which something was emitted the head of that chain is signed by the audit key, so a tail
//! that was cut off shows too ([`verify`]). What a line says about the same position never changes: one that appears twice, after a
//! crash, is the same byte for byte.
//!
//! A line leaves the store only once the log is synced, so that a loss of power costs none.
//!
//! Events of a transaction are stored in it, by the store; those of none come through [`AuditLog`], which samples refusals.
//!
//! Tokens and private keys have no place in any event.

mod backlog;
mod emitter;
mod key;
mod line;
mod log;
mod sampler;
mod sink;
mod tail;
#[cfg(test)]
mod tests;
pub(crate) mod verify;

pub(crate) use self::backlog::{AuditBacklog, AuditBound, MAX_BACKLOG, WhenFull, limit};
pub(crate) use self::emitter::{AuditEmitter, AuditProgress, EmitterParts};
pub(crate) use self::key::{AuditKey, AuditPublicKey};
pub(crate) use self::log::AuditLog;
pub(crate) use self::sink::{AuditSink, LineSink};
pub(crate) use self::tail::{AuditTail, Batch, Filter, Kept, MOST_READERS, Reader, kept};
pub(crate) use crate::audit_event::{AuditAction, AuditCursor, AuditEvent};
