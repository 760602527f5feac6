//! Lines that are no longer kept, read backwards from the files of the log: the one that is written, then those that it was renamed to.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_runtime::files::parent;

use super::Filter;

/// Read at a time.
const CHUNK: u64 = 64 << 10;
/// Longest line; a longer one is none of ours.
const LONGEST_LINE: usize = 4 << 20;
/// Bytes of lines that are held for one question.
const MOST_BYTES: usize = 16 << 20;
/// Endings of files that are not read.
const COMPRESSED: &[&str] = &["gz", "xz", "zst", "bz2", "lz4"];

/// Where a line stands in the log. A head comes behind the line whose sequence it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    sequence: u64,
    is_head: bool,
}

impl Place {
    pub(super) const fn line(sequence: u64) -> Self {
        Self {
            sequence,
            is_head: false,
        }
    }

    pub(super) const fn head(sequence: u64) -> Self {
        Self {
            sequence,
            is_head: true,
        }
    }

    /// The place of a line of this server.
    fn of(line: &[u8], server_id: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Members<'l> {
            server: &'l str,
            sequence: u64,
            event: Option<&'l str>,
        }
        let members: Members<'_> = serde_json::from_slice(line).ok()?;
        (members.server == server_id).then_some(Self {
            sequence: members.sequence,
            is_head: members.event == Some("head"),
        })
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// In order.
    pub lines: Vec<String>,
    /// What is not among them, for people.
    pub notes: Vec<String>,
}

impl Told {
    pub(super) fn only(note: String) -> Self {
        Self {
            lines: Vec::new(),
            notes: vec![note],
        }
    }

    /// There is no file.
    pub(super) fn nowhere(before: Place) -> Self {
        if before <= Place::line(1) {
            return Self::default();
        }
        Self::only(format!(
            "lines before {} went to the server's standard output, and whoever collects that has them; with `audit.file` they are read from the file",
            before.sequence
        ))
    }
}

/// The last `most` lines before `before` that are wanted. Blocks.
pub(super) fn read(
    file: &Path,
    server_id: &str,
    before: Place,
    filter: &Filter,
    most: usize,
    goes_on: impl Fn() -> bool,
) -> Told {
    let (files, mut notes) = files(file);
    let files = in_order(files, server_id, &goes_on, &mut notes);
    let (mut lines, mut bytes, mut before) = (Vec::new(), 0, before);
    'files: for path in files {
        let Some(mut backwards) = open(&path, &mut notes) else {
            continue;
        };
        loop {
            if lines.len() >= most || !goes_on() {
                break 'files;
            }
            let line = match backwards.next() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    notes.push(format!(
                        "{} is not read to its beginning: {error}",
                        path.display()
                    ));
                    break;
                }
            };
            // After a crash lines stand there twice.
            let Some(place) = Place::of(&line, server_id).filter(|place| *place < before) else {
                continue;
            };
            before = place;
            let Some(line) = String::from_utf8(line).ok().filter(|line| filter.wants(line)) else {
                continue;
            };
            bytes += line.len();
            if bytes > MOST_BYTES {
                notes.push(format!(
                    "lines before {} are more than are told at once",
                    before.sequence
                ));
                break 'files;
            }
            lines.push(line);
        }
    }
    lines.reverse();
    if lines.len() >= most {
        // All that was asked for is there.
        notes.clear();
    }
    Told { lines, notes }
}

fn open(path: &Path, notes: &mut Vec<String>) -> Option<Backwards> {
    let opened = Backwards::open(path);
    // It was renamed or removed this moment, or is another's.
    opened
        .map_err(|error| notes.push(format!("{} is not read: {error}", path.display())))
        .ok()
}

