//! Housekeeping: the mark of time, and what may be forgotten.

use std::time::SystemTime;

use super::issuing::node_token;
use super::kept::Kept;
use crate::store::{AGENTS_KEPT, DENIALS_KEPT, Housekeeping, KEPT_AFTER_END, KnownTime, NewIssuance};

impl Kept {
    pub(super) fn housekeeping(&mut self, time: KnownTime) -> Housekeeping {
        self.mark = self.mark.max(time.confirmed);
        self.jumped = time.jumped;
        let Some(now) = time.settled else {
            return Housekeeping::default();
        };
        self.settled = self.settled.max(time.settled);
        let (long_ago, ages_ago) = (now - KEPT_AFTER_END, now - DENIALS_KEPT);
        let keys = &self.keys;
        self.revocations.retain(|(authority, _), entry| {
            let ended = entry.not_after.is_some_and(|end| end < long_ago);
            !ended || entry.entered && !entry.listed && keys.contains_key(authority)
        });
        self.agents
            .retain(|_, agent| agent.expires_at >= now - AGENTS_KEPT);
        // The highest number stays, so that none is used again.
        let highest = self.denials.keys().next_back().copied();
        self.denials.retain(|number, denial| {
            let lifted = denial.lifted.as_ref().map(|lifted| lifted.at);
            let ended = lifted.into_iter().chain(denial.expires).min();
            Some(*number) == highest || ended.is_none_or(|end| end >= ages_ago)
        });
        Housekeeping {
            pruned: self.prune_ledger(now, long_ago),
        }
    }

    fn prune_ledger(&mut self, now: SystemTime, long_ago: SystemTime) -> u64 {
        let oldest = self.lines.front().map(|line| line.written_at);
        if oldest.is_some_and(|written| written < now - KEPT_AFTER_END / 2) {
            return 0;
        }
        let rows = std::mem::take(&mut self.rows);
        let (gone, kept): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| self.may_go(row, long_ago));
        self.rows = kept;
        for row in &gone {
            self.serials.remove(&row.serial);
            self.unreviewed.remove(&row.serial);
            self.certificates.remove(&row.serial);
            if let Some(token) = node_token(row)
                && self
                    .node_tokens
                    .get(&token)
                    .is_some_and(|(_, end)| *end < long_ago)
            {
                self.node_tokens.remove(&token);
            }
        }
        gone.len() as u64
    }

    /// A day after its end, and not before a list says so, as long as its authority signs any.
    fn may_go(&self, row: &NewIssuance, long_ago: SystemTime) -> bool {
        let newest = self.crls.get(&row.authority).and_then(|lists| lists.last());
        let shown = newest.is_some_and(|list| list.this_update > row.not_after);
        row.not_after < long_ago && (shown || !self.keys.contains_key(&row.authority))
    }
}
