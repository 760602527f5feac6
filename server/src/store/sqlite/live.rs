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
        if let Some(slots) = self.by_id.get_mut(&budget.spiffe_id) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.by_id.remove(&budget.spiffe_id);
            }
        }
        self.free.push(slot);
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

    /// Forgets everything expired, with the room it took.
    pub(super) fn sweep(&mut self, now: i64) {
        for budget in &mut self.budgets {
            budget.rows.retain(|row| row.not_after > now);
            budget.rows.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::store::WorkloadRef;
    use crate::store::sqlite::fingerprint::Fingerprints;

    fn slot(live: &mut Live, workload: &WorkloadRef) -> Slot {
        let key = Fingerprints::new([0; 16]).of_budget(workload);
        live.slot(&key)
            .unwrap_or_else(|| live.join(key, &workload.spiffe_id))
    }

    fn workload(name: u8, pod: u8) -> WorkloadRef {
        WorkloadRef {
            cluster_uid: "c".into(),
            spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/w{name}")).unwrap(),
            pod_namespace: "ns".into(),
            pod_name: "p".into(),
            pod_uid: format!("pod-{pod}"),
            node_name: "n".into(),
            node_uid: "nu".into(),
            agent_id: "a".into(),
            process: String::new(),
        }
    }

    #[test]
    fn a_budget_goes_with_its_last_user() {
        let (mut live, first) = (Live::default(), workload(1, 1));
        let key = Fingerprints::new([0; 16]).of_budget(&first);
        let slot = live.join(key, &first.spiffe_id);
        assert_eq!(live.join(key, &first.spiffe_id), slot);
        live.leave(slot);
        assert_eq!(live.slot(&key), Some(slot));
        live.leave(slot);
        assert_eq!(live.slot(&key), None);
        assert!(live.by_id.is_empty());
        let other = workload(2, 1);
        let reused = live.join(Fingerprints::new([0; 16]).of_budget(&other), &other.spiffe_id);
        assert_eq!(reused, slot, "its place is used again");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Issue { name: u8, pod: u8, ttl: i64 },
        Revoke { nth: usize },
        RevokeId { name: u8 },
        Wait { ms: i64 },
        Sweep,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3u8, 0..2u8, 1..500i64).prop_map(|(name, pod, ttl)| Step::Issue { name, pod, ttl }),
            1 => (0..50usize).prop_map(|nth| Step::Revoke { nth }),
            1 => (0..3u8).prop_map(|name| Step::RevokeId { name }),
            2 => (0..200i64).prop_map(|ms| Step::Wait { ms }),
            1 => Just(Step::Sweep),
        ]
    }

    /// The same rules, as a list that forgets nothing.
    #[derive(Default)]
    struct Model(Vec<(u8, u8, SerialNumber, i64, bool)>);

    impl Model {
        fn live(&self, name: u8, pod: u8, now: i64) -> usize {
            self.0
                .iter()
                .filter(|row| (row.0, row.1) == (name, pod) && row.3 > now && !row.4)
                .count()
        }
    }

    proptest! {
        /// A budget counts what is neither expired nor revoked, of one identity of one pod, and nothing else.
        #[test]
        fn budgets_agree_with_a_plain_list(steps in prop::collection::vec(step(), 1..120)) {
            let (mut live, mut model, mut now) = (Live::default(), Model::default(), 1_000i64);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Issue { name, pod, ttl } => {
                        let workload = workload(name, pod);
                        let slot = slot(&mut live, &workload);
                        prop_assert_eq!(live.used(slot, now).0 as usize, model.live(name, pod, now));
                        let mut random = [0; 13];
                        random[0] = u8::try_from(number).unwrap();
                        let at = UNIX_EPOCH + Duration::from_millis(now.unsigned_abs());
                        let serial = SerialNumber::generate(at, &random);
                        live.add(slot, LiveRow { serial, authority: 1, not_after: now + ttl });
                        model.0.push((name, pod, serial, now + ttl, false));
                    }
                    Step::Revoke { nth } => {
                        if let Some(row) = model.0.get_mut(nth) {
                            row.4 = true;
                            let slot = slot(&mut live, &workload(row.0, row.1));
                            live.remove(slot, row.2);
                        }
                    }
                    Step::RevokeId { name } => {
                        let id = workload(name, 0).spiffe_id;
                        let open = model.0.iter().filter(|row| row.0 == name && row.3 > now && !row.4).count();
                        prop_assert_eq!(live.of_id(&id, now).len(), open);
                        live.remove_id(&id);
                        model.0.iter_mut().filter(|row| row.0 == name).for_each(|row| row.4 = true);
                    }
                    Step::Wait { ms } => now += ms,
                    Step::Sweep => live.sweep(now),
                }
                let open = model.0.iter().filter(|row| row.3 > now && !row.4).count() as u64;
                prop_assert_eq!(live.counts(now).iter().map(|count| count.1).sum::<u64>(), open);
            }
        }
    }
}
