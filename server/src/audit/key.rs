//! The key that signs the heads of the log, and the one that they are verified by.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use signet_certs::pem;
use signet_certs::signer::{AuthoritySigner, SignError, p256_spki};

use super::AuditCursor;

/// Bytes of an uncompressed point of P-256.
const POINT: usize = 65;

/// Signs heads: statements that the log has a line of this hash at this position.
#[derive(Clone)]
pub(crate) struct AuditKey(Arc<dyn AuthoritySigner>);

impl AuditKey {
    /// Takes over a P-256 key.
    pub(crate) fn new(signer: Arc<dyn AuthoritySigner>) -> Self {
        Self(signer)
    }

    /// The key that verifies what this one signs.
    pub(crate) fn public(&self) -> AuditPublicKey {
        AuditPublicKey(self.0.public_point().to_vec())
    }

    /// A head line, without newline.
    pub(crate) fn head(&self, server_id: &str, end: &AuditCursor, time: &str) -> Result<String, SignError> {
        let head = Head {
            event: HEAD.to_owned(),
            server: server_id.to_owned(),
            sequence: end.sequence,
            hash: hex::encode(end.hash),
            time: time.to_owned(),
            public_key: self.public().to_base64(),
            signature: String::new(),
        };
        let signature = BASE64.encode(self.0.sign(&head.statement())?);
        serde_json::to_string(&Head { signature, ..head }).map_err(|error| SignError(error.to_string()))
    }
}

/// The key by which heads are verified.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AuditPublicKey(Vec<u8>);

/// The text is no P-256 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the public key of an audit log: expected a PEM block `PUBLIC KEY` with a key on P-256, as `signet-server audit key` prints it"
)]
pub(crate) struct NotAKey;

impl AuditPublicKey {
    /// Reads it as [`to_base64`](Self::to_base64) writes it.
    pub(crate) fn from_base64(text: &str) -> Result<Self, NotAKey> {
        let point = BASE64.decode(text).map_err(|_| NotAKey)?;
        (point.len() == POINT && point.first() == Some(&4))
            .then_some(Self(point))
            .ok_or(NotAKey)
    }

    /// Reads it as [`to_pem`](Self::to_pem) writes it.
    pub(crate) fn from_pem(text: &[u8]) -> Result<Self, NotAKey> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(text).map_err(|_| NotAKey)?;
        let (_, point) = spki.as_ref().split_last_chunk::<POINT>().ok_or(NotAKey)?;
        let is_it = point.first() == Some(&4) && p256_spki(point) == spki.as_ref();
        is_it.then(|| Self(point.to_vec())).ok_or(NotAKey)
    }

    /// The uncompressed point in base64, as heads carry it.
    pub(crate) fn to_base64(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// As PEM, which any tool reads.
    pub(crate) fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &p256_spki(&self.0))
    }

    /// What tells it from others: hex of the SHA-256 of its SPKI.
    pub(crate) fn id(&self) -> String {
        hex::encode(digest(&SHA256, &p256_spki(&self.0)))
    }
}

/// What `event` is of a head.
pub(super) const HEAD: &str = "head";

/// A head line as read and written.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) event: String,
    pub(crate) server: String,
    pub(crate) sequence: u64,
    pub(crate) hash: String,
    pub(crate) time: String,
    pub(crate) public_key: String,
    pub(crate) signature: String,
}

impl Head {
    /// What is signed. The first line keeps the signature from meaning anything elsewhere.
    fn statement(&self) -> Vec<u8> {
        format!(
            "signet audit head v1\n{}\n{}\n{}\n{}\n",
            self.server, self.sequence, self.hash, self.time
        )
        .into_bytes()
    }

    /// The key that has made this head: the one it names, if that is so.
    pub(super) fn signer(&self) -> Option<AuditPublicKey> {
        let key = AuditPublicKey::from_base64(&self.public_key).ok()?;
        let signature = BASE64.decode(&self.signature).ok()?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.0)
            .verify(&self.statement(), &signature)
            .is_ok()
            .then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use signet_certs::signer::{LocalSigner, SignatureAlgorithm};

    use super::*;

    #[test]
    fn a_public_key_is_read_as_it_is_written_and_nothing_else_is() {
        let (signer, _) = LocalSigner::generate(SignatureAlgorithm::P256, &SystemRandom::new()).unwrap();
        let key = AuditKey::new(Arc::new(signer)).public();
        assert_eq!(AuditPublicKey::from_base64(&key.to_base64()), Ok(key.clone()));
        assert_eq!(AuditPublicKey::from_pem(key.to_pem().as_bytes()), Ok(key.clone()));
        assert_eq!(key.id().len(), 64);
        let (short, other) = (BASE64.encode([4; 33]), pem::encode("PUBLIC KEY", &[7; 91]));
        assert_eq!(AuditPublicKey::from_base64(&short), Err(NotAKey));
        for text in [
            other.as_str(),
            &key.to_base64(),
            &key.to_pem().replace("PUBLIC", "PRIVATE"),
            "",
        ] {
            assert_eq!(AuditPublicKey::from_pem(text.as_bytes()), Err(NotAKey), "{text}");
        }
    }
}
