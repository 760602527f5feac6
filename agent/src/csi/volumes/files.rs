//! A volume's files: its record and its newest token.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use signet_certs::time::{from_unix_millis, unix_millis};
use signet_runtime::files::{self, Durability, FileError, failed};
use zeroize::Zeroizing;

use super::VolumeRecord;
use crate::token::PodToken;

/// The form of `record.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct RecordFile {
    #[serde(flatten)]
    pub(super) record: VolumeRecord,
    /// Containers of the pod hold a folder that is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) cut_off: bool,
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

pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed(path, "make the directory"))
}

pub(super) fn read_record(path: &Path) -> io::Result<RecordFile> {
    Ok(serde_json::from_slice(&files::read(path, MAX_FILE)?)?)
}

pub(super) fn write_record(path: &Path, record: &RecordFile) -> Result<(), FileError> {
    let bytes = serde_json::to_vec(record).map_err(|error| failed(path, "write")(error.into()))?;
    write(path, &bytes)
}

/// None as well when it is damaged: kubelet brings the next one.
pub(super) fn read_token(path: &Path) -> Option<Arc<PodToken>> {
    let bytes = Zeroizing::new(files::read(path, MAX_FILE).ok()?);
    let kept: KeptToken<'_> = serde_json::from_slice(&bytes).ok()?;
    Some(PodToken::new(kept.secret, from_unix_millis(kept.expires_unix_ms)))
}

pub(super) fn write_token(path: &Path, token: &PodToken) -> Result<(), FileError> {
    let kept = KeptToken {
        secret: token.secret(),
        expires_unix_ms: unix_millis(token.expires()),
    };
    // Large enough from the start: memory that it grew out of would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(kept.secret.len() + ENVELOPE));
    serde_json::to_writer(&mut *bytes, &kept).map_err(|error| failed(path, "write")(error.into()))?;
    write(path, &bytes)
}

/// What a volume needs after a restart of the agent. After one of the machine kubelet makes every volume anew.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    files::replace(path, bytes, 0o600, Durability::Volatile)
}
