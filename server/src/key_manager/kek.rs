//! The key-encryption key and its file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use signet_certs::signer::KeyError;
use signet_runtime::files::{self, Durability};
use signet_runtime::trial::Advice;
use zeroize::Zeroizing;

use super::KeyManagerError;
use crate::store::SealedKey;

const LENGTH: usize = 32;

/// What is to be said of a KEK that lies in the folder of what it has sealed, by whatever links; `None` where it does not.
pub(crate) fn kept_apart(kek_file: &Path, data_dir: &Path) -> Option<Advice> {
    let lies_within = files::leads_to(kek_file).starts_with(files::leads_to(data_dir));
    lies_within.then(|| Advice {
        problem: format!(
            "{} lies in `data_dir`: whoever gets a copy of that folder has the authorities' keys and what opens them",
            kek_file.display()
        ),
        remedy: "move it out of that folder and name it here, and keep its backup apart",
    })
}

/// Opens what was sealed with it. Has no Debug and no Clone.
pub(super) struct Kek {
    key: LessSafeKey,
    id: String,
}

impl Kek {
    /// Reads the KEK that opens `sealed`, or makes one when nothing is sealed and there is no file.
    pub(super) fn open(
        path: &Path,
        sealed: &[SealedKey],
        rng: &SystemRandom,
    ) -> Result<Self, KeyManagerError> {
        let bytes = match read(path)? {
            Some(bytes) => bytes,
            None if sealed.is_empty() => create(path, rng)?,
            None => {
                return Err(KeyManagerError::KekMissing {
                    path: path.to_owned(),
                    keys: sealed.len(),
                });
            }
        };
        let kek = Self::from_bytes(&bytes).ok_or_else(|| KeyManagerError::KekMalformed {
            path: path.to_owned(),
            length: bytes.len(),
        })?;
        match sealed.iter().find(|key| key.kek_id != kek.id) {
            Some(other) => Err(KeyManagerError::KekWrong {
                path: path.to_owned(),
                found: kek.id,
                needed: other.kek_id.clone(),
            }),
            None => Ok(kek),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
        let mut id = Context::new(&SHA256);
        id.update(b"signet kek id v1\n");
        id.update(bytes);
        // 64 bits tell KEKs apart and tell nothing about 256 random ones.
        let id = hex::encode(id.finish().as_ref().get(..8).unwrap_or_default());
        Some(Self {
            key: LessSafeKey::new(key),
            id,
        })
    }

    pub(super) fn key(&self) -> &LessSafeKey {
        &self.key
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyManagerError {
    let path = path.to_owned();
    move |source| KeyManagerError::KekIo { action, path, source }
}

/// `None` when there is no file.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyManagerError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let mode = file.metadata().map_err(io_error("read", path))?.mode();
    if mode & 0o007 != 0 {
        return Err(KeyManagerError::KekExposed {
            path: path.to_owned(),
        });
    }
    // One byte more than a key: a longer file is seen and not read.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
    file.take(LENGTH as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    Ok(Some(bytes))
}

/// A crash leaves a whole key or none.
fn create(path: &Path, rng: &SystemRandom) -> Result<Zeroizing<Vec<u8>>, KeyManagerError> {
    let mut bytes = Zeroizing::new(vec![0; LENGTH]);
    rng.fill(&mut bytes).map_err(|_| KeyError::Random)?;
    files::make_parent(path)
        .and_then(|()| files::replace(path, &bytes, 0o600, Durability::Durable))
        .map_err(|error| io_error("create", path)(error.into()))?;
    tracing::info!(path = %path.display(), "made a key-encryption key; back it up apart from the store");
    Ok(bytes)
}
