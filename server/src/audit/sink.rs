//! Where lines go. What is written counts only once it is synced: until then the store keeps it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use signet_runtime::files::parent;
use signet_runtime::sync::Mutex;

use crate::store::BoxFuture;

/// Where the audit log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuditSink {
    /// The server's standard output. Whoever collects it answers for what it has taken.
    Stdout,
    /// A file, appended to; made with mode 0600. It can be rotated by renaming it: the next write makes a new one.
    File(PathBuf),
}

/// What the emitter writes to.
pub(crate) trait LineSink: Send {
    /// Writes whole lines, each of which ends with a newline. After an error some of them may have been written.
    fn write(&mut self, lines: Vec<u8>) -> BoxFuture<'_, io::Result<()>>;

    /// Returns once all that was written outlives a loss of power. After an error nothing is certain of what was written
    /// since the last success: it has to be written again.
    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>>;

    /// Opens it again: what is written from here on goes where its name leads now.
    fn reopen(&mut self) -> BoxFuture<'_, io::Result<()>>;
}

/// The audit log cannot be written where the configuration says.
#[derive(Debug, thiserror::Error)]
#[error(
    "audit.file: cannot write {}: {source}; make its folder and let the server's user write there, or leave `audit.file` out \
     to have the lines on standard output",
    .path.display()
)]
pub(crate) struct SinkError {
    path: PathBuf,
    source: io::Error,
}

impl AuditSink {
    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path),
        }
    }

    /// Opens it; blocks. A file that is missing is made.
    ///
    /// # Errors
    /// [`SinkError`].
    pub(crate) fn open(&self) -> Result<Box<dyn LineSink>, SinkError> {
        match self {
            Self::Stdout => Ok(Box::new(Stdout)),
            Self::File(path) => {
                let mut log = FileLog {
                    path: path.clone(),
                    file: None,
                };
                log.current().map_err(|source| SinkError {
                    path: path.clone(),
                    source,
                })?;
                Ok(Box::new(Arc::new(Mutex::new(log))))
            }
        }
    }
}

struct Stdout;

impl LineSink for Stdout {
    fn write(&mut self, lines: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        // A pipe that nobody reads blocks: not on a thread that serves.
        Box::pin(blocking(move || {
            let mut out = io::stdout().lock();
            out.write_all(&lines)?;
            out.flush()
        }))
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn reopen(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A file that is held open, so that what was written to it can be synced even when it has got another name.
struct FileLog {
    path: PathBuf,
    /// None before the first write and after a failure.
    file: Option<File>,
}

impl LineSink for Arc<Mutex<FileLog>> {
    fn write(&mut self, lines: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        let log = self.clone();
        Box::pin(blocking(move || log.lock().write(&lines)))
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        let log = self.clone();
        Box::pin(blocking(move || log.lock().sync()))
    }

    fn reopen(&mut self) -> BoxFuture<'_, io::Result<()>> {
        let log = self.clone();
        Box::pin(blocking(move || log.lock().reopen()))
    }
}

impl FileLog {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let outcome = self.current().and_then(|file| append(file, lines));
        if outcome.is_err() {
            self.file = None;
        }
        outcome
    }

    fn sync(&mut self) -> io::Result<()> {
        let outcome = self.file.as_ref().map_or(Ok(()), sync);
        if outcome.is_err() {
            self.file = None;
        }
        outcome
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.sync()?;
        self.file = None;
        self.current().map(drop)
    }

    /// The file at the path. One that has been renamed is synced before it is let go.
    fn current(&mut self) -> io::Result<&mut File> {
        if let Some(file) = self.file.take_if(|file| !lies_at(file, &self.path)) {
            sync(&file)?;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // A new file is there after a loss of power only once its name is.
    File::open(parent(path))?.sync_all()?;
    Ok(file)
}

fn append(file: &mut File, lines: &[u8]) -> io::Result<()> {
    if ends_inside_a_line(file)? {
        file.write_all(b"\n")?;
    }
    file.write_all(lines)
}

/// A pipe or a terminal keeps nothing that could be synced.
fn sync(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.sync_data()?;
    }
    Ok(())
}

fn lies_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(found)) => (open.dev(), open.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

/// A write that failed or was cut off by a crash must not swallow the next line.
fn ends_inside_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    signet_runtime::spans::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_that_is_renamed_is_begun_anew_and_both_have_whole_lines() {
        let dir = signet_testkit::folder();
        let (path, old) = (dir.path().join("audit.log"), dir.path().join("audit.log.1"));
        let mut sink = AuditSink::File(path.clone()).open().unwrap();
        sink.write(b"one\ntwo\n".to_vec()).await.unwrap();
        fs::rename(&path, &old).unwrap();
        sink.write(b"three\n".to_vec()).await.unwrap();
        sink.sync().await.unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_swallows_no_other() {
        let dir = signet_testkit::folder();
        let path = dir.path().join("audit.log");
        fs::write(&path, "cut o").unwrap();
        let mut sink = AuditSink::File(path.clone()).open().unwrap();
        sink.write(b"whole\n".to_vec()).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "cut o\nwhole\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_its_key_and_a_remedy() {
        let dir = signet_testkit::folder();
        let path = dir.path().join("missing/audit.log");
        let refused = AuditSink::File(path.clone()).open().err().unwrap().to_string();
        for part in ["audit.file", path.to_str().unwrap(), "make its folder"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
