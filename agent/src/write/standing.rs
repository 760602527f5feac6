//! What stands in the way of files that are true and of a program that has them.

use signet_runtime::ready::{Condition, Level, Readiness};
use signet_runtime::sync::Mutex;

signet_runtime::reasons! {
    NO_IDENTITY = Serve "no_identity", "no set was written yet, or the agent refuses the identity; what was written stays";
    EXPIRED = Serve "certificate_expired", "the certificate in the files has ended and no other has come: the program presents one that everybody refuses";
    NOT_WRITTEN = Serve "not_written", "the newest set cannot be written: a full or read-only folder; the one before stays whole";
    NOT_TOLD = Serve "hook_failing", "the newest set is written, and the program was not told: the hook fails, and is tried again";
    STOPPING = Serve "stopping", "the program was told to end";
    EARLIER = Issue "earlier_set", "the files are an earlier run's, whole and with a certificate that has not ended; this run has written none yet";
    AGENT_AWAY = Issue "agent_away", "the agent is away or sends what cannot be used; what was written stays in use until it ends";
}

/// Each with its owner: the publisher's but for the last but one.
pub(super) struct Standing {
    readiness: Readiness,
    pub identity: Condition,
    pub expired: Condition,
    pub written: Condition,
    pub told: Condition,
    pub earlier: Condition,
    pub agent: Condition,
    verdict: Mutex<Option<String>>,
}

impl Standing {
    /// Nothing was written yet.
    pub(super) fn new(readiness: &Readiness) -> Self {
        Self {
            readiness: readiness.clone(),
            identity: readiness.hold(NO_IDENTITY),
            expired: readiness.condition(EXPIRED),
            written: readiness.condition(NOT_WRITTEN),
            told: readiness.condition(NOT_TOLD),
            // Before the agent's, which says only why it lasts.
            earlier: readiness.condition(EARLIER),
            agent: readiness.condition(AGENT_AWAY),
            verdict: Mutex::default(),
        }
    }

    /// Waiting longer is of no use.
    pub(super) fn give_up(&self, why: String) {
        *self.verdict.lock() = Some(why);
    }

    pub(super) fn verdict(&self) -> Option<String> {
        self.verdict.lock().clone()
    }

    /// What is told of all that stands.
    pub(super) fn worst(&self) -> Option<String> {
        let standing = self.readiness.standing(Level::Issue);
        let told = standing.iter().max_by_key(|standing| !standing.detail.is_empty());
        told.map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has every reason, in the words of the program, and no other.
    #[test]
    fn the_documentation_has_the_table_of_reasons() {
        let page = include_str!("../../../docs/files.md");
        let rows = page
            .lines()
            .skip_while(|line| !line.starts_with("| reason |"))
            .skip(2);
        let row = |reason: &signet_runtime::ready::Reason| {
            let (name, level, meaning) = (reason.name, reason.level.path(), reason.meaning);
            format!("| `{name}` | `{level}` | {meaning} |")
        };
        let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
        assert_eq!(rows, REASONS.iter().map(row).collect::<Vec<_>>());
    }
}
