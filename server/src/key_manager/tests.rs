use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use signet_certs::authority::AuthorityKind;
use signet_certs::id::TrustDomain;
use signet_certs::signer::SignatureAlgorithm;
use tempfile::TempDir;

use super::{KeyManager as _, KeyManagerError, NewKey, SealedKeys};
use crate::store::sqlite::SqliteStore;
use crate::store::{Journals as _, KeyChanges, SealedKey};

struct Fixture {
    store: Arc<SqliteStore>,
    kek: PathBuf,
    _dir: TempDir,
}

impl Fixture {
    fn new(trust_domain: &str) -> Self {
        let dir = signet_testkit::folder();
        let store = SqliteStore::open(
            &dir.path().join("store"),
            &TrustDomain::parse(trust_domain).unwrap(),
        )
        .unwrap();
        Self {
            store: Arc::new(store),
            kek: dir.path().join("kek"),
            _dir: dir,
        }
    }

    async fn open(&self) -> Result<SealedKeys, KeyManagerError> {
        SealedKeys::open(&self.kek, &*self.store).await
    }

    async fn refusal(&self) -> KeyManagerError {
        self.open().await.err().expect("must be refused")
    }

    /// A manager, and a key of it that is in the store.
    async fn with_key() -> (Self, SealedKeys, NewKey) {
        let fixture = Self::new("example.org");
        let manager = fixture.open().await.unwrap();
        let key = manager
            .generate(AuthorityKind::X509, SignatureAlgorithm::P256)
            .await
            .unwrap();
        let keys = KeyChanges {
            add: key.sealed.clone().into_iter().collect(),
            remove: vec![],
        };
        fixture
            .store
            .save_journal(AuthorityKind::X509, 0, vec![], keys, vec![])
            .await
            .unwrap();
        (fixture, manager, key)
    }
}

/// Covers INV-5.
#[tokio::test]
async fn a_key_survives_a_restart_sealed() {
    let (fixture, _manager, key) = Fixture::with_key().await;
    let stored: Vec<SealedKey> = fixture.store.load_keys().await.unwrap();
    let signer = fixture.open().await.unwrap().unseal(&stored[0]).unwrap();
    assert_eq!(signer.public_point(), key.signer.public_point());
    let signature = signer.sign(b"message").unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.signer.public_point())
        .verify(b"message", &signature)
        .unwrap();
}

/// The PKCS#8 of a P-256 key contains its public point; a sealed one must not.
///
/// Covers INV-5, INV-13.
#[tokio::test]
async fn nothing_of_a_key_is_in_the_store_or_in_debug_output() {
    let (fixture, _manager, key) = Fixture::with_key().await;
    let point = key.signer.public_point();
    let holds_point = |bytes: &[u8]| bytes.windows(point.len()).any(|window| window == point);
    assert!(!holds_point(&key.sealed.as_ref().unwrap().ciphertext));
    for file in ["signet.db", "signet.db-wal"] {
        assert!(!holds_point(
            &fs::read(fixture.kek.with_file_name("store").join(file)).unwrap()
        ));
    }
    assert!(!format!("{:?}", key.sealed).contains("ciphertext"));
}

#[tokio::test]
async fn a_kek_is_made_for_an_empty_store_only() {
    let fixture = Fixture::new("example.org");
    fixture.open().await.unwrap();
    let made = fs::read(&fixture.kek).unwrap();
    assert_eq!(
        (made.len(), fixture.kek.metadata().unwrap().mode() & 0o777),
        (32, 0o600)
    );
    fixture.open().await.unwrap();
    assert_eq!(
        fs::read(&fixture.kek).unwrap(),
        made,
        "a KEK that is there is used"
    );
}

#[tokio::test]
async fn a_missing_kek_is_fatal_where_keys_are_sealed() {
    let (fixture, ..) = Fixture::with_key().await;
    fs::remove_file(&fixture.kek).unwrap();
    let error = fixture.refusal().await;
    assert!(matches!(error, KeyManagerError::KekMissing { keys: 1, .. }));
    let message = error.to_string();
    assert!(
        message.contains(&*fixture.kek.to_string_lossy()) && message.contains("backup"),
        "{message}"
    );
    assert!(!fixture.kek.exists(), "none is made in its place");
}

#[tokio::test]
async fn a_wrong_kek_is_fatal() {
    let (fixture, ..) = Fixture::with_key().await;
    fs::write(&fixture.kek, [9; 32]).unwrap();
    let error = fixture.refusal().await;
    assert!(matches!(error, KeyManagerError::KekWrong { .. }), "{error}");
    assert!(error.to_string().contains(&*fixture.kek.to_string_lossy()));
}

#[tokio::test]
async fn a_file_that_is_no_kek_is_refused() {
    let fixture = Fixture::new("example.org");
    for length in [0, 31, 33, 1 << 20] {
        fs::write(&fixture.kek, vec![1; length]).unwrap();
        fs::set_permissions(&fixture.kek, fs::Permissions::from_mode(0o600)).unwrap();
        let error = fixture.refusal().await;
        assert!(matches!(error, KeyManagerError::KekMalformed { .. }), "{error}");
    }
    fs::write(&fixture.kek, [1; 32]).unwrap();
    fs::set_permissions(&fixture.kek, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        fixture.refusal().await,
        KeyManagerError::KekExposed { .. }
    ));
}

/// Covers INV-5.
#[tokio::test]
async fn a_sealed_key_opens_only_in_its_place() {
    let (fixture, manager, key) = Fixture::with_key().await;
    let opens = |change: fn(&mut SealedKey)| {
        let mut sealed = key.sealed.clone().unwrap();
        change(&mut sealed);
        manager.unseal(&sealed).is_ok()
    };
    assert!(opens(|_| ()));
    assert!(!opens(|sealed| sealed.epoch += 1));
    assert!(!opens(
        |sealed| sealed.purpose = crate::store::KeyPurpose::Authority(AuthorityKind::Control)
    ));
    assert!(!opens(|sealed| sealed.purpose = crate::store::KeyPurpose::Audit));
    assert!(!opens(
        |sealed| sealed.authority_id = crate::store::suite::fixture::authority(1)
    ));
    assert!(!opens(|sealed| sealed.nonce[0] ^= 1));
    assert!(!opens(|sealed| sealed.ciphertext[0] ^= 1));
    let other = Fixture::new("example.com");
    fs::copy(&fixture.kek, &other.kek).unwrap();
    let elsewhere = other.open().await.unwrap();
    let error = elsewhere.unseal(key.sealed.as_ref().unwrap()).err().unwrap();
    assert!(matches!(error, KeyManagerError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn the_audit_key_is_made_once() {
    let fixture = Fixture::new("example.org");
    let manager = fixture.open().await.unwrap();
    let first = manager.audit_key(&*fixture.store).await.unwrap().public();
    let again = fixture
        .open()
        .await
        .unwrap()
        .audit_key(&*fixture.store)
        .await
        .unwrap()
        .public();
    assert_eq!(first, again);
}
