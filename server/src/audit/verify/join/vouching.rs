//! What vouches for a log: its heads, and the server itself while it runs.

use std::time::{Duration, SystemTime};

use signet_certs::time::parse_rfc3339;

use super::super::survey::{LooseHead, OneServer};
use super::super::verdict::FaultKind;
use super::{Claim, Join};
use crate::audit_event::AuditCursor;

/// Lines may stand so long behind the newest head: heads are signed every ten seconds while lines are written.
const UNSIGNED: Duration = Duration::from_secs(60);

impl<'s> Join<'s> {
    pub(super) fn head(&mut self, head: &'s LooseHead) {
        let before = self
            .chain
            .first()
            .and_then(|part| Some((part.first, self.runs.get(part.run)?)));
        match (before, self.end()) {
            (_, Some(end)) if head.sequence > end => {
                let problem = format!(
                    "is a head for sequence {}, and the log of {} ends at {end}: its last lines were cut off",
                    head.sequence, self.name
                );
                self.faults.add(FaultKind::CutOff, head.at.clone(), problem);
            }
            // The line itself is in a file that is not given; the one behind it names its hash.
            (Some((first, run)), _) if head.sequence.checked_add(1) == Some(first) => {
                if run.previous != head.hash {
                    self.head_differs(head);
                }
            }
            _ => self.ask(head.sequence, Claim::Head(head)),
        }
    }

    pub(super) fn head_differs(&mut self, head: &LooseHead) {
        let problem = format!(
            "is a head for another line of sequence {}, which was changed",
            head.sequence
        );
        self.faults.add(FaultKind::Changed, head.at.clone(), problem);
    }

    /// The log goes at least as far as the server has written it.
    pub(super) fn reaches(&mut self, written: &AuditCursor) {
        match self.chain.last() {
            Some(part) if part.last < written.sequence => {
                let problem = format!(
                    "is the last line of {}, which has written up to sequence {}: the last lines were cut off, or are in a file that is not given",
                    self.name, written.sequence
                );
                self.faults
                    .add(FaultKind::CutOff, self.last_place(part.run), problem);
            }
            _ => self.ask(written.sequence, Claim::Server(written.hash)),
        }
    }

    pub(super) fn agrees(&mut self, head: &'s LooseHead) -> &'s LooseHead {
        if head.is_early {
            let problem = "is a head that stands before the line it is about: lines were moved".to_owned();
            self.faults.add(FaultKind::Moved, head.at.clone(), problem);
        }
        head
    }

    /// Without a head nothing tells a log from one that somebody has written anew from some line on.
    pub(super) fn unsigned(&mut self, server: &OneServer, vouched: Option<u64>) {
        let Some(part) = self.chain.last() else { return };
        if vouched.is_some_and(|vouched| vouched >= part.last) {
            return;
        }
        let Some((sequence, time)) = &server.newest else {
            let problem = format!(
                "no head vouches for any line of {}: whoever can write there may have made it",
                self.name
            );
            self.faults.add(FaultKind::Unsigned, None, problem);
            return;
        };
        // Whoever adds lines chooses their dates, so that all of them have to be near.
        let farthest = match parse_rfc3339(time) {
            Ok(head) => self.farthest_behind(*sequence, head),
            Err(_) => Duration::MAX,
        };
        if part.last > *sequence && farthest > UNSIGNED {
            let problem = format!(
                "is the last of lines that are dated more than {} s from the newest head before them, which is for sequence {sequence}: heads were removed, lines were added, or the server was killed and has not run since",
                UNSIGNED.as_secs()
            );
            self.faults
                .add(FaultKind::Unsigned, self.last_place(part.run), problem);
        }
    }

    /// How far the lines behind this sequence, which a head of that moment is for, are dated from it.
    fn farthest_behind(&self, sequence: u64, head: SystemTime) -> Duration {
        let behind = self.chain.iter().filter(|part| part.last > sequence);
        let runs = behind.filter_map(|part| self.runs.get(part.run));
        let apart = runs.map(|run| run.unsigned.farthest_from(head));
        apart.max().unwrap_or_default()
    }
}
