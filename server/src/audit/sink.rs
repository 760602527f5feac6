//! Where lines go.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tokio::fs::OpenOptions;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, SeekFrom};

/// Where the audit log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuditSink {
    /// The server's standard output.
    Stdout,
    /// A file, appended to; made with mode 0600. It is opened anew for each write, so it can be rotated by renaming.
    File(PathBuf),
}

impl AuditSink {
    /// Writes whole lines, each of which ends with a newline. After an error some of them may have been written.
    pub(crate) async fn write(&self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let lines = lines.to_vec();
                // A pipe that nobody reads blocks: not on a thread that serves.
                tokio::task::spawn_blocking(move || to_stdout(&lines))
                    .await
                    .map_err(io::Error::other)?
            }
            Self::File(path) => append(path, lines).await,
        }
    }
}

fn to_stdout(lines: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines)?;
    out.flush()
}

async fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .await?;
    if ends_inside_a_line(&mut file).await? {
        file.write_all(b"\n").await?;
    }
    file.write_all(lines).await?;
    file.flush().await
}

/// A write that failed or was cut off by a crash must not swallow the next line.
async fn ends_inside_a_line(file: &mut tokio::fs::File) -> io::Result<bool> {
    if file.metadata().await?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1)).await?;
    Ok(file.read_u8().await? != b'\n')
}
