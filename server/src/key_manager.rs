//! Authority keys: where they live, which is here or elsewhere, and how they sign.
//!
//! [`KeyManager`] is the seam; [`SealedKeys`], whose keys leave it only sealed, is what there is. A key in a token is found by its
//! id, which is the authority's, and needs nothing of the store.

mod kek;
mod off_thread;
mod sealed;
#[cfg(test)]
pub(crate) mod token;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::signer::{AuthoritySigner, KeyError, SignatureAlgorithm};

pub(crate) use self::kek::kept_apart;
pub(crate) use self::off_thread::{Stopped, off_thread};
pub(crate) use self::sealed::SealedKeys;
use crate::store::{SealedKey, StoreError};

/// Why keys are not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyManagerError {
    /// The KEK file is missing although there are keys that need it.
    #[error(
        "the key-encryption key {path} is missing, but the store holds {keys} keys sealed with it; put the file back from its backup"
    )]
    KekMissing {
        /// Where it should be.
        path: PathBuf,
        /// How many keys cannot be opened.
        keys: usize,
    },
    /// The KEK in the file is not the one the keys were sealed with.
    #[error(
        "{path} holds key-encryption key {found}, but the keys in the store are sealed with {needed}; put the right file back from its backup"
    )]
    KekWrong {
        /// The file.
        path: PathBuf,
        /// Id of the KEK in it.
        found: String,
        /// Id of the KEK that is needed.
        needed: String,
    },
    /// The file is not 32 bytes long.
    #[error(
        "{path} is no key-encryption key: it has {length} bytes instead of 32; put the right file back from its backup"
    )]
    KekMalformed {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Everybody on the host may read the file.
    #[error("the key-encryption key {path} can be read or written by everybody; run `chmod 600 {path}`")]
    KekExposed {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or made.
    #[error("cannot {action} the key-encryption key {path}: {source}")]
    KekIo {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A stored key does not open although the KEK is right.
    #[error(
        "the sealed key of {authority_id} does not open: it was changed, or belongs to another store; restore a backup"
    )]
    Damaged {
        /// Whose key.
        authority_id: AuthorityId,
    },
    /// A key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a key manager is asked for.
pub(crate) type KeyFuture<'a, T> = BoxFuture<'a, Result<T, KeyManagerError>>;

/// A key that was just made. A sealed one exists only in memory until it is stored.
pub(crate) struct NewKey {
    /// Names the key.
    pub authority_id: AuthorityId,
    /// Signs with it.
    pub signer: Arc<dyn AuthoritySigner>,
    /// For [`KeyChanges::add`](crate::store::KeyChanges::add); none where the key lives elsewhere.
    pub sealed: Option<SealedKey>,
}

/// Where the keys of authorities live: makes them, finds them again, and destroys them. Whatever waits for another machine
/// takes no longer than its caller gives it.
pub(crate) trait KeyManager: Send + Sync {
    /// A new key for an authority of this kind.
    fn generate(&self, kind: AuthorityKind, algorithm: SignatureAlgorithm) -> KeyFuture<'_, NewKey>;

    /// The key of this authority; `sealed` is what the store has of it. Nothing where there is no such key.
    fn open<'a>(
        &'a self,
        kind: AuthorityKind,
        authority: AuthorityId,
        sealed: Option<&'a SealedKey>,
    ) -> KeyFuture<'a, Option<Arc<dyn AuthoritySigner>>>;

    /// Destroys a key that no journal names, with all that is kept of it outside of the store; one that is not there is none.
    fn destroy(&self, authority: AuthorityId) -> KeyFuture<'_, ()>;
}

#[cfg(test)]
mod tests;
