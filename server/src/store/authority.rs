//! What is kept of authorities: their history, their sealed keys, and how much of theirs is in use.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use signet_certs::authority::{AuthorityId, AuthorityKind};

/// The saved history of the authorities of one kind. The store does not look into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Grows by one with every save.
    pub revision: u64,
    /// As saved.
    pub body: Vec<u8>,
}

/// Keys that come and go with a change of the journal.
#[derive(Debug, Default)]
pub struct KeyChanges {
    /// Keys to keep. One that is already stored is replaced.
    pub add: Vec<SealedKey>,
    /// Keys to destroy.
    pub remove: Vec<AuthorityId>,
}

/// What a sealed key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyPurpose {
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
pub struct UnknownPurpose;

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
pub struct SealedKey {
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

/// How much of what an authority signed is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityUse {
    /// Which authority.
    pub authority: AuthorityId,
    /// Certificates neither expired nor revoked.
    pub live: u64,
    /// When the last certificate it signed expires, revoked ones included: until then it must sign its CRL.
    pub latest_not_after: SystemTime,
}
