//! Whole lives of a cache, drawn at random; the invariants are checked after each step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use signet_testkit::at;

use super::testing::{FakeTrust, authority, id, leaf, new_cache, pod};
use super::*;
use crate::time::Moment;

#[derive(Clone, Debug)]
enum Step {
    Evidence {
        pod: u8,
        life: u64,
    },
    Absent {
        pod: u8,
    },
    Remove {
        pod: u8,
    },
    Trust {
        present: u8,
        tainted: u8,
    },
    RevokeHeld {
        pod: u8,
    },
    Policy {
        revision: u64,
    },
    Affected {
        pod: Option<u8>,
    },
    ServerBack,
    Advance {
        seconds: u64,
    },
    /// Somebody sets the clock.
    Skew {
        seconds: i64,
    },
    Ask {
        limit: usize,
    },
    Issued {
        pick: usize,
        signer: u8,
        life: u64,
        count: u8,
        first: u8,
        u: f64,
    },
    Refused {
        pick: usize,
        revision: u64,
    },
    Failed {
        pick: usize,
        u: f64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let unit = || 0.0..1.0_f64;
    prop_oneof![
        1 => (0..3u8, 0..5000u64).prop_map(|(pod, life)| Step::Evidence { pod, life }),
        1 => (0..3u8).prop_map(|pod| Step::Absent { pod }),
        1 => (0..3u8).prop_map(|pod| Step::Remove { pod }),
        1 => (0..8u8, 0..8u8).prop_map(|(present, tainted)| Step::Trust { present, tainted }),
        1 => (0..3u8).prop_map(|pod| Step::RevokeHeld { pod }),
        1 => (0..3u64).prop_map(|revision| Step::Policy { revision }),
        1 => proptest::option::of(0..3u8).prop_map(|pod| Step::Affected { pod }),
        1 => Just(Step::ServerBack),
        1 => (0..2500u64).prop_map(|seconds| Step::Advance { seconds }),
        1 => prop_oneof![Just(0), -86_400..35_000_000_i64].prop_map(|seconds| Step::Skew { seconds }),
        4 => (1..5usize).prop_map(|limit| Step::Ask { limit }),
        6 => (0..8usize, 0..3u8, 1..4000u64, 1..4u8, 0..3u8, unit()).prop_map(
            |(pick, signer, life, count, first, u)| Step::Issued { pick, signer, life, count, first, u }
        ),
        1 => (0..8usize, 0..3u64).prop_map(|(pick, revision)| Step::Refused { pick, revision }),
        2 => (0..8usize, unit()).prop_map(|(pick, u)| Step::Failed { pick, u }),
    ]
}

struct World {
    cache: Cache,
    /// By elapsed time.
    now: Duration,
    /// What the date is ahead by, in seconds; negative behind.
    skew: i64,
    trust: FakeTrust,
    in_flight: Vec<Wanted>,
    issued: u32,
}

impl World {
    fn new() -> Self {
        Self {
            cache: new_cache(),
            now: Duration::ZERO,
            skew: 0,
            trust: FakeTrust::default(),
            in_flight: Vec::new(),
            issued: 0,
        }
    }

    fn moment(&self) -> Moment {
        let date = at(0) + self.now;
        let by = Duration::from_secs(self.skew.unsigned_abs());
        Moment {
            date: if self.skew < 0 { date - by } else { date + by },
            elapsed: self.now,
        }
    }

    fn push_trust(&mut self) {
        self.cache.set_trust(Arc::new(self.trust.clone()), self.moment());
    }

    fn ask(&mut self, limit: usize) {
        let wanted = self.cache.due(self.moment(), limit);
        assert!(wanted.len() <= limit);
        for new in wanted {
            let twice = self.in_flight.iter().any(|old| old.slot == new.slot);
            assert!(
                !twice,
                "a second request for an identity whose first one is in flight"
            );
            self.in_flight.push(new);
        }
    }

    fn take(&mut self, pick: usize) -> Option<Wanted> {
        let count = self.in_flight.len();
        (count > 0).then(|| self.in_flight.swap_remove(pick % count))
    }

