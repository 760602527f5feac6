//! What the server must not forget: what was issued, what is revoked, what is denied, the authorities' history and
//! their sealed keys, the lists as published, and the audit log.
//!
//! One trait, [`Store`], in groups of few methods. Every method that changes something returns only when the change is
//! durable, and each is one transaction: either all of it happened or nothing did. A method that answers
//! [`StoreError::Unavailable`] may be called again; the change it asked for may or may not be found after a crash, so
//! nothing outside the store may be built on it.

mod agents;
mod budget;
mod clusters;
mod denials;
mod denied;
mod error;
mod issued_line;
mod journals;
mod ledger;
mod lists;
pub(crate) mod memory;
mod outbox;
mod proofs;
mod revocations;
mod room;
mod rules;
pub(crate) mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::time::{Duration, SystemTime};

use signet_certs::id::TrustDomain;
use tokio::sync::watch;

pub(crate) use self::agents::{
    AgentRow, Attestation, AttestedAgents, Generation, Generations, LiveAgent, Presented,
    PresentedCertificate, Standing,
};
#[cfg(test)]
pub(crate) use self::budget::BudgetOwner;
pub(crate) use self::budget::{AgentShare, Budget, MANY_DISPLACED, Spent, limits};
pub(crate) use self::clusters::{ClusterRow, Clusters, SigningKeySet};
pub(crate) use self::denied::{DenialTarget, Named, Subject};
pub(crate) use self::error::{OpenError, RevokeError, StoreError};
pub(crate) use self::journals::{Journal, Journals, KeyChanges, KeyPurpose, SealedKey};
#[cfg(test)]
pub(crate) use self::ledger::MAX_BATCH;
pub(crate) use self::ledger::{
    AuthorityUse, EvidenceKind, IssueRefusal, Ledger, LedgerRow, NewIssuance, PodTokenUse, Recorded,
    SvidFilter, SvidPage, WorkloadRef,
};
pub(crate) use self::lists::{Admitted, Lists, RevokedSet, StoredCrl};
pub(crate) use self::outbox::AuditOutbox;
pub(crate) use self::proofs::{ListProof, Proofs};
pub(crate) use self::revocations::{
    Denial, Lifted, Origin, Revocations, RevokeRequest, RevokeTarget, Revoked, RevokedSvid,
};
pub(crate) use self::room::ListRoom;
pub(crate) use self::rules::{KeptRules, LiveIdentity, RulesToKeep};

/// A future that a trait object can return.
pub(crate) type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;

/// What a method of a [`Store`] returns.
pub(crate) type StoreFuture<'a, T, E = StoreError> = BoxFuture<'a, Result<T, E>>;

/// How far a time may lie before the one up to which memory was tidied without the ledger being asked itself.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// How long a row stays after its end.
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);
/// How long an agent stays known after the end of its newest certificate: longer than a trust stream is open to one that
/// has expired, so that none is that was revoked.
const AGENTS_KEPT: Duration = Duration::from_secs(8 * 24 * 3600);
/// How long an ended denial can still be looked up.
const DENIALS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The server's memory. Adapters: [`sqlite::SqliteStore`], and [`memory::MemoryStore`] for tests; all pass the same
/// conformance suite.
pub(crate) trait Store:
    Ledger + Revocations + Lists + Journals + AttestedAgents + Clusters + Proofs + KeptRules + AuditOutbox
{
    /// Who this store belongs to. Never changes while it is open.
    fn info(&self) -> &StoreInfo;

    /// Keeps what is known of time for the next start and, where time is settled, drops what is no longer needed: rows a day
    /// after their expiry and after a later CRL of their authority, agents and denials some days or weeks after their end. Call it
    /// about once a minute.
    fn housekeeping(&self, time: KnownTime) -> StoreFuture<'_, Housekeeping>;

    /// Writes a page of nothing and waits until it is durable: whether the store takes anything at all.
    fn probe(&self) -> StoreFuture<'_, ()>;

    /// How many transactions have failed since the store was opened, by a full disk, an I/O error or a fault in one; changes
    /// when one does, before its callers are answered.
    fn failed_writes(&self) -> watch::Receiver<u64>;
}

/// Who a store belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreInfo {
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
    /// The latest confirmed time that was noted before it was opened; `None` in a new store.
    pub mark: Option<SystemTime>,
    /// The last process ended before the delay after a jump of its clock was over.
    pub jumped: bool,
}

/// What [`Store::housekeeping`] is told about time (design §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownTime {
    /// The time now, where it is confirmed: raises the mark, which never falls.
    pub confirmed: Option<SystemTime>,
    /// The time by which things may be let go; nothing is while there is none.
    pub settled: Option<SystemTime>,
    /// Whether the delay after a jump is still running.
    pub jumped: bool,
}

impl KnownTime {
    /// Time that nothing speaks against.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn settled(now: SystemTime) -> Self {
        Self {
            confirmed: Some(now),
            settled: Some(now),
            jumped: false,
        }
    }
}

/// What [`Store::housekeeping`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Housekeeping {
    /// Ledger rows removed.
    pub pruned: u64,
}
