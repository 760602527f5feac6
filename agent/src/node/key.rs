//! The agent's private key. The server takes a node token with one key only, so the key lives as long as the token: the
//! same for a retry whose answer was lost, for an early renewal, and after a restart of the agent's container, which
//! finds the same token; a new one with each new token. It is kept root-only in `data_dir` beside a hash of the token.
//! Keys of workloads are never kept.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use signet_certs::signer::{KeyError, LeafKey};
use signet_runtime::files::{self, Durability, FileError};
use zeroize::Zeroizing;

/// Hash of the token, then the key in PKCS#8.
const HASH_BYTES: usize = 32;

/// A P-256 key has about 140 bytes; more is not read.
const MAX_FILE: u64 = 1024;

/// See the module's documentation.
pub(super) struct NodeKeys {
    path: PathBuf,
    held: Option<Held>,
}

struct Held {
    token: [u8; HASH_BYTES],
    pkcs8: Zeroizing<Vec<u8>>,
}

impl NodeKeys {
    /// Takes over what an earlier run kept; a missing or damaged file is no obstacle.
    pub(super) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("node.key");
        let held = read(&path);
        Self { path, held }
    }

    /// The key that goes with this token. It is on disk before it is used: the server may remember it from then on.
    pub(super) fn key_for(&mut self, token: &str, rng: &SystemRandom) -> Result<LeafKey, KeyError> {
        let token = sha256(token);
        if let Some(held) = self.held.as_ref().filter(|held| held.token == token)
            && let Ok(key) = LeafKey::from_pkcs8(held.pkcs8.clone(), rng)
        {
            return Ok(key);
        }
        let key = LeafKey::generate(rng)?;
        let held = Held {
            token,
            pkcs8: Zeroizing::new(key.pkcs8_der().to_vec()),
        };
        if let Err(error) = write(&self.path, &held) {
            // It works all the same, but a restart has to wait for the next token.
            tracing::warn!(path = %self.path.display(), %error, "cannot keep the node's key");
        }
        self.held = Some(held);
        Ok(key)
    }

    /// The key is not to be certified again.
    pub(super) fn forget(&mut self) {
        self.held = None;
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the node's key");
        }
    }
}

fn sha256(token: &str) -> [u8; HASH_BYTES] {
    let mut sum = [0; HASH_BYTES];
    sum.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    sum
}

fn read(path: &Path) -> Option<Held> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    fs::File::open(path)
        .ok()?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    let (token, pkcs8) = bytes.split_first_chunk::<HASH_BYTES>()?;
    Some(Held {
        token: *token,
        pkcs8: Zeroizing::new(pkcs8.to_vec()),
    })
}

fn write(path: &Path, held: &Held) -> Result<(), FileError> {
    // Large enough from the start: memory that it grew out of would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(HASH_BYTES + held.pkcs8.len()));
    bytes.extend_from_slice(&held.token);
    bytes.extend_from_slice(&held.pkcs8);
    files::replace(path, &bytes, 0o600, Durability::Durable)
}

#[cfg(test)]
mod tests;
