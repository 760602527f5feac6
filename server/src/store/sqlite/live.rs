//! Which certificates are live, in memory: what budgets and revocations by SPIFFE ID are judged by. Pure; the writer
//! rebuilds it from the ledger when the store is opened.

use std::collections::HashMap;

use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::fingerprint::{ByFingerprint, Fingerprint};
use crate::store::budget::Bucket;

/// One certificate that was neither revoked nor, when last swept, expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveRow {
    pub(super) serial: SerialNumber,
    /// Row of the authority that signed it.
    pub(super) authority: i64,
    /// Milliseconds since 1970.
    pub(super) not_after: i64,
}

/// Where the certificates of one budget are: of one identity of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// Live certificates by budget. Expired ones count for nothing and go with the next [`sweep`](Self::sweep): a caller
/// whose clock is ahead removes nothing.
#[derive(Debug, Default)]
pub(super) struct Live {
    budgets: Vec<Budget>,
    free: Vec<Slot>,
    slots: HashMap<Fingerprint, Slot, ByFingerprint>,
    by_id: HashMap<SpiffeId, Vec<Slot>>,
    /// The latest end of anything an authority signed, revoked or not.
    latest: HashMap<i64, i64>,
}

#[derive(Debug)]
struct Budget {
    key: Fingerprint,
    spiffe_id: SpiffeId,
    /// Its place among those of its identity.
    nth: usize,
    /// Workloads that use it; it goes with the last one.
    users: usize,
    rows: Vec<LiveRow>,
    /// What it may still displace.
    bucket: Bucket,
}

impl Live {
    /// The slot of a budget that somebody uses.
    pub(super) fn slot(&self, key: &Fingerprint) -> Option<Slot> {
        self.slots.get(key).copied()
    }

    /// Adds a user to a budget, which is made when it is new.
    pub(super) fn join(&mut self, key: Fingerprint, spiffe_id: &SpiffeId) -> Slot {
        if let Some(slot) = self.slot(&key) {
            if let Some(budget) = self.budgets.get_mut(slot.0) {
                budget.users += 1;
            }
            return slot;
        }
        let budget = Budget {
            key,
            spiffe_id: spiffe_id.clone(),
            nth: self.by_id.get(spiffe_id).map_or(0, Vec::len),
            users: 1,
            rows: Vec::new(),
            bucket: Bucket::default(),
        };
        let slot = self.place(budget);
        self.slots.insert(key, slot);
        self.by_id.entry(spiffe_id.clone()).or_default().push(slot);
        slot
    }

    fn place(&mut self, budget: Budget) -> Slot {
        while let Some(slot) = self.free.pop() {
            if let Some(place) = self.budgets.get_mut(slot.0) {
                *place = budget;
                return slot;
            }
        }
        self.budgets.push(budget);
        Slot(self.budgets.len() - 1)
    }

    /// Takes a user from a budget; the last one takes it along.
    pub(super) fn leave(&mut self, slot: Slot) {
        let Some(budget) = self.budgets.get_mut(slot.0) else {
            return;
        };
        budget.users = budget.users.saturating_sub(1);
        if budget.users > 0 {
            return;
        }
        budget.rows = Vec::new();
        self.slots.remove(&budget.key);
        let (spiffe_id, nth) = (budget.spiffe_id.clone(), budget.nth);
        self.leave_id(&spiffe_id, nth);
        self.free.push(slot);
    }

    /// The last one of an identity takes the place of one that goes: one identity may be that of very many pods.
    fn leave_id(&mut self, id: &SpiffeId, nth: usize) {
        let Some(slots) = self.by_id.get_mut(id) else {
            return;
        };
        if nth < slots.len() {
            slots.swap_remove(nth);
        }
        if let Some(moved) = slots.get(nth).and_then(|slot| self.budgets.get_mut(slot.0)) {
            moved.nth = nth;
        }
        if slots.is_empty() {
            self.by_id.remove(id);
        }
    }

    /// How many certificates of a budget are unexpired, and what it may still displace.
    pub(super) fn used(&self, slot: Slot, now: i64) -> (u32, Bucket) {
        let Some(budget) = self.budgets.get(slot.0) else {
            return (0, Bucket::default());
        };
        let live = budget.rows.iter().filter(|row| row.not_after > now).count();
        (u32::try_from(live).unwrap_or(u32::MAX), budget.bucket)
    }

    /// Keeps what a budget may still displace.
    pub(super) fn set_bucket(&mut self, slot: Slot, bucket: Bucket) {
        if let Some(budget) = self.budgets.get_mut(slot.0) {
            budget.bucket = bucket;
        }
    }

    /// Adds a certificate.
    pub(super) fn add(&mut self, slot: Slot, row: LiveRow) {
        self.saw(row.authority, row.not_after);
        if let Some(budget) = self.budgets.get_mut(slot.0) {
            budget.rows.push(row);
        }
    }

    /// Notes that an authority signed something that ends at `not_after`.
    pub(super) fn saw(&mut self, authority: i64, not_after: i64) {
        let latest = self.latest.entry(authority).or_insert(not_after);
        *latest = (*latest).max(not_after);
    }

    /// Removes one certificate.
    pub(super) fn remove(&mut self, slot: Slot, serial: SerialNumber) {
        if let Some(budget) = self.budgets.get_mut(slot.0) {
            budget.rows.retain(|row| row.serial != serial);
        }
    }

    fn budgets_of(&self, id: &SpiffeId) -> impl Iterator<Item = &Budget> {
        self.by_id
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|slot| self.budgets.get(slot.0))
    }

    /// All certificates of an identity that are unexpired at `now`, sorted by serial.
    pub(super) fn of_id(&self, id: &SpiffeId, now: i64) -> Vec<LiveRow> {
        let rows = self.budgets_of(id).flat_map(|budget| &budget.rows);
        let mut rows: Vec<LiveRow> = rows.filter(|row| row.not_after > now).copied().collect();
        rows.sort_by_key(|row| row.serial);
        rows
    }

    /// Removes all certificates of an identity.
    pub(super) fn remove_id(&mut self, id: &SpiffeId) {
        for slot in self.by_id.get(id).into_iter().flatten() {
            if let Some(budget) = self.budgets.get_mut(slot.0) {
                budget.rows.clear();
            }
        }
    }

    /// Authority, live certificates, latest end, for every authority seen.
    pub(super) fn counts(&self, now: i64) -> Vec<(i64, u64, i64)> {
        let mut live: HashMap<i64, u64> = HashMap::new();
        for row in self.budgets.iter().flat_map(|budget| &budget.rows) {
            if row.not_after > now {
                *live.entry(row.authority).or_default() += 1;
            }
        }
        self.latest
            .iter()
            .map(|(id, latest)| (*id, live.get(id).copied().unwrap_or(0), *latest))
            .collect()
    }

    /// Forgets what has expired in so many budgets from this one on, with the room it took. Returns where to go on, if there are more.
    pub(super) fn sweep(&mut self, now: i64, from: usize, budgets: usize) -> Option<usize> {
        let next = from.saturating_add(budgets);
        for budget in self.budgets.iter_mut().skip(from).take(budgets) {
            budget.rows.retain(|row| row.not_after > now);
            budget.rows.shrink_to_fit();
        }
        (next < self.budgets.len()).then_some(next)
    }
}

#[cfg(test)]
mod tests;
