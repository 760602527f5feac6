//! Reading logs back: is a line removed, changed or moved, is the end cut off?
//!
//! The lines of each server are one chain, whichever files they are in and in whatever order these are given. A chain
//! proves by itself only that its lines belong together; that they are the server's is what its heads say, and that they
//! are the server's heads, whoever knows its key. Lines that are there twice, as after a crash, must be the same.
//!
//! Every file is read once, and again where parts of files overlap. What is kept of them grows with the number of breaks in
//! the order of lines, not with that of lines.

mod covered;
mod join;
mod line;
mod lines;
mod lookup;
mod survey;
mod verdict;

use std::fs;
use std::io;
use std::path::PathBuf;

use self::join::join;
use self::survey::Survey;
pub(crate) use self::verdict::{FaultKind, ServerLog, Verdict};
use super::{AuditCursor, AuditPublicKey};

/// Whose heads count. With none of either, those of the key that a log's first head names.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    /// These keys.
    pub keys: Vec<AuditPublicKey>,
    /// Keys with these ids.
    pub ids: Vec<String>,
}

/// What a running server says of its log.
#[derive(Debug)]
pub(crate) struct Written {
    /// The server.
    pub server: String,
    /// The last line that is safe where the log is written.
    pub end: AuditCursor,
}

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot read it", .path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

impl Trusted {
    /// Whether nobody has said which keys count.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ids.is_empty()
    }

    /// Whether a head of this key counts in a log that has heads of these.
    fn accepts(&self, key: &AuditPublicKey, before: &[AuditPublicKey]) -> bool {
        if self.is_empty() {
            return before.iter().all(|known| known == key);
        }
        self.has(key)
    }

    /// Whether somebody has said that this key counts.
    pub(crate) fn has(&self, key: &AuditPublicKey) -> bool {
        let id = key.id();
        self.keys.contains(key) || self.ids.iter().any(|known| known.eq_ignore_ascii_case(&id))
    }
}

/// Reads the files, as many times as it needs, and judges what is in them; `written` is what a server that runs has said
/// before. Blocks.
///
/// # Errors
/// [`Unreadable`]. Only a file can be read twice, so a pipe is none.
pub(crate) fn verify(
    files: &[PathBuf],
    trusted: &Trusted,
    written: Option<&Written>,
) -> Result<Verdict, Unreadable> {
    let unreadable = |(path, source)| Unreadable { path, source };
    for path in files {
        let readable = fs::metadata(path).and_then(|found| match found.is_file() {
            true => Ok(()),
            false => Err(io::Error::other("it is no regular file")),
        });
        readable.map_err(|error| unreadable((path.clone(), error)))?;
    }
    let Survey {
        servers,
        halves,
        mut faults,
        ..
    } = Survey::of(files, trusted).map_err(unreadable)?;
    let mut judged = Vec::new();
    for (name, mut server) in servers {
        if server.runs.is_empty() {
            for head in &server.loose {
                let problem = format!("is a head of {name}, of whose log there is no line");
                faults.add(FaultKind::CutOff, head.at.clone(), problem);
            }
            continue;
        }
        let written = written.filter(|written| written.server == name);
        let end = written.map(|written| &written.end);
        judged.push(join(&name, &mut server, end, files, &mut faults).map_err(unreadable)?);
    }
    let missing = written
        .filter(|written| written.end.sequence > 0 && judged.iter().all(|log| log.server != written.server));
    if let Some(written) = missing {
        let problem = format!(
            "of the log of {}, the server that was asked, there is no line",
            written.server
        );
        faults.add(FaultKind::CutOff, None, problem);
    } else if judged.is_empty() && faults.count() == 0 {
        faults.add(
            FaultKind::NoLog,
            None,
            "there is no line of an audit log".to_owned(),
        );
    }
    Ok(Verdict {
        servers: judged,
        halves,
        faults,
    })
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
