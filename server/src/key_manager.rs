//! Authority keys: made here, used here, and gone from here only sealed.
//!
//! A key is sealed with AES-256-GCM under a key-encryption key (KEK) from a file, with trust domain, purpose, key id
//! and epoch authenticated along: a sealed key that was moved to another row or store does not open.

mod kek;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::aead::{Aad, MAX_TAG_LEN, Nonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::id::TrustDomain;
use signet_certs::signer::{AuthoritySigner, KeyError, LocalSigner, p256_spki};
use zeroize::Zeroizing;

use self::kek::Kek;
use crate::audit::AuditKey;
use crate::store::{KeyPurpose, SealedKey, Store, StoreError};

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

/// Makes, seals and opens keys.
pub(crate) struct KeyManager {
    kek: Kek,
    trust_domain: TrustDomain,
    epoch: u64,
    rng: SystemRandom,
}

/// A key that was just made. It exists only in memory until `sealed` is stored.
pub(crate) struct NewKey {
    /// Names the key.
    pub authority_id: AuthorityId,
    /// Signs with it.
    pub signer: Arc<dyn AuthoritySigner>,
    /// For [`KeyChanges::add`](crate::store::KeyChanges::add).
    pub sealed: SealedKey,
}

impl KeyManager {
    /// Reads the KEK from `kek_file` and checks it against every key in the store. Makes a KEK only when the store
    /// holds no key and the file is missing.
    pub(crate) async fn open(kek_file: &Path, store: &dyn Store) -> Result<Self, KeyManagerError> {
        let sealed = store.load_keys().await?;
        let rng = SystemRandom::new();
        let kek = Kek::open(kek_file, &sealed, &rng)?;
        let info = store.info();
        let manager = Self {
            kek,
            trust_domain: info.trust_domain.clone(),
            epoch: info.epoch,
            rng,
        };
        for key in &sealed {
            manager.unseal(key)?;
        }
        Ok(manager)
    }

    /// A new key for an authority.
    pub(crate) fn generate(&self, kind: AuthorityKind) -> Result<NewKey, KeyManagerError> {
        self.generate_for(KeyPurpose::Authority(kind))
    }

    /// Opens a stored key.
    pub(crate) fn unseal(&self, sealed: &SealedKey) -> Result<Arc<dyn AuthoritySigner>, KeyManagerError> {
        let damaged = || KeyManagerError::Damaged {
            authority_id: sealed.authority_id,
        };
        let mut buffer = Zeroizing::new(sealed.ciphertext.clone());
        let aad = Aad::from(self.aad(sealed.purpose, &sealed.authority_id, sealed.epoch));
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let pkcs8 = self
            .kek
            .key()
            .open_in_place(nonce, aad, &mut buffer)
            .map_err(|_| damaged())?;
        let signer = LocalSigner::from_pkcs8(pkcs8, self.rng.clone())?;
        if AuthorityId::of_spki(&p256_spki(signer.public_point())) != sealed.authority_id {
            return Err(damaged());
        }
        Ok(Arc::new(signer))
    }

    /// The key that signs the audit log; made and stored when there is none.
    pub(crate) async fn audit_key(&self, store: &dyn Store) -> Result<AuditKey, KeyManagerError> {
        let stored = store
            .load_keys()
            .await?
            .into_iter()
            .find(|key| key.purpose == KeyPurpose::Audit);
        if let Some(sealed) = stored {
            return Ok(AuditKey::new(self.unseal(&sealed)?));
        }
        let key = self.generate_for(KeyPurpose::Audit)?;
        store.save_key(key.sealed).await?;
        Ok(AuditKey::new(key.signer))
    }

    fn generate_for(&self, purpose: KeyPurpose) -> Result<NewKey, KeyManagerError> {
        let (signer, pkcs8) = LocalSigner::generate(&self.rng)?;
        let authority_id = AuthorityId::of_spki(&p256_spki(signer.public_point()));
        let sealed = self.seal(purpose, authority_id, &pkcs8)?;
        Ok(NewKey {
            authority_id,
            signer: Arc::new(signer),
            sealed,
        })
    }

    fn seal(&self, purpose: KeyPurpose, id: AuthorityId, pkcs8: &[u8]) -> Result<SealedKey, KeyManagerError> {
        // A random nonce per key: a KEK seals a few hundred keys in its life, far from a collision.
        let mut nonce = [0; 12];
        self.rng.fill(&mut nonce).map_err(|_| KeyError::Random)?;
        // Room for the tag up front: growing would leave a copy of the plain key behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(pkcs8.len() + MAX_TAG_LEN));
        buffer.extend_from_slice(pkcs8);
        let aad = Aad::from(self.aad(purpose, &id, self.epoch));
        self.kek
            .key()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut *buffer)
            .map_err(|_| KeyError::Random)?;
        Ok(SealedKey {
            authority_id: id,
            purpose,
            kek_id: self.kek.id().to_owned(),
            epoch: self.epoch,
            nonce,
            ciphertext: buffer.to_vec(),
        })
    }

    fn aad(&self, purpose: KeyPurpose, id: &AuthorityId, epoch: u64) -> Vec<u8> {
        // None of the parts can contain a newline, so no two different lists of parts read alike.
        format!(
            "signet sealed key v1\n{}\n{purpose}\n{id}\n{epoch}\n",
            self.trust_domain
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests;