/// Those that have lines of this server, by the place of their last one, the newest first: whoever copies or puts back a file dates it
/// anew.
fn in_order(
    files: Vec<PathBuf>,
    server_id: &str,
    goes_on: &impl Fn() -> bool,
    notes: &mut Vec<String>,
) -> Vec<PathBuf> {
    let mut placed = Vec::new();
    for path in files {
        let Some(mut backwards) = open(&path, notes) else {
            continue;
        };
        let own = loop {
            match backwards.next() {
                Ok(Some(line)) => match Place::of(&line, server_id) {
                    Some(place) => break Some(place),
                    None if goes_on() => {}
                    None => break None,
                },
                Ok(None) => break None,
                Err(error) => {
                    notes.push(format!("{} is not read: {error}", path.display()));
                    break None;
                }
            }
        };
        placed.extend(own.map(|place| (place, path)));
    }
    placed.sort_by(|(a, _), (b, _)| b.cmp(a));
    placed.into_iter().map(|(_, path)| path).collect()
}

/// The files of a log, and what is said of those that are not read.
fn files(file: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let (mut files, mut notes) = (vec![file.to_owned()], Vec::new());
    let entries = match fs::read_dir(parent(file)) {
        Ok(entries) => entries,
        Err(error) => {
            notes.push(format!("rotated files of the log are not found: {error}"));
            return (files, notes);
        }
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path == file || !is_renamed(file, &path) {
            continue;
        }
        let is_compressed = |ending: &str| path.extension() == Some(OsStr::new(ending));
        if COMPRESSED.iter().any(|ending| is_compressed(ending)) {
            notes.push(format!("{} is not read: it is compressed", path.display()));
            continue;
        }
        if path.metadata().is_ok_and(|found| found.is_file()) {
            files.push(path);
        }
    }
    notes.sort();
    (files, notes)
}

/// `audit.log.1` and `audit.log-20270115` are of `audit.log`, and so is `audit-20270115.log`.
fn is_renamed(file: &Path, other: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
    let (Some(file_name), Some(other)) = (name(file), name(other)) else {
        return false;
    };
    let follows = |stem: &str| {
        let rest = other.strip_prefix(stem);
        rest.filter(|rest| rest.starts_with(['.', '-']))
            .map(str::to_owned)
    };
    if follows(&file_name).is_some() {
        return true;
    }
    let Some((stem, ending)) = file_name.rsplit_once('.') else {
        return false;
    };
    follows(stem).is_some_and(|rest| rest.contains(&format!(".{ending}")))
}

/// The lines of a file from its end.
struct Backwards {
    file: File,
    /// Where what has not been read ends.
    end: u64,
    /// What was read and not told, from `end` on.
    read: Vec<u8>,
    is_too_long: bool,
}

impl Backwards {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        Ok(Self {
            end: found.len(),
            file,
            read: Vec::new(),
            is_too_long: false,
        })
    }

    /// The line before, without its end; one that is too long is empty.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut looked_at = 0;
        loop {
            let unseen = self.read.len() - looked_at;
            let found = self
                .read
                .get(..unseen)
                .and_then(|unseen| unseen.iter().rposition(|byte| *byte == b'\n'));
            if let Some(end) = found {
                let line = self.read.split_off(end);
                return Ok(Some(self.whole(line.get(1..).unwrap_or_default().to_vec())));
            }
            if self.end == 0 {
                let line = std::mem::take(&mut self.read);
                return Ok((!line.is_empty()).then(|| self.whole(line)));
            }
            looked_at = self.read.len();
            if looked_at > LONGEST_LINE {
                self.read.clear();
                (self.is_too_long, looked_at) = (true, 0);
            }
            self.read_more()?;
        }
    }

    fn whole(&mut self, line: Vec<u8>) -> Vec<u8> {
        if std::mem::take(&mut self.is_too_long) {
            Vec::new()
        } else {
            line
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let start = self.end.saturating_sub(CHUNK);
        let length = usize::try_from(self.end - start).unwrap_or_default();
        let mut more = vec![0; length];
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(&mut more)?;
        more.append(&mut self.read);
        self.read = more;
        self.end = start;
        Ok(())
    }
}
