//! What admins have asked for and what it has come to, pure. It is in the journal, so that a command goes on over a restart of the server,
//! whoever listens.

use std::sync::Arc;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::signer::SignatureAlgorithm;

/// Operations of one kind of authority that may be under way at once. A revocation and an emergency are taken all the same: there are no
/// more of them than authorities that have left and are remembered.
const MOST_RUNNING: usize = 16;
/// Those that have ended are remembered for whoever lost sight of one.
const ENDED_KEPT: usize = 8;

/// What an admin asks of the authorities of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Have a successor, and let it spread.
    Prepare {
        /// What its key shall sign with; nothing leaves that to the settings.
        algorithm: Option<SignatureAlgorithm>,
    },
    /// The successor takes over.
    Activate {
        /// Though it has not spread.
        force: bool,
    },
    /// Prepare a successor if there is none, and have it take over once it has spread.
    Rotate {
        /// Without waiting for it to spread.
        force: bool,
        /// What its key shall sign with; nothing leaves that to the settings.
        algorithm: Option<SignatureAlgorithm>,
        /// Then take the one before it out of use, and out of every bundle.
        retire: bool,
    },
    /// A key of this kind is stolen: another authority takes over at once, and all before it leave every bundle whoever has reported.
    Emergency {
        /// What its key shall sign with; nothing leaves that to the settings.
        algorithm: Option<SignatureAlgorithm>,
    },
    /// What this one has signed is replaced everywhere.
    Taint {
        /// Which.
        authority: AuthorityId,
    },
    /// This one leaves every bundle and does not come back.
    Revoke {
        /// Which.
        authority: AuthorityId,
        /// Though certificates of it are in use, or nobody can say.
        force: bool,
    },
}

/// What an operation is for. A later one takes the place of an earlier one over the same successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    /// Ends when the successor has spread.
    Prepare,
    /// Ends when the successor signs.
    Activate,
    /// The same.
    Rotate,
    /// Ends when the one before the successor is gone, and every live agent has reported the bundle without it.
    Retire,
    /// Ends when all before the successor have left every bundle; where agents' own certificates are of them, when each has another.
    Emergency,
    /// Ends when every live agent has reported that it knows.
    Taint,
    /// Ends when every live agent has reported the bundle without it.
    Revoke,
}

impl Verb {
    const ALL: [Self; 7] = [
        Self::Prepare,
        Self::Activate,
        Self::Rotate,
        Self::Retire,
        Self::Emergency,
        Self::Taint,
        Self::Revoke,
    ];

    /// Its name in journals, tables and messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Rotate => "rotate",
            Self::Retire => "retire",
            Self::Emergency => "emergency",
            Self::Taint => "taint",
            Self::Revoke => "revoke",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// Whether it is about a successor that takes over, or is to.
    pub(crate) const fn has_successor(self) -> bool {
        !matches!(self, Self::Taint | Self::Revoke)
    }
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The successor spreads.
    Spreading,
    /// What the old one has signed is being replaced.
    Draining,
    /// It is done here, and live agents have yet to report that they know.
    Telling,
    /// It is true everywhere.
    Done,
    /// Something else came of it.
    Superseded,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::Spreading,
        Self::Draining,
        Self::Telling,
        Self::Done,
        Self::Superseded,
    ];

    /// Its name in journals.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Spreading => "spreading",
            Self::Draining => "draining",
            Self::Telling => "telling",
            Self::Done => "done",
            Self::Superseded => "superseded",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Nothing follows.
    pub(crate) const fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Superseded)
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Names it among those of its kind of authority.
    pub number: u64,
    /// What it is for.
    pub verb: Verb,
    /// The successor, or the authority that it takes away.
    pub target: AuthorityId,
    /// Who signed when it began, where there is a successor.
    pub previous: Option<AuthorityId>,
    /// Who wanted it.
    pub author: Arc<str>,
    /// When it was recorded.
    pub begun: SystemTime,
    /// How far it has come.
    pub stage: Stage,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// Who had reported it then; nothing before.
    pub told: Option<Told>,
}

/// How many live agents there were, and how many of them had reported what an operation has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Of how many.
    pub agents: usize,
    /// How many.
    pub reported: usize,
}

impl Operation {
    /// The authority that it takes away, if it does.
    pub(crate) const fn taken_away(&self) -> Option<AuthorityId> {
        match self.verb {
            Verb::Retire | Verb::Emergency => self.previous,
            Verb::Taint | Verb::Revoke => Some(self.target),
            Verb::Prepare | Verb::Activate | Verb::Rotate => None,
        }
    }

    pub(super) const fn end(&mut self, stage: Stage, now: SystemTime) {
        self.stage = stage;
        self.ended = Some(now);
    }
}

/// Those that are under way, and the last that have ended, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operations(Vec<Operation>);

/// As many are under way as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Operations {
    /// Those that were kept.
    pub(super) const fn of(kept: Vec<Operation>) -> Self {
        Self(kept)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Operation> {
        self.0.iter()
    }

    /// Those under way.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Operation> {
        self.0.iter().filter(|operation| !operation.stage.is_end())
    }

    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = &mut Operation> {
        self.0.iter_mut().filter(|operation| !operation.stage.is_end())
    }

    /// Records one that begins; its number.
    pub(super) fn begin(&mut self, mut operation: Operation) -> Result<u64, TooMany> {
        let waits = !matches!(operation.verb, Verb::Revoke | Verb::Emergency);
        if waits && self.running().count() >= MOST_RUNNING {
            return Err(TooMany);
        }
        // The newest of those kept has the highest number, and one is always kept.
        operation.number = self.0.last().map_or(1, |last| last.number + 1);
        let number = operation.number;
        self.0.push(operation);
        self.forget();
        Ok(number)
    }

    /// The oldest of those that have ended give way.
    fn forget(&mut self) {
        let ended = self.0.iter().filter(|operation| operation.stage.is_end()).count();
        let mut excess = ended.saturating_sub(ENDED_KEPT);
        self.0.retain(|operation| {
            let goes = excess > 0 && operation.stage.is_end();
            excess -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(number: u64, stage: Stage) -> Operation {
        Operation {
            number,
            verb: Verb::Taint,
            target: AuthorityId::from_bytes([1; 20]),
            previous: None,
            author: "admin".into(),
            begun: SystemTime::UNIX_EPOCH,
            stage,
            ended: None,
            told: None,
        }
    }

    #[test]
    fn names_are_read_again() {
        assert!(
            Verb::ALL
                .iter()
                .all(|verb| Verb::from_name(verb.name()) == Some(*verb))
        );
        assert!(
            Stage::ALL
                .iter()
                .all(|stage| Stage::from_name(stage.name()) == Some(*stage))
        );
    }

    #[test]
    fn those_under_way_are_bounded_and_those_that_ended_give_way_but_no_number_comes_twice() {
        let mut all = Operations::default();
        for number in 1..=30 {
            assert_eq!(all.begin(operation(0, Stage::Telling)), Ok(number));
            all.0.last_mut().unwrap().end(Stage::Done, SystemTime::UNIX_EPOCH);
        }
        for number in 31..=46 {
            assert_eq!(all.begin(operation(0, Stage::Telling)), Ok(number));
        }
        assert_eq!(all.begin(operation(0, Stage::Telling)), Err(TooMany));
        assert_eq!((all.running().count(), all.iter().count()), (16, 24));
        let revocation = Operation {
            verb: Verb::Revoke,
            ..operation(0, Stage::Telling)
        };
        assert_eq!(all.begin(revocation), Ok(47), "what is stolen does not wait");
    }
}
