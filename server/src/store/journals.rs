//! What is kept of authorities: their history and their sealed keys.

use std::fmt;
use std::str::FromStr;

use signet_certs::authority::{AuthorityId, AuthorityKind};

use super::StoreFuture;
use crate::audit_event::AuditEvent;

/// What a store keeps of authorities, and the keys with which the server signs.
pub(crate) trait Journals: Send + Sync {
    /// The authorities of one kind as last saved; `None` before the first save.
    fn load_journal(&self, kind: AuthorityKind) -> StoreFuture<'_, Option<Journal>>;

    /// Replaces the journal of one kind, stores and removes sealed keys and writes audit rows, in one transaction.
    /// Returns the new revision. `expected_revision` is the revision that was loaded, 0 when there was none;
    /// [`StoreError::Conflict`](super::StoreError::Conflict) when somebody else has written since.
    fn save_journal(
        &self,
        kind: AuthorityKind,
        expected_revision: u64,
        body: Vec<u8>,
        keys: KeyChanges,
        audit: Vec<AuditEvent>,
    ) -> StoreFuture<'_, u64>;

    /// Every sealed key, by id.
    fn load_keys(&self) -> StoreFuture<'_, Vec<SealedKey>>;

    /// Keeps a sealed key that belongs to no journal: that of the audit log.
    fn save_key(&self, key: SealedKey) -> StoreFuture<'_, ()>;
}

/// The saved history of the authorities of one kind. The store does not look into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    /// Grows by one with every save.
    pub revision: u64,
    /// As saved.
    pub body: Vec<u8>,
}

/// Keys that come and go with a change of the journal.
#[derive(Debug, Default)]
pub(crate) struct KeyChanges {
    /// Keys to keep. One that is already stored is replaced.
    pub add: Vec<SealedKey>,
    /// Keys to destroy.
    pub remove: Vec<AuthorityId>,
}

/// What a sealed key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyPurpose {
    /// Certificates and CRLs of an authority of this kind.
    Authority(AuthorityKind),
    /// Heads of the audit log.
    Audit,
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(kind) => kind.fmt(f),
            Self::Audit => f.write_str("audit"),
        }
    }
}

/// The text is not a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the purpose of a key: expected x509, control or audit")]
pub(crate) struct UnknownPurpose;

impl FromStr for KeyPurpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, UnknownPurpose> {
        if text == "audit" {
            return Ok(Self::Audit);
        }
        text.parse().map(Self::Authority).map_err(|_| UnknownPurpose)
    }
}

/// A private key that only the key manager can open.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SealedKey {
    /// Names the key, not a certificate of it.
    pub authority_id: AuthorityId,
    /// What it signs.
    pub purpose: KeyPurpose,
    /// Which key-encryption key sealed it.
    pub kek_id: String,
    /// Epoch of the store at the time of sealing; authenticated with the ciphertext.
    pub epoch: u64,
    /// AES-GCM nonce.
    pub nonce: [u8; 12],
    /// PKCS#8, encrypted, with its tag.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedKey")
            .field("authority_id", &self.authority_id)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
