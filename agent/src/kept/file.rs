//! The form of the files: JSON, bytes in hexadecimal, read where it stands so that a key has one copy.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use signet_certs::signer::LeafKey;
use signet_certs::split_certificates;
use signet_runtime::files::{self, Durability, FileError};
use zeroize::Zeroizing;

/// Largest file that is read, in bytes: 64 identities with chains of four certificates fit several times.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A certificate chain with its key, as it stands in a file.
#[derive(Deserialize, Serialize)]
pub(crate) struct SvidText<'a> {
    /// DER, one certificate after another, leaf first, in hexadecimal; empty where there is a key alone.
    pub chain: &'a str,
    /// PKCS#8 in hexadecimal.
    pub key: &'a str,
}

/// The same in hexadecimal, for writing.
pub(crate) struct SvidHex {
    chain: String,
    key: Zeroizing<String>,
}

impl SvidHex {
    /// `chain` is DER, one certificate after another.
    pub(crate) fn new(chain: &[u8], key: &[u8]) -> Self {
        Self {
            chain: hex::encode(chain),
            key: Zeroizing::new(hex::encode(key)),
        }
    }

    /// As it is written.
    pub(crate) fn text(&self) -> SvidText<'_> {
        SvidText {
            chain: &self.chain,
            key: &self.key,
        }
    }

    /// Characters that it takes.
    pub(crate) fn size(&self) -> usize {
        self.chain.len() + self.key.len()
    }
}

impl SvidText<'_> {
    /// The certificates, leaf first; `None` when it is not DER.
    pub(crate) fn chain(&self) -> Option<Vec<Bytes>> {
        let run = hex::decode(self.chain).ok()?;
        let certificates = split_certificates(&run).ok()?;
        Some(certificates.into_iter().map(Bytes::copy_from_slice).collect())
    }

    /// The key's PKCS#8 bytes; `None` when it is not hexadecimal.
    pub(crate) fn pkcs8(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(vec![0; self.key.len() / 2]);
        hex::decode_to_slice(self.key, &mut bytes).ok()?;
        Some(bytes)
    }

    /// The key; `None` when it is none.
    pub(crate) fn key(&self, rng: &SystemRandom) -> Option<LeafKey> {
        LeafKey::from_pkcs8(self.pkcs8()?, rng).ok()
    }
}

/// The bytes of a file that was written here; `None` when there is none or it cannot be read, and then that is logged.
pub(crate) fn read(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    match files::read(path, MAX_FILE) {
        Ok(bytes) => Some(Zeroizing::new(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file that was kept for a restart is not used");
            None
        }
    }
}

/// Puts a value in its file, mode 0600, by rename; `size` is at least the length of its text. What lies in memory needs
/// no wait for a disk.
///
/// # Errors
/// [`FileError`]; then the former file is in place.
pub(crate) fn write(path: &Path, value: &impl Serialize, size: usize) -> Result<(), FileError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    serde_json::to_writer(&mut *bytes, value).map_err(|error| FileError {
        path: path.to_owned(),
        action: "write",
        source: error.into(),
    })?;
    files::replace(path, &bytes, 0o600, Durability::Volatile)
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) {
    // A disk that is read only refuses before it looks.
    if let Err(error) = fs::remove_file(path)
        && path.symlink_metadata().is_ok()
    {
        tracing::error!(path = %path.display(), %error, "a file with a key cannot be removed");
    }
}
