//! What an executable is: its path, and the SHA-256 of its contents.
//!
//! Reading is dear, and who runs a program decides how large it is and how often it changes. So each state of a file is read once, each user
//! may have so much read, and what was read of one user's programs is not forgotten for another's. There is no bound for each file:
//! a link or a change of mode makes a new state too, and would keep its user waiting.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use signet_runtime::bucket::{Buckets, Rate};
use signet_runtime::limits::{Limit, bytes};
use signet_runtime::sync::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use crate::peer::{FileId, Program};

/// Executables larger than this are not hashed; rules on the hash then do not match.
const MAX_EXECUTABLE: u64 = 256 << 20;

/// Longest path the server takes, which is the kernel's own bound.
const MAX_PATH: usize = 4096;

/// Digests kept, so that a process that connects again costs no second read of its executable.
const MAX_DIGESTS: usize = 256;

/// What a user may have read, in units: a gibibyte at once, eight mebibytes a second.
const READING: Rate = Rate {
    per_second: 8.0,
    burst: 1024.0,
};
/// Part of a unit counts as one, so that many small files are not read for nothing.
const UNIT: u64 = 1 << 20;
/// Users told apart.
const USERS: usize = 1024;

/// Rows of the table of limits, with the metric that counts who met them.
pub(super) fn limits(metric: &'static str) -> Vec<Limit> {
    let most = format!(
        "{} at once, then {} each second",
        mebibytes(READING.burst),
        mebibytes(READING.per_second)
    );
    let row = |who, what, share: &str, cap: String| Limit {
        who,
        what,
        share: share.to_owned(),
        cap,
        counted: "agent::unix::executable",
        metric,
    };
    vec![
        row(
            "a user of the shared socket",
            "bytes of executables that are read",
            &most,
            most.clone(),
        ),
        row(
            "an executable",
            "reads of its content",
            "none",
            format!("one after each change, of {} at most", bytes(MAX_EXECUTABLE)),
        ),
    ]
}

fn mebibytes(units: f64) -> String {
    format!("{units} MiB")
}

/// An executable is not read now, but in so many seconds.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("too many or too large programs of this user were read in the last minutes; again in {0} s")]
pub(crate) struct Unread(u64);

/// Digests of executables that were read.
pub(super) struct Digests {
    read: Mutex<HashMap<FileId, Known>>,
    budgets: Buckets<u32>,
}

/// What was read of one file.
struct Known {
    state: (Program, u64),
    digest: [u8; 32],
    /// For whom, who pays with a place if there are too many.
    user: u32,
    at: Instant,
}

impl Default for Digests {
    fn default() -> Self {
        Self::within(READING)
    }
}

impl Digests {
    fn within(rate: Rate) -> Self {
        Self {
            read: Mutex::default(),
            budgets: Buckets::new(rate, USERS),
        }
    }

