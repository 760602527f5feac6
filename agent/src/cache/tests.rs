//! One behaviour each.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::serial::SerialNumber;
use signet_testkit::at;

use super::testing::{FakeTrust, authority, id, leaf, m, new_cache, pod, trusting};
use super::*;

struct Bench {
    cache: Cache,
    trust: FakeTrust,
    issued: u32,
}

impl Bench {
    /// One pod with a token for ever, authority 0 in the bundle, policy revision 1.
    fn new() -> Self {
        let mut cache = new_cache();
        let trust = trusting(&[0]);
        cache.set_trust(Arc::new(trust.clone()), m(0));
        cache.set_policy_revision(1, m(0));
        cache.set_evidence(&pod(0), Evidence::Until(at(1_000_000)));
        Self {
            cache,
            trust,
            issued: 0,
        }
    }

    fn due(&mut self, seconds: u64) -> Vec<Wanted> {
        self.cache.due(m(seconds), 100)
    }

    fn issue(&mut self, wanted: &Wanted, list: &[u8], seconds: u64) {
        self.issued += 1;
        let identities: Vec<_> = list.iter().map(|name| (id(*name), String::new())).collect();
        let spiffe_id = wanted
            .spiffe_id
            .clone()
            .unwrap_or_else(|| identities[0].0.clone());
        let leaf = leaf(&spiffe_id, self.issued, 0, at(seconds), 3600);
        self.cache
            .issued(wanted, Issued { leaf, identities }, m(seconds), 0.5);
    }

    fn serve(&mut self, list: &[u8], seconds: u64) {
        loop {
            let wanted = self.due(seconds);
            if wanted.is_empty() {
                break;
            }
            wanted.iter().for_each(|wanted| self.issue(wanted, list, seconds));
        }
        self.cache.published(&pod(0));
    }

    fn push_trust(&mut self, seconds: u64) {
        self.cache.set_trust(Arc::new(self.trust.clone()), m(seconds));
    }

    fn names(&self, seconds: u64) -> Vec<String> {
        match self.cache.state(&pod(0), m(seconds)) {
            Some(CacheState::Ready(leaves)) => leaves
                .iter()
                .map(|granted| granted.leaf.svid.spiffe_id.clone())
                .collect(),
            other => panic!("not ready: {other:?}"),
        }
    }

    fn serial(&self) -> SerialNumber {
        self.cache.status(&pod(0), m(0))[0].leaf.as_ref().unwrap().serial
    }

    fn problem(&self, seconds: u64) -> String {
        match self.cache.state(&pod(0), m(seconds)) {
            Some(CacheState::Pending { problem }) => problem.unwrap_or_default(),
            other => panic!("not pending: {other:?}"),
        }
    }
}

fn verdict(revision: u64) -> Verdict {
    Verdict {
        message: "no rule matches".to_owned(),
        policy_revision: revision,
    }
}

/// Covers API-13, X5S-02.
#[test]
fn the_first_answer_is_complete_and_in_the_servers_order() {
    let mut bench = Bench::new();
    let first = bench.due(0);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].spiffe_id, None);
    bench.issue(&first[0], &[3, 1, 2], 0);
    assert!(
        matches!(bench.cache.state(&pod(0), m(0)), Some(CacheState::Pending { .. })),
        "two are missing"
    );
    let others = bench.due(0);
    assert_eq!(
        others
            .iter()
            .map(|wanted| wanted.spiffe_id.clone())
            .collect::<Vec<_>>(),
        [Some(id(1)), Some(id(2))]
    );
    others
        .iter()
        .for_each(|wanted| bench.issue(wanted, &[3, 1, 2], 0));
    assert_eq!(bench.names(0), [3, 1, 2].map(|name| id(name).as_str().to_owned()));
}

/// Covers X5S-12.
#[test]
fn renewal_is_due_near_half_life() {
    let mut bench = Bench::new();
    bench.serve(&[1], 0);
    assert!(bench.due(1799).is_empty());
    assert_eq!(
        bench.due(1800).len(),
        1,
        "jitter 0.5 is the middle of 45 to 55 percent"
    );
}

