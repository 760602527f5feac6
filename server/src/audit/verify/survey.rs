//! One pass over the files: each line is held against the one before it. What has to be held against other files, or other
//! parts of the same one, is kept in the form of runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use signet_certs::time::parse_rfc3339;

use super::super::key::{AuditPublicKey, Head};
use super::Trusted;
use super::line::{Event, Hash, Line};
use super::lines::Lines;
use super::verdict::{FaultKind, Faults, Place};

/// Runs and single heads that are kept. A log has a few; who moves every line about makes one of each.
const MOST_PARTS: usize = 200_000;
/// Servers whose logs are told apart. A trust domain has a few.
const MOST_SERVERS: usize = 1_000;
/// Half lines that are named.
const MOST_HALVES: usize = 1_000;

/// Lines of one server in one file, each of which continues the one before it.
pub(super) struct Run {
    /// Which of the files.
    pub file: usize,
    /// Where its first line begins, and the numbers of its first line and of its last.
    pub offset: u64,
    pub first_line: u64,
    pub last_line: u64,
    /// Sequences of these.
    pub first: u64,
    pub last: u64,
    /// What the first says is the hash of the line before, and the hash of the last.
    pub previous: Hash,
    pub end: Hash,
    pub first_time: String,
    pub last_time: String,
    pub first_boot: u64,
    pub last_boot: u64,
    /// When its lines behind the last head that stands among them say that they were written.
    pub unsigned: Dates,
    /// That it does not continue what stands before it in the file is told already.
    pub is_told: bool,
}

/// The times of some lines.
#[derive(Default)]
pub(super) enum Dates {
    /// There are none.
    #[default]
    None,
    /// The earliest and the latest.
    Between(SystemTime, SystemTime),
    /// One is none.
    Unreadable,
}

impl Dates {
    fn add(&mut self, time: &str) {
        *self = match (&*self, parse_rfc3339(time)) {
            (Self::None, Ok(time)) => Self::Between(time, time),
            (Self::Between(from, to), Ok(time)) => Self::Between(time.min(*from), time.max(*to)),
            (Self::Unreadable, _) | (_, Err(_)) => Self::Unreadable,
        };
    }

    /// How far from `moment` the farthest of them is.
    pub(super) fn farthest_from(&self, moment: SystemTime) -> Duration {
        let apart = |time: SystemTime| {
            let after = time.duration_since(moment);
            after.unwrap_or_else(|before| before.duration())
        };
        match self {
            Self::None => Duration::ZERO,
            Self::Between(from, to) => apart(*from).max(apart(*to)),
            Self::Unreadable => Duration::MAX,
        }
    }
}

/// A head that does not stand behind the line that it is about.
pub(super) struct LooseHead {
    pub at: Place,
    pub sequence: u64,
    pub hash: Hash,
    pub time: String,
    /// Whether its line should have stood before it in this file.
    pub is_early: bool,
}

/// What is known of one server's log.
#[derive(Default)]
pub(super) struct OneServer {
    pub runs: Vec<Run>,
    pub loose: Vec<LooseHead>,
    /// Heads that agree with the line before them.
    pub heads: u64,
    /// Of these the newest: its sequence and time.
    pub newest: Option<(u64, String)>,
    pub keys: Vec<AuditPublicKey>,
    /// The greatest sequence in the file that is being read.
    greatest: Option<(usize, u64)>,
}

/// What is known of all files.
#[derive(Default)]
pub(super) struct Survey {
    pub servers: BTreeMap<String, OneServer>,
    pub halves: Vec<Place>,
    pub faults: Faults,
    parts: usize,
}

/// Whether to read on.
#[derive(PartialEq)]
enum Go {
    On,
    Stop,
}

impl Survey {
    /// Reads all of the files.
    pub(super) fn of(files: &[PathBuf], trusted: &Trusted) -> Result<Self, (PathBuf, io::Error)> {
        let mut survey = Self::default();
        for (index, path) in files.iter().enumerate() {
            match survey.read(index, path, trusted) {
                Ok(Go::On) => {}
                Ok(Go::Stop) => break,
                Err(error) => return Err((path.clone(), error)),
            }
        }
        Ok(survey)
    }

    fn read(&mut self, file: usize, path: &PathBuf, trusted: &Trusted) -> io::Result<Go> {
        let name = path.display().to_string();
        let mut lines = Lines::from(BufReader::with_capacity(1 << 18, File::open(path)?), 0, 1);
        while let Some(piece) = lines.next()? {
            let at = || Place {
                file: name.clone(),
                line: piece.number,
            };
            match Line::of(piece.bytes) {
                _ if !piece.fits => self.foreign(at(), "is longer than any line of an audit log"),
                Line::Event(event) => self.event(event, (file, piece.offset, piece.number), &name),
                Line::Head(head) => self.head(&head, at(), file, trusted),
                Line::Half if self.halves.len() < MOST_HALVES => self.halves.push(at()),
                Line::Half => {}
                Line::Foreign => self.foreign(at(), "is no line of an audit log"),
            }
            let too_many = if self.parts > MOST_PARTS {
                "the order of the lines is broken too often"
            } else if self.servers.len() > MOST_SERVERS {
                "there are lines of more servers than any trust domain has"
            } else {
                continue;
            };
            let problem = format!("{too_many}: the rest was not read");
            self.faults.add(FaultKind::NoLog, at(), problem);
            return Ok(Go::Stop);
        }
        Ok(Go::On)
    }

