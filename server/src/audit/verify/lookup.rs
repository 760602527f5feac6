//! Lines that have to be read a second time: the files were not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::line::{Hash, Line};
use super::lines::Lines;
use super::survey::Run;

/// Lines to be looked up, by run and sequence.
#[derive(Default)]
pub(super) struct Wanted(BTreeMap<usize, BTreeSet<u64>>);

/// A line that was looked up.
pub(super) struct Found {
    /// Its hash.
    pub hash: Hash,
    /// Its number in the file.
    pub line: u64,
}

impl Wanted {
    /// One more, which the run has.
    pub(super) fn add(&mut self, run: usize, sequence: u64) {
        self.0.entry(run).or_default().insert(sequence);
    }

    /// Reads each run at most once, and no further than it must.
    pub(super) fn look_up(
        self,
        server: &str,
        files: &[PathBuf],
        runs: &[Run],
    ) -> Result<BTreeMap<(usize, u64), Found>, (PathBuf, io::Error)> {
        let mut known = BTreeMap::new();
        for (index, mut sequences) in self.0 {
            let Some(run) = runs.get(index) else { continue };
            if sequences.remove(&run.last) {
                let (hash, line) = (run.end, run.last_line);
                known.insert((index, run.last), Found { hash, line });
            }
            if let Some(path) = files.get(run.file).filter(|_| !sequences.is_empty()) {
                let read = read(server, run, path, sequences).map_err(|error| (path.clone(), error))?;
                known.extend(
                    read.into_iter()
                        .map(|(sequence, found)| ((index, sequence), found)),
                );
            }
        }
        Ok(known)
    }
}

fn read(server: &str, run: &Run, path: &PathBuf, mut wanted: BTreeSet<u64>) -> io::Result<Vec<(u64, Found)>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(run.offset))?;
    let mut lines = Lines::from(
        BufReader::with_capacity(1 << 18, file),
        run.offset,
        run.first_line,
    );
    let mut found = Vec::new();
    while !wanted.is_empty() {
        let Some(piece) = lines.next()? else {
            return Err(io::Error::other("it has changed while it was read"));
        };
        if let Line::Event(event) = Line::of(piece.bytes)
            && event.server == server
            && wanted.remove(&event.sequence)
        {
            let (hash, line) = (event.hash, piece.number);
            found.push((event.sequence, Found { hash, line }));
        }
    }
    Ok(found)
}
