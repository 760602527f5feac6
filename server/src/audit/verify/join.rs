//! The runs of one server's log, put together: what is missing between them, what stands twice, and whether heads agree.

mod vouching;

use std::io;
use std::path::PathBuf;

use super::covered::Covered;
use super::line::Hash;
use super::lookup::{Found, Wanted};
use super::survey::{LooseHead, OneServer, Run};
use super::verdict::{FaultKind, Faults, Place, ServerLog};
use crate::audit_event::AuditCursor;

/// A part of the chain: sequences, and the run that has them.
struct Part {
    first: u64,
    last: u64,
    run: usize,
}

/// Something that says which hash the line of a sequence has.
enum Claim<'s> {
    /// The same line elsewhere.
    Again { run: usize },
    /// The line after it.
    Next { run: usize },
    /// A head.
    Head(&'s LooseHead),
    /// The running server.
    Server(Hash),
}

/// Whether the line of this sequence in this run is as somebody claims.
struct Check<'s> {
    run: usize,
    sequence: u64,
    claim: Claim<'s>,
}

pub(super) struct Join<'s> {
    name: &'s str,
    files: &'s [PathBuf],
    runs: &'s [Run],
    faults: &'s mut Faults,
    chain: Vec<Part>,
    repeated: u64,
    checks: Vec<Check<'s>>,
}

/// Judges the log of one server, of which there is at least one line; `end` is what the server itself says that it has written.
pub(super) fn join(
    name: &str,
    server: &mut OneServer,
    end: Option<&AuditCursor>,
    files: &[PathBuf],
    faults: &mut Faults,
) -> Result<ServerLog, (PathBuf, io::Error)> {
    let (runs, loose) = (
        std::mem::take(&mut server.runs),
        std::mem::take(&mut server.loose),
    );
    let mut join = Join {
        name,
        files,
        runs: &runs,
        faults,
        chain: Vec::new(),
        repeated: 0,
        checks: Vec::new(),
    };
    join.moved();
    join.chain();
    loose.iter().for_each(|head| join.head(head));
    if let Some(end) = end.filter(|end| end.sequence > 0) {
        join.reaches(end);
    }
    let (agreed, server_agrees) = join.check()?;
    for head in agreed {
        server.verified(head.sequence, &head.time);
    }
    let vouched = end.filter(|_| server_agrees).map(|end| end.sequence);
    let newest = server.newest.as_ref().map(|(sequence, _)| *sequence);
    join.unsigned(server, vouched);
    Ok(join.said(server, vouched.max(newest)))
}

impl<'s> Join<'s> {
    fn place(&self, run: usize, line: u64) -> Option<Place> {
        let file = self.files.get(self.runs.get(run)?.file)?;
        let file = file.display().to_string();
        Some(Place { file, line })
    }

    fn first_place(&self, run: usize) -> Option<Place> {
        self.place(run, self.runs.get(run)?.first_line)
    }

    fn last_place(&self, run: usize) -> Option<Place> {
        self.place(run, self.runs.get(run)?.last_line)
    }

    fn end(&self) -> Option<u64> {
        self.chain.last().map(|part| part.last)
    }

    /// A line may come again behind later ones, but in no file may one stand behind a later one that stands nowhere else.
    fn moved(&mut self) {
        let (mut file, mut covered, mut elsewhere) = (None, Covered::default(), None);
        for (index, run) in self.runs.iter().enumerate() {
            if file.replace(run.file) != Some(run.file) {
                (covered, elsewhere) = (Covered::default(), None);
            }
            let greatest = covered.greatest().unwrap_or(0);
            if run.first < greatest {
                let elsewhere = elsewhere.get_or_insert_with(|| self.outside(run.file));
                if !covered.has_with(elsewhere, run.first, run.last.min(greatest)) {
                    let problem = format!(
                        "sequence {} stands behind sequence {greatest}: lines were moved",
                        run.first
                    );
                    self.faults
                        .add(FaultKind::Moved, self.first_place(index), problem);
                }
            }
            covered.add(run.first, run.last);
        }
    }

    /// What other files have.
    fn outside(&self, file: usize) -> Covered {
        let mut covered = Covered::default();
        for run in self.runs.iter().filter(|run| run.file != file) {
            covered.add(run.first, run.last);
        }
        covered
    }

    /// Puts the runs behind each other.
    fn chain(&mut self) {
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by_key(|index| self.runs.get(*index).map(|run| (run.first, run.file, run.offset)));
        let runs = self.runs;
        for (index, run) in order
            .into_iter()
            .filter_map(|index| Some((index, runs.get(index)?)))
        {
            let Some(end) = self.end() else {
                if run.first <= 1 && run.previous != Hash::default() {
                    let problem =
                        "is the first line of a store, and names one before it: it was changed".to_owned();
                    self.faults
                        .add(FaultKind::Changed, self.first_place(index), problem);
                }
                self.extend(run.first, run.last, index);
                continue;
            };
            if run.first > end.saturating_add(1) {
                self.gap(end, index, run);
            } else if run.first > end {
                if !run.is_told {
                    self.ask(end, Claim::Next { run: index });
                }
                self.extend(run.first, run.last, index);
            } else {
                let common = run.last.min(end);
                self.repeated += common - run.first + 1;
                self.ask(common, Claim::Again { run: index });
                if run.last > end {
                    self.extend(end + 1, run.last, index);
                }
            }
        }
    }

