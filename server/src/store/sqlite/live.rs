//! Which certificates are live, in memory: what budgets and revocations by SPIFFE ID are judged by. Pure; the writer
//! rebuilds it from the ledger when the store is opened.

use std::collections::HashMap;

use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use crate::store::WorkloadRef;

/// One certificate that was neither revoked nor, when last looked at, expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveRow {
    pub(super) serial: SerialNumber,
    /// Row of the authority that signed it.
    pub(super) authority: i64,
    /// Milliseconds since 1970.
    pub(super) not_after: i64,
}

/// Live certificates by SPIFFE ID, then by whose budget they count in. Expired ones count for nothing and go with the
/// next [`sweep`](Self::sweep): a caller whose clock is ahead removes nothing.
#[derive(Debug, Default)]
pub(super) struct Live {
    by_id: HashMap<SpiffeId, HashMap<String, Vec<LiveRow>>>,
    /// The latest end of anything an authority signed, revoked or not.
    latest: HashMap<i64, i64>,
}

/// The pod, or for what has no pod the node, whose budget a workload uses.
fn owner(workload: &WorkloadRef) -> &str {
    if workload.pod_uid.is_empty() {
        &workload.node_uid
    } else {
        &workload.pod_uid
    }
}

impl Live {
    /// Whether one more fits into `limit`. If not: milliseconds until one of those that fill it expires.
    pub(super) fn room(&self, workload: &WorkloadRef, limit: u32, now: i64) -> Result<(), i64> {
        let rows = self
            .by_id
            .get(&workload.spiffe_id)
            .and_then(|owners| owners.get(owner(workload)));
        let left = rows
            .into_iter()
            .flatten()
            .map(|row| row.not_after - now)
            .filter(|left| *left > 0);
        let (used, first) = left.fold((0u32, i64::MAX), |(used, first), left| {
            (used.saturating_add(1), first.min(left))
        });
        if used < limit { Ok(()) } else { Err(first) }
    }

    /// Adds a certificate.
    pub(super) fn add(&mut self, workload: &WorkloadRef, row: LiveRow) {
        self.saw(row.authority, row.not_after);
        // Looked up by reference first: the keys are copied only for a pod that is new.
        if !self.by_id.contains_key(&workload.spiffe_id) {
            self.by_id.insert(workload.spiffe_id.clone(), HashMap::new());
        }
        let Some(owners) = self.by_id.get_mut(&workload.spiffe_id) else {
            return;
        };
        match owners.get_mut(owner(workload)) {
            Some(rows) => rows.push(row),
            None => {
                owners.insert(owner(workload).to_owned(), vec![row]);
            }
        }
    }

    /// Notes that an authority signed something that ends at `not_after`.
    pub(super) fn saw(&mut self, authority: i64, not_after: i64) {
        let latest = self.latest.entry(authority).or_insert(not_after);
        *latest = (*latest).max(not_after);
    }

    /// Removes one certificate.
    pub(super) fn remove(&mut self, workload: &WorkloadRef, serial: SerialNumber) {
        if let Some(rows) = self
            .by_id
            .get_mut(&workload.spiffe_id)
            .and_then(|o| o.get_mut(owner(workload)))
        {
            rows.retain(|row| row.serial != serial);
        }
    }

    /// All certificates of an identity that are unexpired at `now`, sorted by serial.
    pub(super) fn of_id(&self, id: &SpiffeId, now: i64) -> Vec<LiveRow> {
        let owners = self.by_id.get(id).into_iter().flat_map(HashMap::values);
        let mut rows: Vec<LiveRow> = owners
            .flatten()
            .filter(|row| row.not_after > now)
            .copied()
            .collect();
        rows.sort_by_key(|row| row.serial);
        rows
    }

    /// Removes all certificates of an identity.
    pub(super) fn remove_id(&mut self, id: &SpiffeId) {
        self.by_id.remove(id);
    }

    /// Authority, live certificates, latest end, for every authority seen.
    pub(super) fn counts(&self, now: i64) -> Vec<(i64, u64, i64)> {
        let mut live: HashMap<i64, u64> = HashMap::new();
        for row in self.by_id.values().flat_map(HashMap::values).flatten() {
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
        self.by_id.retain(|_, owners| {
            owners.retain(|_, rows| {
                rows.retain(|row| row.not_after > now);
                !rows.is_empty()
            });
            !owners.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

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
        }
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
        fn budgets_agree_with_a_plain_list(steps in prop::collection::vec(step(), 1..120), limit in 1..5u32) {
            let (mut live, mut model, mut now) = (Live::default(), Model::default(), 1_000i64);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Issue { name, pod, ttl } => {
                        let workload = workload(name, pod);
                        let room = live.room(&workload, limit, now);
                        prop_assert_eq!(room.is_ok(), model.live(name, pod, now) < limit as usize);
                        if let Err(wait) = room {
                            prop_assert!(live.room(&workload, limit, now + wait).is_ok());
                            continue;
                        }
                        let mut random = [0; 13];
                        random[0] = u8::try_from(number).unwrap();
                        let at = UNIX_EPOCH + Duration::from_millis(now.unsigned_abs());
                        let serial = SerialNumber::generate(at, &random);
                        live.add(&workload, LiveRow { serial, authority: 1, not_after: now + ttl });
                        model.0.push((name, pod, serial, now + ttl, false));
                    }
                    Step::Revoke { nth } => {
                        if let Some(row) = model.0.get_mut(nth) {
                            row.4 = true;
                            live.remove(&workload(row.0, row.1), row.2);
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