    /// Of the file's contents, read for `user`; `None` when it is too large, or not a file.
    ///
    /// # Errors
    /// [`Unread`]: not now.
    pub(super) fn of(&self, user: u32, file: File) -> Result<Option<[u8; 32]>, Unread> {
        let (Ok(metadata), Ok(program)) = (file.metadata(), Program::of(&file)) else {
            return Ok(None);
        };
        let size = metadata.len();
        if !metadata.is_file() || size > MAX_EXECUTABLE {
            return Ok(None);
        }
        let state = (program, size);
        if let Some(known) = self.known(&state) {
            return Ok(Some(known));
        }
        let budget = self.budgets.check(user);
        budget.map_err(|wait| Unread(whole_seconds(wait)))?;
        let units = u32::try_from(size.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        self.budgets.spend(user, f64::from(units));
        let Ok(digest) = sha256(file.take(MAX_EXECUTABLE)) else {
            return Ok(None);
        };
        self.remember(state, digest, user);
        Ok(Some(digest))
    }

    fn known(&self, state: &(Program, u64)) -> Option<[u8; 32]> {
        let read = self.read.lock();
        let known = read.get(&state.0.file())?;
        (known.state == *state).then_some(known.digest)
    }

    fn remember(&self, state: (Program, u64), digest: [u8; 32], user: u32) {
        let mut read = self.read.lock();
        let file = state.0.file();
        if read.len() >= MAX_DIGESTS && !read.contains_key(&file) {
            forget_one(&mut read);
        }
        let at = Instant::now();
        read.insert(
            file,
            Known {
                state,
                digest,
                user,
                at,
            },
        );
    }
}

/// The oldest of the user of whom most is remembered.
fn forget_one(read: &mut HashMap<FileId, Known>) {
    let mut by_user: HashMap<u32, usize> = HashMap::new();
    for known in read.values() {
        *by_user.entry(known.user).or_default() += 1;
    }
    let most = by_user.into_iter().max_by_key(|(_, count)| *count);
    let of_most = |known: &Known| most.is_some_and(|(user, _)| user == known.user);
    let oldest = read.iter().filter(|(_, known)| of_most(known));
    if let Some(file) = oldest.min_by_key(|(_, known)| known.at).map(|(file, _)| *file) {
        read.remove(&file);
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// As the kernel shows it, where the host has the same file under that path: in another mount namespace any file can have any path. `None`
/// elsewhere, and when the server would not take it.
pub(super) fn path_of(file: &File, program: &Program, host_root: &Path) -> Option<String> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let on_host = Program::at(&host_root.join(path.strip_prefix("/").ok()?))?;
    let path = path.into_os_string().into_string().ok();
    path.filter(|path| path.len() <= MAX_PATH && on_host.file() == program.file())
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(directory: &Path, name: &str, content: &str) -> std::path::PathBuf {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn of(digests: &Digests, user: u32, path: &Path) -> Result<Option<[u8; 32]>, Unread> {
        digests.of(user, File::open(path).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_touched_all_the_time_is_read_at_its_users_cost() {
        let directory = signet_testkit::folder();
        let path = file(directory.path(), "app", "one");
        let digests = Digests::within(Rate {
            per_second: 1.0,
            burst: 3.0,
        });
        let first = of(&digests, 7, &path).unwrap();
        assert_eq!(first, Some(sha256(&b"one"[..]).unwrap()));
        assert_eq!(of(&digests, 7, &path), Ok(first), "unchanged, it is not read");
        let mut writing = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut touched = || {
            writing.write_all(b"!").unwrap();
            of(&digests, 7, &path)
        };
        assert_eq!(touched(), Ok(Some(sha256(&b"one!"[..]).unwrap())));
        assert!(touched().is_ok());
        assert_eq!(touched(), Err(Unread(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(touched(), Ok(Some(sha256(&b"one!!!!"[..]).unwrap())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_so_much_read_and_others_are_served_meanwhile() {
        let directory = signet_testkit::folder();
        let digests = Digests::within(Rate {
            per_second: 1.0,
            burst: 10.0,
        });
        let paths: Vec<_> = (0..12)
            .map(|number| file(directory.path(), &number.to_string(), &number.to_string()))
            .collect();
        let read = paths.iter().map(|path| of(&digests, 7, path));
        let read: Vec<_> = read.collect();
        assert!(read[..10].iter().all(Result::is_ok), "{read:?}");
        assert_eq!(read[10..], [Err(Unread(1)), Err(Unread(1))]);
        assert!(of(&digests, 7, &paths[0]).is_ok(), "what is known costs nothing");
        assert!(of(&digests, 8, &paths[11]).is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(of(&digests, 7, &paths[10]).is_ok());
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let directory = signet_testkit::folder();
        let path = file(directory.path(), "app", "");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX_EXECUTABLE + 1)
            .unwrap();
        assert_eq!(of(&Digests::default(), 7, &path), Ok(None));
    }

    #[test]
    fn one_users_programs_push_out_no_others() {
        let directory = signet_testkit::folder();
        let digests = Digests::within(Rate {
            per_second: 0.0,
            burst: 1e9,
        });
        let mine = file(directory.path(), "mine", "mine");
        of(&digests, 7, &mine).unwrap();
        for number in 0..2 * MAX_DIGESTS {
            let path = file(directory.path(), &number.to_string(), "other");
            of(&digests, 8, &path).unwrap();
        }
        let read = digests.read.lock();
        assert_eq!(read.len(), MAX_DIGESTS);
        assert!(read.values().any(|known| known.user == 7));
    }

    #[test]
    fn a_path_is_told_only_where_the_host_has_the_same_file_there() {
        let directory = signet_testkit::folder();
        let path = fs::canonicalize(file(directory.path(), "app", "evil")).unwrap();
        let (opened, root) = (File::open(&path).unwrap(), directory.path().join("root"));
        let program = Program::of(&opened).unwrap();
        assert_eq!(
            path_of(&opened, &program, Path::new("/")).as_deref(),
            path.to_str()
        );
        // Another one there, as when a process mounts its own over it for itself.
        let on_host = root.join(path.strip_prefix("/").unwrap());
        assert_eq!(path_of(&opened, &program, &root), None);
        fs::create_dir_all(on_host.parent().unwrap()).unwrap();
        fs::write(&on_host, "good").unwrap();
        assert_eq!(path_of(&opened, &program, &root), None);
        fs::remove_file(&on_host).unwrap();
        fs::hard_link(&path, &on_host).unwrap();
        assert_eq!(path_of(&opened, &program, &root).as_deref(), path.to_str());
        fs::remove_file(&path).unwrap();
        assert_eq!(path_of(&opened, &program, Path::new("/")), None, "it was removed");
    }
}
