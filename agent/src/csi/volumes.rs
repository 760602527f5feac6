//! Volume records: what rebuilds every socket after a restart of the agent. Root-only, on tmpfs, for they hold tokens.
//!
//! ```text
//! <volumes dir>/            0700
//!   <16 hex of the id>/     0700
//!     record.json           0600
//!     token.json            0600, replaced by rename
//!     socket/               0755, bind-mounted into the pod; its inode outlives the agent
//!       spiffe.sock         0777
//! ```
//! The folder's name is a short hash because a Unix socket's path has at most 107 bytes and kubelet's ids have 68.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use signet_certs::time::{from_unix_millis, unix_millis};
use thiserror::Error;
use zeroize::Zeroizing;

/// Name of the socket in a pod's directory.
pub const SOCKET_NAME: &str = "spiffe.sock";

/// Why a record could not be kept.
#[derive(Debug, Error)]
#[error("{what} {path}: {source}")]
pub struct VolumesError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumesError {
    let path = path.to_owned();
    move |source| VolumesError { what, path, source }
}

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

/// A pod's token until it expires. Has no `Debug` and is wiped when dropped.
#[derive(Serialize, Deserialize)]
pub struct KeptToken {
    secret: Secret,
    expires_unix_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Secret(String);

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl KeptToken {
    /// A token and its end.
    #[must_use]
    pub fn new(mut secret: Zeroizing<String>, expires: SystemTime) -> Self {
        Self {
            secret: Secret(std::mem::take(&mut *secret)),
            expires_unix_ms: unix_millis(expires),
        }
    }

    /// The token.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<String> {
        Zeroizing::new(self.secret.0.clone())
    }

    /// When it expires.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        from_unix_millis(self.expires_unix_ms)
    }
}

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
    pub fn open(dir: &Path) -> Result<Self, VolumesError> {
        make_dir(dir, 0o700)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(failed("cannot set the mode of", dir))?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(failed("cannot read", dir))? {
            let path = entry.map_err(failed("cannot read", dir))?.path();
            match read_json::<VolumeRecord>(&path.join("record.json")) {
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
    pub fn all(&self) -> Vec<(VolumeRecord, Option<KeptToken>)> {
        let token =
            |record: &VolumeRecord| read_json(&self.folder(&record.volume_id).join("token.json")).ok();
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

    /// Keeps a volume and its newest token; both are on disk when this returns.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn keep(&mut self, record: &VolumeRecord, token: &KeptToken) -> Result<VolumeRecord, VolumesError> {
        let folder = self.folder(&record.volume_id);
        make_dir(&folder, 0o700)?;
        let socket_dir = self.socket_dir(&record.volume_id);
        make_dir(&socket_dir, 0o755)?;
        // The process's umask may have narrowed it, and every uid of the pod must get through.
        fs::set_permissions(&socket_dir, fs::Permissions::from_mode(0o755))
            .map_err(failed("cannot set the mode of", &socket_dir))?;
        write_json(&folder.join("token.json"), token)?;
        if !self.records.contains_key(&record.volume_id) {
            write_json(&folder.join("record.json"), record)?;
            self.records.insert(record.volume_id.clone(), record.clone());
        }
        Ok(record.clone())
    }

    /// Forgets a volume; one that is not there is fine.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn remove(&mut self, volume_id: &str) -> Result<(), VolumesError> {
        let folder = self.folder(volume_id);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot remove", &folder)(error))
            }
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

    fn folder(&self, volume_id: &str) -> PathBuf {
        self.dir.join(folder(volume_id))
    }
}

fn folder(volume_id: &str) -> String {
    hex::encode(&digest(&SHA256, volume_id.as_bytes()).as_ref()[..8])
}

fn make_dir(path: &Path, mode: u32) -> Result<(), VolumesError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed("cannot make", path))
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<T> {
    let bytes = Zeroizing::new(fs::read(path)?);
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), VolumesError> {
    let bytes =
        Zeroizing::new(serde_json::to_vec(value).map_err(|e| failed("cannot write", path)(e.into()))?);
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed("cannot write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn record() -> VolumeRecord {
        VolumeRecord {
            volume_id: "csi-4c42402ee0596c0b077d8aec2bbf79e475066435b06d33f95f679492ef29f94d".into(),
            pod_uid: "dd4cbb08".into(),
            namespace: "shop".into(),
            name: "csi-0".into(),
            service_account: "frontend".into(),
            target: "/var/lib/kubelet/pods/dd4cbb08/volumes/kubernetes.io~csi/spiffe/mount".into(),
        }
    }

    fn token(text: &str) -> KeptToken {
        KeptToken::new(Zeroizing::new(text.to_owned()), signet_testkit::now())
    }

    #[test]
    fn volumes_and_their_newest_tokens_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volumes");
        let mut volumes = Volumes::open(&path).unwrap();
        volumes.keep(&record(), &token("first")).unwrap();
        let inode = fs::metadata(volumes.socket_dir(&record().volume_id))
            .unwrap()
            .ino();
        volumes.keep(&record(), &token("second")).unwrap();

        let again = Volumes::open(&path).unwrap();
        let all = again.all();
        assert_eq!(all[0].0, record());
        assert_eq!(&*all[0].1.as_ref().unwrap().secret(), "second");
        assert_eq!(
            fs::metadata(again.socket_dir(&record().volume_id)).unwrap().ino(),
            inode,
            "mounted directory kept"
        );
    }

    #[test]
    fn only_root_reads_tokens_and_every_uid_reaches_the_socket_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut volumes = Volumes::open(&dir.path().join("volumes")).unwrap();
        volumes.keep(&record(), &token("secret")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = volumes.folder(&record().volume_id);
        assert_eq!(mode(&dir.path().join("volumes")), 0o700);
        assert_eq!(mode(&folder.join("token.json")), 0o600);
        assert_eq!(mode(&folder.join("record.json")), 0o600);
        assert_eq!(mode(&volumes.socket_dir(&record().volume_id)), 0o755);
    }

    #[test]
    fn removing_twice_is_fine_and_damage_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut volumes = Volumes::open(dir.path()).unwrap();
        volumes.keep(&record(), &token("x")).unwrap();
        let record_file = volumes.folder(&record().volume_id).join("record.json");
        fs::write(&record_file, b"{").unwrap();
        assert!(Volumes::open(dir.path()).unwrap().all().is_empty());
        assert!(record_file.exists());
        volumes.remove(&record().volume_id).unwrap();
        volumes.remove(&record().volume_id).unwrap();
        assert!(!record_file.exists());
    }

    #[test]
    fn the_socket_path_is_short_enough_where_agents_run() {
        let volumes = Volumes {
            dir: "/run/signet-agent/volumes".into(),
            records: BTreeMap::new(),
        };
        assert!(volumes.socket_path(&record().volume_id).as_os_str().len() <= 107);
    }
}
