//! What an executable is: its path, and the SHA-256 of its contents.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use ring::digest::{Context, SHA256};
use signet_runtime::sync::Mutex;

/// Executables larger than this are not hashed; rules on the hash then do not match.
const MAX_EXECUTABLE: u64 = 1 << 30;

/// Longest path the server takes, which is the kernel's own bound.
const MAX_PATH: usize = 4096;

/// Digests kept, so that a process that connects again costs no second read of its executable.
const MAX_DIGESTS: usize = 256;

/// Names one state of one file: whoever changes the contents changes one of these.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Digests of executables that were read.
#[derive(Default)]
pub(super) struct Digests(Mutex<HashMap<FileVersion, [u8; 32]>>);

impl Digests {
    /// Of the file's contents; `None` when it is too large, or not a file.
    pub(super) fn of(&self, file: File) -> Option<[u8; 32]> {
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > MAX_EXECUTABLE {
            return None;
        }
        let version = FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if let Some(known) = self.0.lock().get(&version) {
            return Some(*known);
        }
        let digest = sha256(file.take(MAX_EXECUTABLE)).ok()?;
        let mut digests = self.0.lock();
        if digests.len() >= MAX_DIGESTS {
            digests.clear();
        }
        digests.insert(version, digest);
        Some(digest)
    }
}

/// As the kernel shows it; `None` when the server would not take it.
pub(super) fn path_of(file: &File) -> Option<String> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    path.into_os_string()
        .into_string()
        .ok()
        .filter(|path| path.len() <= MAX_PATH)
}

pub(super) fn sha256(mut reader: impl Read) -> io::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => context.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(digest)
}
