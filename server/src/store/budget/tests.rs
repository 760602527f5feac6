use proptest::prelude::*;
use signet_certs::time::from_unix_millis;

use super::*;

const START: i64 = 1_800_000_000_000;

fn at(millis: i64) -> SystemTime {
    from_unix_millis(START + millis)
}

fn budget(free: u32, share: AgentShare) -> Budget {
    Budget { free, share }
}

fn wait_of(refused: Result<u32, Spent>) -> Duration {
    refused.unwrap_err().retry_after
}

#[test]
fn beyond_the_free_ones_the_oldest_are_displaced_and_then_six_a_minute() {
    let pods = budget(
        8,
        AgentShare::Pods {
            pods: 1,
            identities: 1,
        },
    );
    let (mut bucket, mut agent) = (Bucket::default(), AgentBudget::default());
    let mut take = |live, now| take(&pods, live, &mut bucket, &mut agent, at(now));
    for live in 0..8 {
        assert_eq!(take(live, 0), Ok(0));
    }
    for live in 8..72 {
        assert_eq!(take(live, 0), Ok(live - 7));
    }
    assert_eq!(wait_of(take(72, 0)), Duration::from_secs(10));
    assert_eq!(take(72, 10_000), Ok(65));
    assert_eq!(
        wait_of(take(73, 10_500)),
        Duration::from_secs(10),
        "whole seconds"
    );
    assert_eq!(take(7, 10_500), Ok(0), "what is free is free");
}

#[test]
fn an_agent_may_have_what_its_pods_may_and_on_its_word_a_fixed_number() {
    let count = |share, free| {
        let (budget, mut agent, mut given) = (budget(free, share), AgentBudget::default(), 0u32);
        while take(&budget, 0, &mut Bucket::default(), &mut agent, at(0)).is_ok() {
            given += 1;
        }
        given
    };
    let pods = |pods, identities| AgentShare::Pods { pods, identities };
    assert_eq!(count(pods(0, 1), 8), 64 * 16);
    assert_eq!(count(pods(16, 2), 8), 64 * 32);
    assert_eq!(count(pods(100, 1), 8), 64 * 100);
    assert_eq!(count(pods(0, 1), 128), 128 * 16, "never less than what is free");
    assert_eq!(count(AgentShare::ItsWord, 8), 256);
}

#[test]
fn what_an_agent_invents_takes_nothing_from_its_pods_nor_from_itself() {
    let (mut agent, word) = (AgentBudget::default(), budget(8, AgentShare::ItsWord));
    while take(&word, 0, &mut Bucket::default(), &mut agent, at(0)).is_ok() {}
    for share in [
        AgentShare::Pods {
            pods: 1,
            identities: 1,
        },
        AgentShare::Itself,
    ] {
        take(&budget(8, share), 0, &mut Bucket::default(), &mut agent, at(0)).unwrap();
    }
    assert!(!agent.is_full(at(500_000)));
    assert!(agent.is_full(at(512_000)));
}

#[test]
fn a_node_that_gets_more_pods_has_more_at_once_and_one_that_loses_them_owes_nothing() {
    let (mut agent, mut given) = (AgentBudget::default(), 0);
    let mut ask = |pods| {
        let budget = budget(8, AgentShare::Pods { pods, identities: 1 });
        while take(&budget, 0, &mut Bucket::default(), &mut agent, at(0)).is_ok() {
            given += 1;
        }
        given
    };
    assert_eq!(ask(16), 64 * 16);
    assert_eq!(ask(32), 64 * 16, "what is used up is a part of what there is");
    assert_eq!(ask(16), 64 * 16, "and goes up and down with it");
}

/// What was used up while the clock was ahead holds up nobody once it is right; a clock that is slewed gives nothing back.
#[test]
fn a_clock_that_was_far_ahead_leaves_a_full_bucket_and_one_that_was_a_little_an_empty_one() {
    for (back, expected) in [(24 * 3600 * 1000, Ok(1)), (200_000, Err(Duration::from_secs(10)))] {
        let itself = budget(1, AgentShare::Itself);
        let (mut bucket, mut agent) = (Bucket::default(), AgentBudget::default());
        while take(&itself, 1, &mut bucket, &mut agent, at(back)).is_ok() {}
        let taken = take(&itself, 1, &mut bucket, &mut agent, at(0));
        assert_eq!(taken.map_err(|spent| spent.retry_after), expected);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask,
    Flood,
    Pass(i64),
    GoBack(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Ask),
        1 => Just(Step::Flood),
        3 => (0..120_000i64).prop_map(Step::Pass),
        1 => (0..86_400_000i64).prop_map(Step::GoBack),
    ]
}

fn share() -> impl Strategy<Value = AgentShare> {
    prop_oneof![
        Just(AgentShare::Itself),
        (0..200u32, 1..4u32).prop_map(|(pods, identities)| AgentShare::Pods { pods, identities }),
        Just(AgentShare::ItsWord),
    ]
}

proptest! {
    /// Whatever happened, clocks that go back included: who is refused waits at most a minute, and gets a certificate when
    /// it has waited as long as it was told; and nobody gets more than a bucket, one more for each time that the clock went
    /// far back, and what has dripped into it.
    #[test]
    fn nobody_is_locked_out_and_nobody_floods(
        steps in prop::collection::vec(step(), 1..60), share in share(), free in 1..10u32
    ) {
        let budget = budget(free, share);
        let (mut bucket, mut agent) = (Bucket::default(), AgentBudget::default());
        let (mut now, mut live, mut given, mut passed, mut leaps) = (0i64, 0u32, 0i64, 0i64, 0i64);
        for step in steps {
            let asked = match step {
                Step::Ask => 1,
                Step::Flood => 400,
                Step::Pass(ms) => { now += ms; passed += ms; 0 }
                Step::GoBack(ms) => { now -= ms; leaps += i64::from(ms * 1000 > SET_BACK); 0 }
            };
            for _ in 0..asked {
                let (mut then, mut tries) = (at(now), 0);
                // The other budget may be short when the first is not any more; it too asks for no more than a minute.
                while let Err(Spent { retry_after, .. }) = take(&budget, live, &mut bucket, &mut agent, then) {
                    prop_assert!(retry_after <= Duration::from_secs(60));
                    then += retry_after;
                    tries += 1;
                    prop_assert!(tries <= 2);
                }
                let waited = then.duration_since(at(now)).unwrap().as_millis();
                let waited = i64::try_from(waited).unwrap();
                (now, passed) = (now + waited, passed + waited);
                (live, given) = (live + 1, given + 1);
                if tries > 0 {
                    break;
                }
            }
        }
        let most = i64::from(free) + 64 * (1 + leaps) + passed / 10_000;
        prop_assert!(given <= most, "{given} > {most}");
    }
}
