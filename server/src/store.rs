//! What the server must not forget: what was issued, what is revoked, what is denied, the authorities' history and
//! their sealed keys, the lists as published, and the audit log.
//!
//! One narrow trait. Every method that changes something returns only when the change is durable, and each is one
//! transaction: either all of it happened or nothing did. A method that answers [`StoreError::Unavailable`] may be
//! called again; the change it asked for may or may not be found after a crash, so nothing outside the store may be
//! built on it.

mod authority;
mod error;
mod issuance;
#[cfg(test)]
pub(crate) mod memory;
mod revocation;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::time::{Duration, SystemTime};

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;

pub use self::authority::{AuthorityUse, Journal, KeyChanges, KeyPurpose, SealedKey};
pub use self::error::{OpenError, RevokeError, StoreError};
pub use self::issuance::{
    EvidenceKind, IssueRefusal, LedgerRow, MAX_BATCH, NewIssuance, Recorded, SvidFilter, SvidPage,
    WorkloadRef,
};
pub use self::revocation::{
    Denial, DenialKind, Lifted, MAX_COMMENT_BYTES, RevokeRequest, RevokeTarget, Revoked, RevokedSet,
    RevokedSvid, StoredCrl,
};
use crate::audit::AuditEvent;

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;

/// What a method of [`Store`] returns.
pub type StoreFuture<'a, T, E = StoreError> = BoxFuture<'a, Result<T, E>>;

/// The server's memory. Adapters: [`sqlite::SqliteStore`]; all pass the same conformance suite.
pub trait Store: Send + Sync {
    /// Who this store belongs to. Never changes while it is open.
    fn info(&self) -> &StoreInfo;

    /// The authorities of one kind as last saved; `None` before the first save.
    fn load_journal(&self, kind: AuthorityKind) -> StoreFuture<'_, Option<Journal>>;

    /// Replaces the journal of one kind, stores and removes sealed keys and writes audit rows, in one transaction.
    /// Returns the new revision. `expected_revision` is the revision that was loaded, 0 when there was none;
    /// [`StoreError::Conflict`] when somebody else has written since.
    fn save_journal(
        &self,
        kind: AuthorityKind,
        expected_revision: u64,
        body: Vec<u8>,
        keys: KeyChanges,
        audit: Vec<AuditEvent>,
    ) -> StoreFuture<'_, u64>;

    /// Every sealed key.
    fn load_keys(&self) -> StoreFuture<'_, Vec<SealedKey>>;

    /// Records certificates that are about to be signed: nothing can be signed without the [`Recorded`] row that this
    /// returns. Denials and budgets are judged inside the same transaction, item by item, in the order of `batch`.
    /// At most [`MAX_BATCH`] items; as many answers, in the same order.
    fn issue(
        &self,
        batch: Vec<NewIssuance>,
        now: SystemTime,
    ) -> StoreFuture<'_, Vec<Result<Recorded, IssueRefusal>>>;

    /// Marks what the target names as revoked and denies it further certificates (design §8). When this has returned,
    /// [`Store::issue`] records nothing for a denied target. Asking again for what is already revoked succeeds and
    /// returns it again, with its first date and reason kept.
    fn revoke(&self, request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError>;

    /// Lifts a denial. Never un-revokes a serial. [`StoreError::NotFound`] for an id that does not exist; a denial
    /// that was already lifted is returned as it is.
    fn allow(&self, denial_id: &str, by: &str, now: SystemTime) -> StoreFuture<'_, Denial>;

    /// Denials, oldest first: those in force at `now`, or with `include_lifted` all that are still stored.
    fn denials(&self, include_lifted: bool, now: SystemTime) -> StoreFuture<'_, Vec<Denial>>;

    /// What the next CRL of `authority` has to list: all that is revoked and either unexpired or not yet listed on a
    /// CRL issued after its expiry (RFC 5280 §3.3, CRL-19). Sorted by serial.
    fn revoked(&self, authority: AuthorityId) -> StoreFuture<'_, RevokedSet>;

    /// Keeps a signed CRL as the one to serve. Refuses a number that does not grow and a list older than the one
    /// stored ([`StoreError::NotNewer`]).
    fn save_crl(&self, crl: StoredCrl) -> StoreFuture<'_, ()>;

    /// The newest CRL of every authority.
    fn load_crls(&self) -> StoreFuture<'_, Vec<StoredCrl>>;

    /// What was issued, newest first.
    fn list(&self, filter: SvidFilter) -> StoreFuture<'_, SvidPage>;

    /// For every authority that signed something still recorded: how much of it is live, and until when it matters.
    fn live_counts(&self, now: SystemTime) -> StoreFuture<'_, Vec<AuthorityUse>>;

    /// Remembers an agent; replaces what was known of the same SPIFFE ID.
    fn record_agent(&self, agent: AgentRow) -> StoreFuture<'_, ()>;

    /// Every agent whose certificate has not been expired for more than a day, by SPIFFE ID.
    fn agents(&self) -> StoreFuture<'_, Vec<AgentRow>>;

    /// The sequence number of a bundle with this content: the current one when the content is the current one, else
    /// the next. Never goes back.
    fn next_sequence(&self, content_digest: [u8; 32]) -> StoreFuture<'_, u64>;

    /// Queues an audit event that belongs to no other transaction. Never blocks: refusals are sampled per caller, and
    /// when the queue is full the loss is counted and the count audited.
    fn audit(&self, event: AuditEvent);

    /// Raises the high-water mark of time and drops what is no longer needed: rows a day after their expiry and after
    /// a later CRL of their authority, denials and agents that ended more than a day ago. Prunes nothing while the
    /// clock is behind its high-water mark. Call it about once a minute.
    fn housekeeping(&self, now: SystemTime) -> StoreFuture<'_, Housekeeping>;
}

/// Who a store belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// The only trust domain this store serves.
    pub trust_domain: TrustDomain,
    /// Grows by one when the store is restored from a backup.
    pub epoch: u64,
    /// Random name of this store, 16 hex digits; first part of every audit line's position.
    pub server_id: String,
    /// How often the store has been opened.
    pub boot: u64,
    /// Whether it held no sealed key when it was opened: only then may a key-encryption key be made.
    pub was_empty: bool,
}

/// A node agent as last attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// `spiffe://<td>/signet/agent/<cluster>/<node-uid>`.
    pub spiffe_id: SpiffeId,
    /// Name of the cluster in the configuration.
    pub cluster: String,
    /// The node's name in its cluster.
    pub node_name: String,
    /// The node's UID in its cluster.
    pub node_uid: String,
    /// Serial of the agent's newest certificate.
    pub serial: SerialNumber,
    /// Authority that signed it.
    pub authority: AuthorityId,
    /// When the node was last attested.
    pub attested_at: SystemTime,
    /// When the newest certificate expires.
    pub expires_at: SystemTime,
}

/// What [`Store::housekeeping`] found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Housekeeping {
    /// How far the clock is behind the latest time the store has seen, when that is more than five minutes: issuing
    /// and timers must stop until it heals.
    pub clock_behind: Option<Duration>,
    /// Ledger rows removed.
    pub pruned: u64,
    /// Audit lines that are stored but not yet emitted.
    pub audit_backlog: u64,
}