/// Covers INV-9.
#[test]
fn a_failed_renewal_keeps_the_last_good_leaf_until_it_expires() {
    let mut bench = Bench::new();
    bench.serve(&[1], 0);
    let wanted = bench.due(1800).remove(0);
    bench
        .cache
        .failed(&wanted, &Failure::new("server is away"), m(1800), 0.0);
    assert_eq!(bench.names(3599).len(), 1);
    assert_eq!(bench.problem(3600), "server is away");
    assert!(bench.due(1800).is_empty(), "the backoff holds");
    assert_eq!(bench.due(1801).len(), 1, "and ends");
}

#[test]
fn the_servers_retry_hint_outlasts_a_shorter_backoff() {
    let mut bench = Bench::new();
    let wanted = bench.due(0).remove(0);
    let failure = Failure {
        message: "budget".to_owned(),
        retry_after: Some(Duration::from_secs(300)),
    };
    bench.cache.failed(&wanted, &failure, m(0), 0.0);
    assert!(bench.due(299).is_empty());
    assert_eq!(bench.due(300).len(), 1);
}

/// Covers X5S-11, API-14.
#[test]
fn a_verdict_withdraws_at_once_and_stands_until_the_policy_changes() {
    let mut bench = Bench::new();
    bench.serve(&[1], 0);
    let wanted = bench.due(1800).remove(0);
    bench.cache.refused(&wanted, verdict(1), m(1800));
    let state = bench.cache.state(&pod(0), m(1800));
    assert!(matches!(state, Some(CacheState::Refused { message }) if message == "no rule matches"));
    assert!(bench.due(900_000).is_empty());
    bench.cache.set_policy_revision(1, m(900_000));
    assert!(bench.due(900_000).is_empty(), "the same revision is no news");
    bench.cache.set_policy_revision(2, m(900_000));
    assert_eq!(bench.due(900_000).len(), 1);
}

#[test]
fn a_verdict_in_doubt_is_not_told_while_nobody_can_be_proved() {
    let mut bench = Bench::new();
    bench.cache.set_evidence(&pod(0), Evidence::Live);
    let wanted = bench.due(0).remove(0);
    bench.cache.refused(&wanted, verdict(1), m(0));
    bench.cache.set_evidence(&pod(0), Evidence::Absent);
    assert!(
        matches!(bench.cache.state(&pod(0), m(1)), Some(CacheState::Refused { .. })),
        "it stands"
    );
    bench.cache.affected(&Affected::All, m(2));
    assert!(bench.problem(2).contains("nothing proves the workload"));
}

#[test]
fn a_refused_pod_that_is_named_as_affected_is_asked_for_again() {
    let mut bench = Bench::new();
    let wanted = bench.due(0).remove(0);
    bench.cache.refused(&wanted, verdict(1), m(0));
    bench
        .cache
        .affected(&Affected::Pods(vec!["uid-7".to_owned()]), m(1));
    assert!(bench.due(1).is_empty());
    bench
        .cache
        .affected(&Affected::Pods(vec!["uid-0".to_owned()]), m(1));
    assert_eq!(bench.due(1).len(), 1);
}

#[test]
fn news_during_a_request_is_followed_by_another_request() {
    let mut bench = Bench::new();
    let wanted = bench.due(0).remove(0);
    bench
        .cache
        .affected(&Affected::Pods(vec!["uid-0".to_owned()]), m(0));
    assert!(bench.due(0).is_empty(), "one request at a time");
    bench.issue(&wanted, &[1], 0);
    assert_eq!(bench.due(0).len(), 1, "the answer may be older than the news");
}

#[test]
fn a_denied_identity_leaves_the_others_served() {
    let mut bench = Bench::new();
    bench.serve(&[1, 2], 0);
    bench
        .cache
        .affected(&Affected::Pods(vec!["uid-0".to_owned()]), m(10));
    let wanted = bench.due(10);
    bench.cache.refused(&wanted[0], verdict(1), m(10));
    bench.issue(&wanted[1], &[1, 2], 10);
    assert_eq!(bench.names(10), [id(2).as_str()]);
}