    fn foreign(&mut self, at: Place, what: &str) {
        self.faults.add(FaultKind::Foreign, at, what.to_owned());
    }

    fn server(&mut self, name: &str) -> &mut OneServer {
        if !self.servers.contains_key(name) {
            self.parts += 1;
            self.servers.insert(name.to_owned(), OneServer::default());
        }
        self.servers.entry(name.to_owned()).or_default()
    }

    fn event(&mut self, event: Event<'_>, (file, offset, number): (usize, u64, u64), name: &str) {
        let server = self.server(&event.server);
        let greatest = server.greatest.filter(|(of, _)| *of == file);
        let greatest = greatest.map_or(event.sequence, |(_, before)| before.max(event.sequence));
        server.greatest = Some((file, greatest));
        let before = server.runs.last_mut().filter(|run| run.file == file);
        let follows = |run: &&mut Run| run.last.checked_add(1) == Some(event.sequence);
        let mut told = None;
        match before.filter(follows) {
            Some(run) if run.end == event.previous => {
                run.last_line = number;
                run.last = event.sequence;
                run.end = event.hash;
                run.last_boot = event.boot;
                run.unsigned.add(&event.time);
                event.time.as_ref().clone_into(&mut run.last_time);
                return;
            }
            Some(run) => told = Some(run.last_line),
            None => {}
        }
        let mut unsigned = Dates::default();
        unsigned.add(&event.time);
        server.runs.push(Run {
            file,
            offset,
            first_line: number,
            last_line: number,
            first: event.sequence,
            last: event.sequence,
            previous: event.previous,
            end: event.hash,
            first_time: event.time.clone().into_owned(),
            last_time: event.time.into_owned(),
            first_boot: event.boot,
            last_boot: event.boot,
            unsigned,
            is_told: told.is_some(),
        });
        self.parts += 1;
        if let Some(line) = told {
            let sequence = event.sequence;
            let problem =
                format!("sequence {sequence} does not continue line {line}: one of the two was changed");
            let file = name.to_owned();
            self.faults
                .add(FaultKind::Changed, Place { file, line: number }, problem);
        }
    }

    /// The hash that a head vouches for, if that is to be believed.
    fn vouched(&mut self, head: &Head, at: &Place, trusted: &Trusted) -> Option<Hash> {
        let Some(key) = head.signer() else {
            let problem = "is a head that its key has not signed".to_owned();
            self.faults.add(FaultKind::Forged, at.clone(), problem);
            return None;
        };
        let mut hash = Hash::default();
        if hex::decode_to_slice(&head.hash, &mut hash).is_err() {
            self.foreign(at.clone(), "is a head without a hash");
            return None;
        }
        let keys = &mut self.server(&head.server).keys;
        if trusted.accepts(&key, keys) {
            if !keys.contains(&key) {
                keys.push(key);
            }
            return Some(hash);
        }
        let expected = match trusted.is_empty() {
            true => "that of the heads before",
            false => "one that is trusted",
        };
        let problem = format!("is a head signed by key {}, which is not {expected}", key.id());
        self.faults.add(FaultKind::Forged, at.clone(), problem);
        None
    }

    fn head(&mut self, head: &Head, at: Place, file: usize, trusted: &Trusted) {
        let Some(hash) = self.vouched(head, &at, trusted) else {
            return;
        };
        let server = self.server(&head.server);
        let line = server
            .runs
            .last_mut()
            .filter(|run| run.file == file && run.last == head.sequence);
        match line {
            Some(run) if run.end == hash => {
                run.unsigned = Dates::None;
                server.verified(head.sequence, &head.time);
            }
            Some(run) => {
                let problem = format!(
                    "is a head for another line of sequence {} than line {}, which was changed",
                    head.sequence, run.last_line
                );
                self.faults.add(FaultKind::Changed, at, problem);
            }
            None => {
                let greatest = server.greatest.filter(|(of, _)| *of == file);
                let is_early = greatest.is_some_and(|(_, greatest)| greatest < head.sequence);
                server.loose.push(LooseHead {
                    at,
                    sequence: head.sequence,
                    hash,
                    time: head.time.clone(),
                    is_early,
                });
                self.parts += 1;
            }
        }
    }
}

impl OneServer {
    /// A head agrees with the log.
    pub(super) fn verified(&mut self, sequence: u64, time: &str) {
        self.heads += 1;
        if self.newest.as_ref().is_none_or(|(newest, _)| *newest <= sequence) {
            self.newest = Some((sequence, time.to_owned()));
        }
    }
}