    /// Answers as a server would: the default is the first of the list.
    fn issue(&mut self, wanted: &Wanted, signer: u8, life: u64, list: &[u8], u: f64) {
        let identities: Vec<_> = list
            .iter()
            .map(|name| (id(*name), format!("hint-{name}")))
            .collect();
        let spiffe_id = wanted
            .spiffe_id
            .clone()
            .unwrap_or_else(|| identities[0].0.clone());
        self.issued += 1;
        let leaf = leaf(&spiffe_id, self.issued, signer, at(0) + self.now, life);
        self.cache
            .issued(wanted, Issued { leaf, identities }, self.moment(), u);
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each step")]
    fn apply(&mut self, step: Step) {
        let now = self.moment();
        match step {
            Step::Evidence { pod: name, life } => {
                self.cache
                    .set_evidence(&pod(name), Evidence::Until(now.date + Duration::from_secs(life)));
            }
            Step::Absent { pod: name } => self.cache.set_evidence(&pod(name), Evidence::Absent),
            Step::Remove { pod: name } => self.cache.remove(&pod(name)),
            Step::Trust { present, tainted } => {
                let chosen = |mask: u8| {
                    (0..3)
                        .filter(|bit| mask & (1 << bit) != 0)
                        .map(authority)
                        .collect()
                };
                self.trust.present = chosen(present);
                self.trust.tainted = chosen(tainted);
                self.push_trust();
            }
            Step::RevokeHeld { pod: name } => {
                let held = self
                    .cache
                    .status(&pod(name), now)
                    .into_iter()
                    .filter_map(|slot| slot.leaf);
                self.trust.revoked.extend(held.map(|leaf| leaf.serial));
                self.push_trust();
            }
            Step::Policy { revision } => self.cache.set_policy_revision(revision, now),
            Step::Affected { pod: None } => self.cache.affected(&Affected::All, now),
            Step::Affected { pod: Some(name) } => {
                self.cache
                    .affected(&Affected::Pods(vec![format!("uid-{name}")]), now);
            }
            Step::ServerBack => self.cache.server_back(now),
            Step::Advance { seconds } => self.now += Duration::from_secs(seconds),
            Step::Skew { seconds } => self.skew = seconds,
            Step::Ask { limit } => self.ask(limit),
            Step::Issued {
                pick,
                signer,
                life,
                count,
                first,
                u,
            } => {
                if let Some(wanted) = self.take(pick) {
                    let list: Vec<u8> = (0..count).map(|offset| (first + offset) % 4).collect();
                    self.issue(&wanted, signer, life, &list, u);
                }
            }
            Step::Refused { pick, revision } => {
                if let Some(wanted) = self.take(pick) {
                    let verdict = Verdict {
                        message: "denied".to_owned(),
                        policy_revision: revision,
                    };
                    self.cache.refused(&wanted, verdict, now);
                }
            }
            Step::Failed { pick, u } => {
                if let Some(wanted) = self.take(pick) {
                    self.cache.failed(&wanted, &Failure::new("away"), now, u);
                }
            }
        }
    }

    fn check(&mut self) {
        let ids: Vec<_> = self.cache.workloads.keys().cloned().collect();
        for workload in &ids {
            let Some(CacheState::Ready(leaves)) = self.cache.state(workload, self.moment()) else {
                continue;
            };
            assert!(!leaves.is_empty(), "ready without a leaf");
            let names: BTreeSet<_> = leaves
                .iter()
                .map(|granted| &granted.leaf.svid.spiffe_id)
                .collect();
            assert_eq!(names.len(), leaves.len(), "one leaf for each identity");
            for Granted { leaf, .. } in leaves {
                assert!(
                    leaf.svid.not_after > self.moment().date,
                    "an expired leaf is published"
                );
                assert!(
                    self.trust.present.contains(&leaf.authority),
                    "a leaf without its authority"
                );
                assert!(
                    !self.trust.revoked.contains(&leaf.serial),
                    "a revoked leaf is published"
                );
            }
            self.cache.published(workload);
        }
    }

    /// With a healthy server every workload becomes ready in bounded time and without asking endlessly.
    fn settle(&mut self) {
        self.skew = 0;
        self.now += Duration::from_secs(60);
        self.trust.present = (0..3).map(authority).collect();
        self.trust.tainted.clear();
        self.push_trust();
        let ids: Vec<_> = self.cache.workloads.keys().cloned().collect();
        for workload in &ids {
            self.cache.set_evidence(
                workload,
                Evidence::Until(self.moment().date + Duration::from_secs(100_000)),
            );
        }
        self.cache.server_back(self.moment());
        for _round in 0..20 {
            self.ask(1000);
            while let Some(wanted) = self.take(0) {
                self.issue(&wanted, 0, 3600, &[1, 2], 0.5);
            }
            self.check();
            let due = self.cache.due(self.moment(), 1000);
            self.in_flight.extend(due);
            if self.in_flight.is_empty() {
                break;
            }
        }
        assert!(self.in_flight.is_empty(), "asks without end");
        let next = self.cache.next_deadline(self.moment());
        assert!(next.is_none_or(|next| next > self.now), "the worker would spin");
        for workload in &ids {
            let state = self.cache.state(workload, self.moment());
            assert!(
                matches!(state, Some(CacheState::Ready(_))),
                "{workload:?} stays {state:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, rng_seed: RngSeed::Fixed(9), failure_persistence: None, ..ProptestConfig::default() })]

    /// Covers X5S-12, X5S-14, CRL-35.
    #[test]
    fn every_life_keeps_the_invariants(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
            world.check();
        }
        world.settle();
    }
}