#[test]
fn an_identity_that_is_no_longer_listed_is_withdrawn() {
    let mut bench = Bench::new();
    bench.serve(&[1, 2], 0);
    bench
        .cache
        .affected(&Affected::Pods(vec!["uid-0".to_owned()]), m(10));
    bench.serve(&[1], 10);
    assert_eq!(bench.names(10), [id(1).as_str()]);
}

#[test]
fn a_changed_default_keeps_the_former_one_served() {
    let mut bench = Bench::new();
    bench.serve(&[1, 2], 0);
    bench
        .cache
        .affected(&Affected::Pods(vec!["uid-0".to_owned()]), m(10));
    let wanted = bench.due(10);
    bench.issue(&wanted[0], &[2, 1], 10);
    assert_eq!(bench.names(10), [id(2).as_str(), id(1).as_str()]);
}

/// Covers CRL-35.
#[test]
fn a_revoked_serial_is_withdrawn_and_replaced_at_once() {
    let mut bench = Bench::new();
    bench.serve(&[1], 0);
    bench.trust.revoked.insert(bench.serial());
    bench.push_trust(10);
    assert!(matches!(
        bench.cache.state(&pod(0), m(10)),
        Some(CacheState::Pending { .. })
    ));
    let wanted = bench.due(10).remove(0);
    bench.issue(&wanted, &[1], 10);
    assert_eq!(bench.names(10).len(), 1);
}

#[test]
fn a_tainted_authority_is_left_within_the_spread() {
    let mut bench = Bench::new();
    bench.serve(&[1], 0);
    bench.trust.tainted.insert(authority(0));
    bench.push_trust(100);
    assert!(bench.due(104).is_empty(), "jitter 0.5 of ten seconds");
    bench.push_trust(104);
    assert_eq!(bench.due(105).len(), 1, "a second push does not postpone it");
    assert_eq!(bench.names(105).len(), 1, "the tainted leaf serves until then");
}

/// Covers X5S-14.
#[test]
fn a_leaf_of_an_unknown_authority_is_never_published() {
    let mut bench = Bench::new();
    let wanted = bench.due(0).remove(0);
    let leaf = leaf(&id(1), 1, 9, at(0), 3600);
    bench.cache.issued(
        &wanted,
        Issued {
            leaf,
            identities: vec![(id(1), String::new())],
        },
        m(0),
        0.5,
    );
    assert!(bench.problem(0).contains("not in the trust bundle"));
}

#[test]
fn an_authority_that_leaves_the_bundle_takes_its_leaves_along() {
    let mut bench = Bench::new();
    bench.serve(&[1], 0);
    bench.trust = trusting(&[1]);
    bench.push_trust(10);
    assert!(matches!(
        bench.cache.state(&pod(0), m(10)),
        Some(CacheState::Pending { .. })
    ));
    assert_eq!(bench.due(10).len(), 1);
}

#[test]
fn an_expired_token_asks_nothing_and_says_so_until_a_new_one_comes() {
    let mut bench = Bench::new();
    bench.cache.set_evidence(&pod(0), Evidence::Until(at(10)));
    assert!(bench.due(10).is_empty());
    assert!(
        bench.problem(10).contains("token expired"),
        "{}",
        bench.problem(10)
    );
    bench.cache.set_evidence(&pod(0), Evidence::Until(at(3610)));
    assert_eq!(bench.due(10).len(), 1);
}

#[test]
fn a_new_token_ends_the_waiting_for_a_retry() {
    let mut bench = Bench::new();
    let wanted = bench.due(0).remove(0);
    let failure = Failure {
        message: "not attested".to_owned(),
        retry_after: Some(Duration::from_secs(600)),
    };
    bench.cache.failed(&wanted, &failure, m(0), 0.0);
    bench.cache.set_evidence(&pod(0), Evidence::Until(at(2_000_000)));
    assert_eq!(bench.due(1).len(), 1);
}

