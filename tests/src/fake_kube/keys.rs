//! The API server's service-account signing keys: JWKS, signing, checking.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey},
};
use serde_json::{Value, json};

/// One key that signs service-account tokens.
pub(crate) struct SigningKey {
    kid: String,
    jwk: Value,
    pair: Pair,
}

enum Pair {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<RsaKeyPair>),
}

impl SigningKey {
    /// A fresh P-256 key. ring cannot make RSA keys, so this is the default although most clusters sign with RS256.
    pub(crate) fn es256(rng: &SystemRandom) -> Result<Self> {
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, rng)
            .ok()
            .context("generate a P-256 key")?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), rng)
            .ok()
            .context("read back a P-256 key")?;
        let point = pair.public_key().as_ref();
        ensure!(point.len() == 65, "a P-256 point has 65 bytes");
        let kid = key_id(point);
        let jwk = json!({
            "use": "sig", "kty": "EC", "kid": kid, "alg": "ES256", "crv": "P-256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        });
        Ok(Self {
            kid,
            jwk,
            pair: Pair::Es256(Box::new(pair)),
        })
    }

    /// An RSA key in DER, PKCS#8 or PKCS#1, as real clusters have.
    pub(crate) fn rs256(der: &[u8]) -> Result<Self> {
        let pair = RsaKeyPair::from_pkcs8(der)
            .or_else(|_| RsaKeyPair::from_der(der))
            .ok()
            .context("read an RSA key in DER")?;
        let kid = key_id(pair.public_key().as_ref());
        let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
        let jwk = json!({
            "use": "sig", "kty": "RSA", "kid": kid, "alg": "RS256",
            "n": URL_SAFE_NO_PAD.encode(&public.n),
            "e": URL_SAFE_NO_PAD.encode(&public.e),
        });
        Ok(Self {
            kid,
            jwk,
            pair: Pair::Rs256(Box::new(pair)),
        })
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The JOSE `alg` this key signs with.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Es256(_) => "ES256",
            Pair::Rs256(_) => "RS256",
        }
    }

    pub(crate) fn jwk(&self) -> &Value {
        &self.jwk
    }

    fn sign(&self, message: &[u8], rng: &SystemRandom) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Es256(pair) => {
                let signature = pair.sign(rng, message).ok().context("sign with ES256")?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Rs256(pair) => {
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, rng, message, &mut bytes)
                    .ok()
                    .context("sign with RS256")?;
                Ok(bytes)
            }
        }
    }

    fn verifies(&self, message: &[u8], bytes: &[u8]) -> bool {
        match &self.pair {
            Pair::Es256(pair) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
                    .verify(message, bytes)
                    .is_ok()
            }
            Pair::Rs256(pair) => {
                UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
                    .verify(message, bytes)
                    .is_ok()
            }
        }
    }
}

/// What a compact token turned out to be, before any claim is looked at.
pub(crate) enum Opened {
    /// Signed by one of our keys.
    Signed(Value),
    /// Well formed, our issuer, but no key of ours made that signature.
    BadSignature,
    /// Not a token of this API server at all.
    Foreign,
}

/// The API server's keys: the first signs, all of them check.
pub(crate) struct KeyRing {
    keys: Vec<SigningKey>,
    rng: SystemRandom,
}

impl KeyRing {
    pub(crate) fn new(first: SigningKey) -> Self {
        Self {
            keys: vec![first],
            rng: SystemRandom::new(),
        }
    }

    /// Puts `key` first; the older ones go on checking only with `keep_old`.
    pub(crate) fn rotate(&mut self, key: SigningKey, keep_old: bool) {
        if !keep_old {
            self.keys.clear();
        }
        self.keys.insert(0, key);
    }

    pub(crate) fn jwks(&self) -> Value {
        let keys: Vec<&Value> = self.keys.iter().map(SigningKey::jwk).collect();
        json!({ "keys": keys })
    }

    /// Signs `claims` with the current key. Members of `header` replace those of the honest one; `null` removes one.
    pub(crate) fn sign(&self, header: &BTreeMap<String, Value>, claims: &Value) -> Result<String> {
        let key = self.keys.first().context("the key ring is empty")?;
        let mut full: BTreeMap<String, Value> = BTreeMap::new();
        full.insert("alg".to_owned(), json!(key.algorithm()));
        full.insert("kid".to_owned(), json!(key.kid()));
        for (name, value) in header {
            if value.is_null() {
                full.remove(name);
            } else {
                full.insert(name.clone(), value.clone());
            }
        }
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&full)?),
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?)
        );
        let bytes = key.sign(message.as_bytes(), &self.rng)?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens a compact token as the API server does: issuer first, then every key whatever `kid` says.
    pub(crate) fn open(&self, token: &str, issuer: &str) -> Opened {
        let Some((message, bytes)) = token.rsplit_once('.') else {
            return Opened::Foreign;
        };
        let Some(claims) = message.split_once('.').and_then(|(header, payload)| {
            let header: Value = decode(header)?;
            header.get("alg")?.as_str()?;
            decode(payload)
        }) else {
            return Opened::Foreign;
        };
        if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Opened::Foreign;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(bytes) else {
            return Opened::BadSignature;
        };
        if self.signed_by_us(message, &bytes) {
            Opened::Signed(claims)
        } else {
            Opened::BadSignature
        }
    }

    fn signed_by_us(&self, message: &str, bytes: &[u8]) -> bool {
        let algorithm = message
            .split_once('.')
            .and_then(|(header, _)| decode(header))
            .and_then(|header| header["alg"].as_str().map(str::to_owned));
        self.keys.iter().any(|key| {
            algorithm.as_deref() == Some(key.algorithm()) && key.verifies(message.as_bytes(), bytes)
        })
    }
}

/// An RSA-2048 key made by the `openssl` program, in DER (PKCS#8 or PKCS#1 by its version).
///
/// # Errors
/// When `openssl` is not there or fails, or `directory` cannot be written.
pub fn rsa_key_by_openssl(directory: &Path) -> Result<Vec<u8>> {
    let path = directory.join("rsa.der");
    let args = ["genpkey", "-algorithm", "RSA", "-outform", "DER", "-out"];
    let output = Command::new("openssl").args(args).arg(&path).output();
    let output = output.context("run openssl genpkey")?;
    ensure!(output.status.success(), "openssl genpkey failed");
    Ok(std::fs::read(&path)?)
}

fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn key_id(public: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, public))
}
