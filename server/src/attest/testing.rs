//! Keys and memories of a cluster, for tests beside a scripted API server.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::remembered::Remembered;
use crate::fixtures::trust_domain;
use crate::store::memory::MemoryStore;

/// A key that tokens of a cluster are signed with.
pub(super) struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    pub(super) fn new(id: &'static str) -> Self {
        let (rng, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
        Self {
            id,
            pair: EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap(),
        }
    }

    /// A key set with this key alone.
    pub(super) fn jwks(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (
            URL_SAFE_NO_PAD.encode(&point[1..33]),
            URL_SAFE_NO_PAD.encode(&point[33..]),
        );
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": self.id, "x": x, "y": y}]}).to_string()
    }

    /// A token with this payload.
    pub(super) fn sign(&self, payload: &str) -> String {
        let header = json!({"alg": "ES256", "kid": self.id}).to_string();
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A cluster of which an empty store knows nothing.
pub(super) async fn remembered() -> Arc<Remembered> {
    let store = MemoryStore::new(trust_domain());
    Arc::new(Remembered::load(store, "prod").await.unwrap())
}