/// A workload that cannot be asked for again, since its token has expired, would say it for ever.
#[test]
fn what_failed_while_the_server_was_away_is_not_said_once_it_is_back() {
    let mut bench = Bench::new();
    bench.serve(&[1], 0);
    bench.cache.affected(&Affected::All, m(1));
    let wanted = bench.due(11).remove(0);
    bench
        .cache
        .failed(&wanted, &Failure::new("not attested yet"), m(11), 0.0);
    bench.cache.set_evidence(&pod(0), Evidence::Until(at(12)));
    let said = |bench: &Bench| bench.cache.status(&pod(0), m(13))[0].problem.clone();
    assert_eq!(said(&bench).as_deref(), Some("not attested yet"));
    bench.cache.server_back(m(13));
    assert_eq!(said(&bench), None);
    assert_eq!(bench.names(13).len(), 1, "it is served meanwhile");
}

#[test]
fn an_answer_for_a_workload_that_came_back_is_ignored() {
    let mut bench = Bench::new();
    let wanted = bench.due(0).remove(0);
    bench.cache.remove(&pod(0));
    bench.cache.set_evidence(&pod(0), Evidence::Until(at(3600)));
    bench.issue(&wanted, &[1], 0);
    assert!(matches!(
        bench.cache.state(&pod(0), m(0)),
        Some(CacheState::Pending { .. })
    ));
    assert_eq!(bench.due(0).len(), 1);
}

#[test]
fn an_answer_with_another_identity_than_asked_is_a_failure() {
    let mut bench = Bench::new();
    let first = bench.due(0).remove(0);
    bench.issue(&first, &[1, 2], 0);
    let second = bench.due(0).remove(0);
    let leaf = leaf(&id(1), 50, 0, at(0), 3600);
    let identities = vec![(id(1), String::new()), (id(2), String::new())];
    bench
        .cache
        .issued(&second, Issued { leaf, identities }, m(0), 0.5);
    assert_eq!(bench.names(0), [id(1).as_str()]);
}

/// The date goes to another and comes back: nothing is thrown away, and nothing asked for again and again.
#[test]
fn a_date_that_jumps_takes_no_leaf_and_repeats_no_question() {
    let dated = |date: u64, elapsed: u64| Moment {
        date: at(date),
        elapsed: Duration::from_secs(elapsed),
    };
    let mut bench = Bench::new();
    bench.serve(&[1], 100);
    let serial = bench.serial();
    // Ahead, for 75 seconds, while answers arrive that have ended by that date.
    let mut questions = 0;
    for second in 0..75 {
        let now = dated(100 + 5400 + second, 100 + second);
        for wanted in bench.cache.due(now, 100) {
            questions += 1;
            let fresh = leaf(&id(1), 100 + questions, 0, at(100 + second), 3600);
            let identities = vec![(id(1), String::new())];
            bench.cache.issued(
                &wanted,
                Issued {
                    leaf: fresh,
                    identities,
                },
                now,
                0.5,
            );
        }
        let state = bench.cache.state(&pod(0), now);
        assert!(
            matches!(state, Some(CacheState::Pending { .. })),
            "nothing that has ended is published"
        );
    }
    assert!(questions <= 2, "{questions} questions for one date");
    assert_eq!(bench.names(180).len(), 1, "at once when the date is back");
    // Behind: served, and renewed in its time.
    let mut bench = Bench::new();
    bench.serve(&[1], 10_000);
    let behind = |elapsed: u64| dated(elapsed - 7200, elapsed);
    assert!(bench.cache.due(behind(10_001), 100).is_empty());
    assert_eq!(bench.cache.due(behind(11_800), 100).len(), 1);
    assert_ne!(serial, bench.serial());
}

#[test]
fn a_failure_is_waited_out_by_elapsed_time_whatever_the_date() {
    let mut bench = Bench::new();
    let ahead = Moment {
        date: at(1000 + 5400),
        elapsed: Duration::from_secs(1000),
    };
    let wanted = bench.cache.due(ahead, 100).remove(0);
    bench.cache.failed(&wanted, &Failure::new("away"), ahead, 0.0);
    assert_eq!(bench.due(1001).len(), 1);
}
