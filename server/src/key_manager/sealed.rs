//! Keys in the store, sealed.
//!
//! A key is sealed with AES-256-GCM under a key-encryption key (KEK) from a file, with trust domain, purpose, key id
//! and epoch authenticated along: a sealed key that was moved to another row or store does not open.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use ring::aead::{Aad, MAX_TAG_LEN, Nonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::id::TrustDomain;
use signet_certs::signer::{AuthoritySigner, KeyError, LocalSigner, SignatureAlgorithm};
use zeroize::Zeroizing;

use super::kek::Kek;
use super::{KeyFuture, KeyManager, KeyManagerError, NewKey};
use crate::audit::AuditKey;
use crate::store::{KeyPurpose, SealedKey, Store};

/// Makes, seals and opens keys.
pub(crate) struct SealedKeys {
    kek: Kek,
    trust_domain: TrustDomain,
    epoch: u64,
    rng: SystemRandom,
}

impl SealedKeys {
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

    /// Opens a stored key.
    pub(super) fn unseal(&self, sealed: &SealedKey) -> Result<Arc<dyn AuthoritySigner>, KeyManagerError> {
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
        if AuthorityId::of_spki(&signer.spki()) != sealed.authority_id {
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
        let (signer, sealed) = self.make(KeyPurpose::Audit, SignatureAlgorithm::P256)?;
        store.save_key(sealed).await?;
        Ok(AuditKey::new(Arc::new(signer)))
    }

    fn make(
        &self,
        purpose: KeyPurpose,
        algorithm: SignatureAlgorithm,
    ) -> Result<(LocalSigner, SealedKey), KeyManagerError> {
        let (signer, pkcs8) = LocalSigner::generate(algorithm, &self.rng)?;
        let id = AuthorityId::of_spki(&signer.spki());
        let sealed = self.seal(purpose, id, &pkcs8)?;
        Ok((signer, sealed))
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

impl KeyManager for SealedKeys {
    fn generate(&self, kind: AuthorityKind, algorithm: SignatureAlgorithm) -> KeyFuture<'_, NewKey> {
        let made = self.make(KeyPurpose::Authority(kind), algorithm);
        let made = made.map(|(signer, sealed)| NewKey {
            authority_id: sealed.authority_id,
            signer: Arc::new(signer),
            sealed: Some(sealed),
        });
        ready(made).boxed()
    }

    fn open<'a>(
        &'a self,
        kind: AuthorityKind,
        authority: AuthorityId,
        sealed: Option<&'a SealedKey>,
    ) -> KeyFuture<'a, Option<Arc<dyn AuthoritySigner>>> {
        let purpose = KeyPurpose::Authority(kind);
        let found = sealed.filter(|key| key.authority_id == authority && key.purpose == purpose);
        ready(found.map(|key| self.unseal(key)).transpose()).boxed()
    }

    /// What is sealed goes in the transaction of the journal, so that no crash can leave it behind.
    fn destroy(&self, _: AuthorityId) -> KeyFuture<'_, ()> {
        ready(Ok(())).boxed()
    }
}
