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
//!       socket              a link to it, by the name that Istio's proxies look for
//!     sealed/               while it is mounted: the same, read-only
//! ```
//! The folder's name is a short hash because a Unix socket's path has at most 107 bytes and kubelet's ids have 68.

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use signet_runtime::files::{FileError, ensure_mode, failed, private_dir};

use self::files::{RecordFile, make_dir, read_record, read_token, write_record, write_token};
use crate::token::PodToken;

/// Name of the socket in a pod's directory.
pub const SOCKET_NAME: &str = "spiffe.sock";

/// The name of a Workload API socket in a directory of its own, as Istio has it.
const SOCKET_ALIAS: &str = "socket";

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

/// A volume in memory, which is what counts; its files are what it can be rebuilt from.
#[derive(Debug)]
struct Entry {
    record: VolumeRecord,
    cut_off: bool,
    /// Why its record is not in its file, or not as it is here.
    record_missing: Option<String>,
    /// Why its newest token is not.
    token_missing: Option<String>,
}

impl Entry {
    fn new(record: VolumeRecord) -> Self {
        Self {
            record,
            cut_off: false,
            record_missing: None,
            token_missing: None,
        }
    }

    fn missing(&self) -> Option<&str> {
        let missing = self.record_missing.as_ref().or(self.token_missing.as_ref());
        missing.map(String::as_str)
    }

    fn write(&mut self, folder: &Path) {
        let file = RecordFile {
            record: self.record.clone(),
            cut_off: self.cut_off,
        };
        let written = write_record(&folder.join("record.json"), &file);
        let pod = self.record.pod();
        note(
            &mut self.record_missing,
            written,
            &pod,
            "the record of a pod's volume",
        );
    }
}

/// Remembers why something is not in its file, and says so once.
fn note(missing: &mut Option<String>, written: Result<(), FileError>, pod: &str, what: &str) {
    let before = missing.take();
    *missing = written.err().map(|error| error.to_string());
    if let (None, Some(error)) = (before, &*missing) {
        tracing::error!(
            what,
            pod,
            error,
            "used but not kept: after a restart of the agent its pod waits for kubelet's next call"
        );
    }
}

/// What [`Volumes::keep`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Folder {
    /// The volume's folder as it was.
    Before,
    /// None, and made one.
    Made,
}

/// All volumes of this node.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    volumes: BTreeMap<String, Entry>,
}

impl Volumes {
    /// Opens the folder and reads what is there. A record that cannot be read is reported and left alone.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        private_dir(dir)?;
        let mut volumes = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(failed(dir, "read it"))? {
            let path = entry.map_err(failed(dir, "read it"))?.path();
            match read_record(&path.join("record.json")) {
                Ok(RecordFile { record, cut_off })
                    if path
                        .file_name()
                        .is_some_and(|name| *name == *folder(&record.volume_id)) =>
                {
                    let entry = Entry {
                        cut_off,
                        ..Entry::new(record)
                    };
                    volumes.insert(entry.record.volume_id.clone(), entry);
                }
                Ok(_) => tracing::warn!(path = %path.display(), "a volume record stands in the wrong folder"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a volume record cannot be read");
                }
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            volumes,
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
        let records = self.volumes.values().map(|entry| &entry.record);
        records.map(|record| (record.clone(), token(record))).collect()
    }

    /// The record of a volume.
    #[must_use]
    pub fn get(&self, volume_id: &str) -> Option<VolumeRecord> {
        self.volumes.get(volume_id).map(|entry| entry.record.clone())
    }

    /// How many volumes a pod has.
    #[must_use]
    pub fn number_of_pod(&self, pod_uid: &str) -> usize {
        let of_pod = |entry: &&Entry| entry.record.pod_uid == pod_uid;
        self.volumes.values().filter(of_pod).count()
    }

    /// Keeps a volume. Its folder is there when this returns; its record is in its file as far as there is room, else it is
    /// [missing](Self::missing) and the next call tries again.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub(super) fn keep(&mut self, record: &VolumeRecord) -> Result<Folder, FileError> {
        let folder = self.folder(&record.volume_id);
        make_dir(&folder, 0o700)?;
        let socket_dir = self.socket_dir(&record.volume_id);
        let found = if socket_dir.is_dir() {
            Folder::Before
        } else {
            make_dir(&socket_dir, 0o755)?;
            Folder::Made
        };
        // The process's umask may have narrowed it, and every uid of the pod must get through.
        ensure_mode(&socket_dir, 0o755)?;
        alias(&socket_dir);
        let new = !self.volumes.contains_key(&record.volume_id);
        let entry = self
            .volumes
            .entry(record.volume_id.clone())
            .or_insert_with(|| Entry::new(record.clone()));
        if new || found == Folder::Made || entry.record_missing.is_some() {
            entry.write(&folder);
        }
        Ok(found)
    }

    /// Keeps the newest token of a known volume, as far as there is room for it; else it is [missing](Self::missing) and
    /// the former one is in its file.
    pub(super) fn keep_token(&mut self, volume_id: &str, token: &PodToken) {
        let written = write_token(&self.folder(volume_id).join("token.json"), token);
        if let Some(entry) = self.volumes.get_mut(volume_id) {
            let pod = entry.record.pod();
            note(&mut entry.token_missing, written, &pod, "a pod's token");
        }
    }

    /// Remembers that containers of the volume's pod hold a folder that is gone, and so for a later run of the agent.
    pub(super) fn cut_off(&mut self, volume_id: &str) {
        let folder = self.folder(volume_id);
        if let Some(entry) = self.volumes.get_mut(volume_id) {
            entry.cut_off = true;
            entry.write(&folder);
        }
    }

    /// Whether they do.
    pub(super) fn is_cut_off(&self, volume_id: &str) -> bool {
        self.volumes.get(volume_id).is_some_and(|entry| entry.cut_off)
    }

    /// Volumes whose pods are [cut off](Self::cut_off).
    pub(super) fn number_cut_off(&self) -> usize {
        self.volumes.values().filter(|entry| entry.cut_off).count()
    }

    /// Why a volume would not be served again after a restart, for each of which that is so.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        self.volumes.values().filter_map(Entry::missing)
    }

    /// Forgets a volume; one that is not there is fine.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn remove(&mut self, volume_id: &str) -> Result<(), FileError> {
        let folder = self.folder(volume_id);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&folder, "remove it")(error)),
            _ => {
                self.volumes.remove(volume_id);
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

/// Puts the socket's other name beside it. Relative, for a pod sees the directory elsewhere. A pod that does not use the name lacks nothing
/// without it, so a full tmpfs keeps no pod from starting; the next publish tries again.
fn alias(socket_dir: &Path) {
    let link = socket_dir.join(SOCKET_ALIAS);
    match symlink(SOCKET_NAME, &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            tracing::warn!(path = %link.display(), %error, "a volume lacks the link to its socket");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
