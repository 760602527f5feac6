//! Volume records: what rebuilds every socket after a restart of the agent. Root-only, on tmpfs, for they hold tokens.
//!
//! ```text
//! <volumes dir>/            0700
//!   <16 hex of the id>/     0700
//!     record.json           0600
//!     token.json            0600, replaced by rename
//!     svid.json             0600, what the pod is served with its key, where the agent keeps keys
//!     socket/               0755, bind-mounted into the pod; its inode outlives the agent
//!       spiffe.sock         0777
//! ```
//! The folder's name is a short hash because a Unix socket's path has at most 107 bytes and kubelet's ids have 68.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use signet_certs::time::{from_unix_millis, unix_millis};
use signet_runtime::files::{self, Durability, FileError};
use zeroize::Zeroizing;

use crate::token::PodToken;

/// Name of the socket in a pod's directory.
pub const SOCKET_NAME: &str = "spiffe.sock";

/// A volume and the pod it is pinned to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// As kubelet made it.
    pub volume_id: String,
    /// The pod kubelet named first; another one is refused.
    pub pod_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Service account of the pod.
    pub service_account: String,
    /// Where it is mounted.
    pub target: PathBuf,
}

impl VolumeRecord {
    /// `namespace/name`.
    #[must_use]
    pub fn pod(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether a repeated publish means the same volume of the same pod.
    pub(super) fn check_same(&self, other: &Self) -> Result<(), String> {
        if self == other {
            Ok(())
        } else {
            Err(format!(
                "volume {} belongs to pod {} ({})",
                self.volume_id,
                self.pod(),
                self.pod_uid
            ))
        }
    }
}

/// The form of `token.json`. Read where it stands: a JWT has nothing that JSON escapes.
#[derive(Serialize, Deserialize)]
struct KeptToken<'a> {
    secret: &'a str,
    expires_unix_ms: i64,
}

/// Records and tokens have a few kilobytes; more is not read.
const MAX_FILE: u64 = 1024 * 1024;
/// What `token.json` has beside the token, at most.
const ENVELOPE: usize = 128;

/// All volumes of this node.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    records: BTreeMap<String, VolumeRecord>,
}

impl Volumes {
    /// Opens the folder and reads what is there. A record that cannot be read is reported and left alone.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        files::private_dir(dir)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(failed("read it", dir))? {
            let path = entry.map_err(failed("read it", dir))?.path();
            match read_record(&path.join("record.json")) {
                Ok(record)
                    if path
                        .file_name()
                        .is_some_and(|name| *name == *folder(&record.volume_id)) =>
                {
                    records.insert(record.volume_id.clone(), record);
                }
                Ok(_) => tracing::warn!(path = %path.display(), "a volume record stands in the wrong folder"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a volume record cannot be read");
                }
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            records,
        })
    }

    /// Every volume with its token, if that is still there.
    #[must_use]
    pub fn all(&self) -> Vec<(VolumeRecord, Option<Arc<PodToken>>)> {
        let token = |record: &VolumeRecord| {
            let path = self.folder(&record.volume_id).join("token.json");
            let kept = read_token(&path)?;
            if kept.is_of_another_pod(&record.pod_uid) {
                tracing::warn!(path = %path.display(), "a kept token is another pod's and is not used; kubelet brings the next one");
                return None;
            }
            Some(kept)
        };
        self.records
            .values()
            .map(|record| (record.clone(), token(record)))
            .collect()
    }

    /// The record of a volume.
    #[must_use]
    pub fn get(&self, volume_id: &str) -> Option<VolumeRecord> {
        self.records.get(volume_id).cloned()
    }

    /// How many volumes a pod has.
    #[must_use]
    pub fn number_of_pod(&self, pod_uid: &str) -> usize {
        let of_pod = |record: &&VolumeRecord| record.pod_uid == pod_uid;
        self.records.values().filter(of_pod).count()
    }

    /// Keeps a volume; its record is in its file when this returns.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn keep(&mut self, record: &VolumeRecord) -> Result<VolumeRecord, FileError> {
        let folder = self.folder(&record.volume_id);
        make_dir(&folder, 0o700)?;
        let socket_dir = self.socket_dir(&record.volume_id);
        make_dir(&socket_dir, 0o755)?;
        // The process's umask may have narrowed it, and every uid of the pod must get through.
        files::ensure_mode(&socket_dir, 0o755)?;
        if !self.records.contains_key(&record.volume_id) {
            write_record(&folder.join("record.json"), record)?;
            self.records.insert(record.volume_id.clone(), record.clone());
        }
        Ok(record.clone())
    }

    /// Keeps the newest token of a known volume.
    ///
    /// # Errors
    /// When it cannot be written; the former one is there then.
    pub fn keep_token(&self, volume_id: &str, token: &PodToken) -> Result<(), FileError> {
        write_token(&self.folder(volume_id).join("token.json"), token)
    }

    /// Forgets a volume; one that is not there is fine.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn remove(&mut self, volume_id: &str) -> Result<(), FileError> {
        let folder = self.folder(volume_id);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove it", &folder)(error)),
            _ => {
                self.records.remove(volume_id);
                Ok(())
            }
        }
    }

    /// The directory that is mounted into the pod.
    #[must_use]
    pub fn socket_dir(&self, volume_id: &str) -> PathBuf {
        self.folder(volume_id).join("socket")
    }

    /// The socket in it.
    #[must_use]
    pub fn socket_path(&self, volume_id: &str) -> PathBuf {
        self.socket_dir(volume_id).join(SOCKET_NAME)
    }

    /// Where the pod's SVIDs may be kept.
    #[must_use]
    pub fn svid_file(&self, volume_id: &str) -> PathBuf {
        self.folder(volume_id).join("svid.json")
    }

    fn folder(&self, volume_id: &str) -> PathBuf {
        self.dir.join(folder(volume_id))
    }
}

fn folder(volume_id: &str) -> String {
    hex::encode(&digest(&SHA256, volume_id.as_bytes()).as_ref()[..8])
}

fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed("make the directory", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { path, action, source }
}

fn read_record(path: &Path) -> io::Result<VolumeRecord> {
    Ok(serde_json::from_slice(&files::read(path, MAX_FILE)?)?)
}

fn write_record(path: &Path, record: &VolumeRecord) -> Result<(), FileError> {
    let bytes = serde_json::to_vec(record).map_err(|error| failed("write", path)(error.into()))?;
    write(path, &bytes)
}

/// None as well when it is damaged: kubelet brings the next one.
fn read_token(path: &Path) -> Option<Arc<PodToken>> {
    let bytes = Zeroizing::new(files::read(path, MAX_FILE).ok()?);
    let kept: KeptToken<'_> = serde_json::from_slice(&bytes).ok()?;
    Some(PodToken::new(kept.secret, from_unix_millis(kept.expires_unix_ms)))
}

fn write_token(path: &Path, token: &PodToken) -> Result<(), FileError> {
    let kept = KeptToken {
        secret: token.secret(),
        expires_unix_ms: unix_millis(token.expires()),
    };
    // Large enough from the start: memory that it grew out of would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(kept.secret.len() + ENVELOPE));
    serde_json::to_writer(&mut *bytes, &kept).map_err(|error| failed("write", path)(error.into()))?;
    write(path, &bytes)
}

/// What a volume needs after a restart of the agent. After one of the machine kubelet makes every volume anew.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    files::replace(path, bytes, 0o600, Durability::Volatile)
}

#[cfg(test)]
mod tests;
