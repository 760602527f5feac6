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

/// Whoever goes, in whatever order: each that stays is found, and none that went.
#[test]
fn an_identity_has_the_budgets_that_did_not_go() {
    let mut live = Live::default();
    let id = workload(1, 0).spiffe_id;
    let slots: Vec<Slot> = (0..40).map(|pod| slot(&mut live, &workload(1, pod))).collect();
    let mut left: Vec<usize> = (0..40).collect();
    for step in 0..40usize {
        let gone = left.remove(step * 7 % left.len());
        live.leave(slots[gone]);
        let mut found: Vec<usize> = live
            .by_id
            .get(&id)
            .into_iter()
            .flatten()
            .map(|slot| slot.0)
            .collect();
        found.sort_unstable();
        assert_eq!(found, left.iter().map(|nth| slots[*nth].0).collect::<Vec<_>>());
    }
    assert!(live.by_id.is_empty());
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
                Step::Sweep => {
                    let mut next = Some(0);
                    while let Some(from) = next {
                        next = live.sweep(now, from, 2);
                    }
                }
            }
            let open = model.0.iter().filter(|row| row.3 > now && !row.4).count() as u64;
            prop_assert_eq!(live.counts(now).iter().map(|count| count.1).sum::<u64>(), open);
        }
    }
}