    fn extend(&mut self, first: u64, last: u64, run: usize) {
        self.chain.push(Part { first, last, run });
    }

    fn gap(&mut self, end: u64, index: usize, run: &Run) {
        let (from, to) = (end + 1, run.first - 1);
        let missing = if from == to {
            format!("sequence {from} is")
        } else {
            format!("sequences {from} to {to} are")
        };
        let before = shown(self.chain.last().and_then(|part| self.last_place(part.run)));
        let problem = format!("{missing} missing between {before} and this line: lines were removed");
        self.faults
            .add(FaultKind::Removed, self.first_place(index), problem);
        self.extend(run.first, run.last, index);
    }

    /// The run that has the line of this sequence in the chain.
    fn run_of(&self, sequence: u64) -> Option<usize> {
        let after = self.chain.partition_point(|part| part.first <= sequence);
        let part = after.checked_sub(1).and_then(|at| self.chain.get(at));
        part.filter(|part| part.last >= sequence).map(|part| part.run)
    }

    fn place_of(&self, sequence: u64, line: u64) -> Option<Place> {
        self.place(self.run_of(sequence)?, line)
    }

    /// Holds a claim against the chain, where that has such a line.
    fn ask(&mut self, sequence: u64, claim: Claim<'s>) {
        if let Some(run) = self.run_of(sequence) {
            self.checks.push(Check { run, sequence, claim });
        }
    }

    /// Reads what has to be known for the checks, and makes them. Which heads agree, and whether the server does.
    fn check(&mut self) -> Result<(Vec<&'s LooseHead>, bool), (PathBuf, io::Error)> {
        let checks = std::mem::take(&mut self.checks);
        let mut wanted = Wanted::default();
        for check in &checks {
            wanted.add(check.run, check.sequence);
            if let Claim::Again { run } = check.claim {
                wanted.add(run, check.sequence);
            }
        }
        let known = wanted.look_up(self.name, self.files, self.runs)?;
        let (mut agreed, mut server_agrees) = (Vec::new(), false);
        for Check { run, sequence, claim } in checks {
            let Some(ours) = known.get(&(run, sequence)) else {
                continue;
            };
            let place = self.place(run, ours.line);
            match claim {
                Claim::Head(head) if head.hash == ours.hash => agreed.push(self.agrees(head)),
                Claim::Head(head) => self.head_differs(head),
                Claim::Server(hash) if hash == ours.hash => server_agrees = true,
                Claim::Server(_) => {
                    let problem =
                        format!("is not what the server has written at sequence {sequence}: it was changed");
                    self.faults.add(FaultKind::Changed, place, problem);
                }
                Claim::Next { run } => self.follows(run, sequence, ours, place),
                Claim::Again { run } => self.repeats(run, sequence, ours, known.get(&(run, sequence))),
            }
        }
        Ok((agreed, server_agrees))
    }

    /// The run continues the line `before` it, of this sequence.
    fn follows(&mut self, run: usize, sequence: u64, before: &Found, place: Option<Place>) {
        if self.runs.get(run).is_some_and(|run| run.previous != before.hash) {
            let problem = format!(
                "sequence {} does not continue {}: one of the two was changed",
                sequence + 1,
                shown(place)
            );
            self.faults
                .add(FaultKind::Changed, self.first_place(run), problem);
        }
    }

    /// The run has the same line again.
    fn repeats(&mut self, run: usize, sequence: u64, ours: &Found, again: Option<&Found>) {
        let Some(again) = again.filter(|again| again.hash != ours.hash) else {
            return;
        };
        let other = self.place_of(sequence, ours.line);
        let problem = format!(
            "has sequence {sequence}, and so has another line, {}: one was changed, or an older copy of the store was put back",
            shown(other)
        );
        self.faults
            .add(FaultKind::Changed, self.place(run, again.line), problem);
    }

    fn said(&self, server: &OneServer, vouched_to: Option<u64>) -> ServerLog {
        let run = |part: Option<&Part>| part.and_then(|part| self.runs.get(part.run));
        let (first, last) = (run(self.chain.first()), run(self.chain.last()));
        ServerLog {
            server: self.name.to_owned(),
            lines: self.chain.iter().map(|part| part.last - part.first + 1).sum(),
            repeated: self.repeated,
            first: first.map_or(0, |run| run.first),
            last: last.map_or(0, |run| run.last),
            first_time: first.map(|run| run.first_time.clone()).unwrap_or_default(),
            last_time: last.map(|run| run.last_time.clone()).unwrap_or_default(),
            first_boot: first.map_or(0, |run| run.first_boot),
            last_boot: last.map_or(0, |run| run.last_boot),
            heads: server.heads,
            vouched_to,
            keys: server.keys.iter().map(super::AuditPublicKey::id).collect(),
        }
    }
}

fn shown(place: Option<Place>) -> String {
    place.map(|place| place.to_string()).unwrap_or_default()
}
