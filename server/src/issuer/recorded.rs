//! The only place where a leaf is signed (INV-4). It uses up a row of the ledger that is durable, and the leaf says what
//! the row says.

use signet_certs::{
    authority::{AuthorityId, X509Authority},
    csr::WorkloadPublicKey,
    id::SpiffeId,
    svid::{self, SvidError, SvidTemplate},
};

use crate::{
    key_manager::{Stopped, off_thread},
    store::Recorded,
};

/// What a leaf holds that its row of the ledger does not.
pub(super) struct Details {
    /// The key; the row has its hash.
    pub(super) key: WorkloadPublicKey,
    /// DNS names beside the SPIFFE ID.
    pub(super) dns_names: Vec<String>,
    /// Where the authority's CRL is served.
    pub(super) crl_url: Option<String>,
}

/// A certificate whose row is durable: all that is needed to sign it, once.
pub(super) struct RecordedLeaf {
    recorded: Recorded,
    details: Details,
}

/// A leaf that was signed and passed its check.
#[derive(Debug)]
pub(super) struct SignedLeaf {
    /// What it says.
    pub(super) says: SvidTemplate,
    /// The certificate, and what stands between it and its authority's root.
    pub(super) chain: Vec<Vec<u8>>,
}

/// Why a recorded leaf was not signed. Its row stays, without a certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// The row names another signer.
    #[error("the ledger has authority {recorded} for this certificate, not {given}")]
    OtherAuthority {
        /// As recorded.
        recorded: AuthorityId,
        /// Who was to sign.
        given: AuthorityId,
    },
    /// The row is about another key.
    #[error("the ledger has another key for this certificate")]
    OtherKey,
    /// The certificate could not be made, or is not as asked for.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// Nothing signs.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl RecordedLeaf {
    pub(super) const fn new(recorded: Recorded, details: Details) -> Self {
        Self { recorded, details }
    }

    /// Who gets it.
    pub(super) fn spiffe_id(&self) -> &SpiffeId {
        self.recorded.spiffe_id()
    }

    /// See [`Recorded::displaced`].
    pub(super) const fn displaced(&self) -> u32 {
        self.recorded.displaced()
    }

    /// Signs what was recorded and reads it back. Takes about as long as one signature; a remote key blocks.
    pub(super) fn sign(self, authority: &X509Authority) -> Result<SignedLeaf, SignError> {
        let row = self.recorded.into_row();
        let Details {
            key,
            dns_names,
            crl_url,
        } = self.details;
        let given = authority.certificate().id();
        if row.authority != given {
            let recorded = row.authority;
            return Err(SignError::OtherAuthority { recorded, given });
        }
        if row.spki_sha256 != key.spki_sha256() {
            return Err(SignError::OtherKey);
        }
        let says = SvidTemplate {
            spiffe_id: row.workload.spiffe_id,
            dns_names,
            not_before: row.not_before,
            not_after: row.not_after,
            serial: row.serial,
            crl_url,
        };
        let der = svid::sign(&says, &key, authority)?;
        svid::check(&der, &says, &key, authority.certificate())?;
        let chain = authority.chain_of(der);
        Ok(SignedLeaf { says, chain })
    }

    /// The same, off the threads that serve where the key is elsewhere.
    pub(super) async fn sign_alone(self, authority: X509Authority) -> Result<SignedLeaf, SignError> {
        let signer = authority.signer().clone();
        off_thread(signer.as_ref(), false, move || self.sign(&authority)).await?
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::{Duration, SystemTime},
    };

    use ring::rand::SystemRandom;
    use signet_certs::{
        authority::AuthorityKind,
        csr::{create_csr, verify_csr},
        signer::{AuthoritySigner, LeafKey, SignatureAlgorithm},
        verify::inspect_leaf,
    };

    use super::*;
    use crate::{
        fixtures::{HOUR, START, authority, serial, trust_domain},
        store::{EvidenceKind, Ledger as _, NewIssuance, WorkloadRef, memory::MemoryStore},
    };

    /// Signs, and counts how often.
    struct Counting {
        signer: Arc<dyn AuthoritySigner>,
        used: AtomicU32,
    }

    impl AuthoritySigner for Counting {
        fn algorithm(&self) -> SignatureAlgorithm {
            self.signer.algorithm()
        }

        fn is_remote(&self) -> bool {
            self.signer.is_remote()
        }

        fn public_point(&self) -> &[u8] {
            self.signer.public_point()
        }

        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, signet_certs::signer::SignError> {
            self.used.fetch_add(1, Ordering::SeqCst);
            self.signer.sign(message)
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + START
    }

    fn key() -> WorkloadPublicKey {
        verify_csr(&create_csr(&LeafKey::generate(&SystemRandom::new()).unwrap()).unwrap()).unwrap()
    }

    fn details(key: WorkloadPublicKey) -> Details {
        Details {
            key,
            dns_names: vec!["web.shop".to_owned()],
            crl_url: None,
        }
    }

    async fn recorded(authority: &X509Authority, key: &WorkloadPublicKey) -> Recorded {
        let row = NewIssuance {
            serial: serial(1),
            authority: authority.certificate().id(),
            workload: WorkloadRef::of(SpiffeId::parse("spiffe://example.org/ns/shop/sa/web").unwrap()),
            evidence: EvidenceKind::PodToken,
            token_jti: None,
            spki_sha256: key.spki_sha256(),
            rule: "test".to_owned(),
            policy_revision: 1,
            not_before: now() - Duration::from_secs(60),
            not_after: now() + HOUR,
            earliest: now(),
            caller: None,
            attestation: None,
            outage: false,
            budget: None,
        };
        let store = MemoryStore::new(trust_domain());
        let mut answers = store.issue(vec![row], now()).await.unwrap();
        answers.pop().unwrap().unwrap()
    }

    /// Covers INV-4.
    #[tokio::test]
    async fn the_leaf_says_what_the_row_says() {
        let (authority, key) = (authority(AuthorityKind::X509, now()), key());
        let recorded = recorded(&authority, &key).await;
        let row = recorded.row().clone();
        let leaf = RecordedLeaf::new(recorded, details(key))
            .sign(&authority)
            .unwrap();
        let said = inspect_leaf(&leaf.chain[0]).unwrap();
        assert_eq!(
            (said.serial, said.authority_id, said.spki_sha256),
            (row.serial, row.authority, row.spki_sha256)
        );
        assert_eq!(
            (said.spiffe_id, said.not_before, said.not_after),
            (row.workload.spiffe_id, row.not_before, row.not_after)
        );
    }

    /// Covers INV-4.
    #[tokio::test]
    async fn another_key_or_authority_than_the_recorded_one_is_never_used() {
        let (first, key) = (authority(AuthorityKind::X509, now()), key());
        let other = authority(AuthorityKind::X509, now());
        let signer = Arc::new(Counting {
            signer: other.signer().clone(),
            used: AtomicU32::new(0),
        });
        let other = X509Authority::new(other.certificate().clone(), signer.clone()).unwrap();
        let leaf = RecordedLeaf::new(recorded(&first, &key).await, details(key.clone()));
        let error = leaf.sign(&other).unwrap_err();
        assert!(matches!(error, SignError::OtherAuthority { .. }), "{error}");
        let leaf = RecordedLeaf::new(recorded(&other, &key).await, details(self::key()));
        let error = leaf.sign(&other).unwrap_err();
        assert!(matches!(error, SignError::OtherKey), "{error}");
        assert_eq!(signer.used.load(Ordering::SeqCst), 0);
        let leaf = RecordedLeaf::new(recorded(&other, &key).await, details(key));
        leaf.sign(&other).unwrap();
        assert_eq!(signer.used.load(Ordering::SeqCst), 1);
    }
}
