//! The machine beside a model of the world.

mod emergency;
mod verbs;
mod world;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use signet_certs::link::{MAX_LINKS, WALK_AFTER_END};
use signet_certs::signer::SignatureAlgorithm;

use self::world::{AGENTS, Action, HOUR, MINUTE, SKEW, World, action, policy, rotation, settings};
use super::super::operation::Order;
use super::super::policy::{LifePolicy, LifeSettings};
use super::*;

fn seeded() -> ProptestConfig {
    ProptestConfig {
        cases: 150,
        rng_seed: RngSeed::Fixed(8),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    /// Covers INV-8, INV-10, CA-14, CA-16, FED-02, FED-03, CRL-32.
    #[test]
    fn no_course_of_events_breaks_an_invariant(
        lists in any::<bool>(),
        actions in prop::collection::vec(action(), 1..120),
    ) {
        let mut world = World::new();
        world.lists = lists;
        world.step(Event::Start).unwrap();
        let mut sequence = 0;
        for action in &actions {
            world.perform(action);
            world.check();
            prop_assert!(world.sequence >= sequence, "INV-3: the sequence went back");
            sequence = world.sequence;
        }
    }
}

/// Covers CA-16, INV-8.
#[test]
fn left_alone_authorities_follow_each_other_on_schedule() {
    let mut world = World::started();
    for _ in 0..60 {
        world.perform(&Action::WaitForDeadline);
        world.issue(Duration::ZERO);
        world.now += SKEW;
        world.publish();
        (0..AGENTS).for_each(|agent| world.report(agent));
        world.settle();
        world.check();
        assert!(world.set.authorities().len() <= 3, "{:?}", world.set);
    }
    assert!(world.activations.len() > 5, "{:?}", world.activations);
    // From each of those that signed before, links lead to the one that signs, over others that have long left.
    let way = world
        .set
        .links()
        .leading_to(world.set.active().unwrap().id(), world.now);
    let makers: Vec<_> = way.iter().map(|link| link.by).collect();
    let before: Vec<_> = world
        .activations
        .iter()
        .rev()
        .skip(1)
        .take(MAX_LINKS)
        .copied()
        .collect();
    assert_eq!(makers, before);
    world.now += WALK_AFTER_END + 13 * HOUR;
    world.step(Event::Tick).unwrap();
    let kept: Vec<_> = world
        .set
        .links()
        .iter()
        .map(|link| link.not_after >= world.now)
        .collect();
    assert_eq!(kept, [] as [bool; 0], "what has ended goes");
}

#[test]
fn an_empty_journal_prepares_one_that_signs_as_soon_as_it_is_published() {
    let mut world = World::new();
    world.step(Event::Start).unwrap();
    assert!(world.set.active().is_none());
    assert_eq!(world.set.prepared().unwrap().state.name(), "prepared");
    world.publish();
    world.settle();
    assert_eq!(world.activations.len(), 1);
}

/// Covers INV-8.
#[test]
fn a_successor_waits_for_every_agent_and_for_the_spread_time() {
    let mut world = World::started();
    world.orders(rotation(false)).unwrap();
    world.publish();
    (0..AGENTS - 1).for_each(|agent| world.report(agent));
    world.now += 6 * MINUTE;
    world.settle();
    assert_eq!(world.activations.len(), 1);
    world.report(AGENTS - 1);
    world.settle();
    assert_eq!(world.activations.len(), 2);
    assert_eq!(world.set.active().unwrap().author.as_ref(), "admin");
}

#[test]
fn silence_delays_a_successor_no_longer_than_spread_max() {
    let mut world = World::started();
    world.orders(rotation(false)).unwrap();
    world.publish();
    world.now += HOUR - Duration::from_secs(1);
    world.settle();
    assert_eq!(world.activations.len(), 1);
    world.perform(&Action::WaitForDeadline);
    assert_eq!(world.activations.len(), 2);
}

#[test]
fn force_skips_the_spread_but_not_the_publication() {
    let mut world = World::started();
    world.forced = true;
    world.orders(rotation(true)).unwrap();
    world.settle();
    assert_eq!(world.activations.len(), 1);
    world.publish();
    world.settle();
    assert_eq!(world.activations.len(), 2);
}

/// Covers CRL-32, FED-03.
#[test]
fn an_old_authority_leaves_after_its_last_leaf_and_one_more_list() {
    let mut world = World::started();
    let first = world.set.active().unwrap().id();
    world.forced = true;
    world.orders(rotation(true)).unwrap();
    world.publish();
    world.settle();
    // An issuer that had read the authorities a moment earlier.
    world.now += Duration::from_secs(3);
    world.issue(Duration::from_secs(5));
    assert_eq!(world.leaves.last().unwrap().authority, first);
    world.now += HOUR - Duration::from_secs(2);
    world.settle();
    assert!(world.set.get(first).is_some(), "its last leaf lives");
    world.now += Duration::from_secs(10);
    world.settle();
    world.publish();
    assert!(
        world.set.get(first).is_some(),
        "its last list does not show the expiry yet"
    );
    world.now += SKEW;
    world.publish();
    assert!(world.set.get(first).is_none());
    assert!(!world.keys.contains(&first));
}

/// Of a material whose readers know of no lists.
#[test]
fn an_old_authority_without_a_list_leaves_with_its_last_leaf() {
    let mut world = World::new();
    world.lists = false;
    world.step(Event::Start).unwrap();
    world.publish();
    world.settle();
    let first = world.set.active().unwrap().id();
    world.issue(Duration::ZERO);
    world.perform(&Action::Rotate(true));
    world.publish();
    world.settle();
    world.now += HOUR;
    world.publish();
    assert!(world.set.get(first).is_some(), "its last leaf lives");
    world.now += Duration::from_secs(2);
    world.settle();
    world.publish();
    assert!(world.set.get(first).is_none());
    assert!(!world.keys.contains(&first));
}

fn rotate_to(algorithm: Option<SignatureAlgorithm>) -> Event {
    Event::Ordered {
        order: Order::Rotate {
            force: true,
            algorithm,
            retire: false,
        },
        author: "admin".into(),
    }
}

/// What an admin chose stays until he, or the settings, say something else.
#[test]
fn a_successor_signs_with_what_was_asked_for_or_set_or_with_what_its_predecessor_does() {
    use SignatureAlgorithm::{P256, P384};
    let mut world = World::started();
    let mut turn = |set: Option<SignatureAlgorithm>, event: Event| {
        world.policy = LifePolicy::new(LifeSettings {
            algorithm: set,
            ..settings()
        })
        .unwrap();
        world.forced = true;
        world.step(event).unwrap();
        world.publish();
        world.settle();
        world.set.active().unwrap().authority.algorithm
    };
    assert_eq!(turn(None, rotate_to(None)), P256);
    assert_eq!(turn(None, rotate_to(Some(P384))), P384);
    assert_eq!(turn(None, rotate_to(None)), P384);
    assert_eq!(turn(Some(P256), rotate_to(None)), P256);
    assert_eq!(turn(Some(P256), rotate_to(Some(P384))), P384);
    let mut world = World::started();
    world.policy = LifePolicy::new(LifeSettings {
        algorithm: Some(P384),
        ..settings()
    })
    .unwrap();
    world.now += 7 * HOUR;
    world.step(Event::Tick).unwrap();
    assert_eq!(
        world.set.prepared().unwrap().authority.algorithm,
        P384,
        "timers go by the settings too"
    );
}

#[test]
fn a_rotation_under_way_is_not_joined_for_another_algorithm() {
    let mut world = World::started();
    world.step(rotate_to(None)).unwrap();
    let refused = world.step(rotate_to(Some(SignatureAlgorithm::P384)));
    assert!(
        matches!(refused, Err(Refused::OtherAlgorithm { .. })),
        "{refused:?}"
    );
    world.step(rotate_to(Some(SignatureAlgorithm::P256))).unwrap();
}

#[test]
fn a_server_that_slept_too_long_starts_over_at_once() {
    let mut world = World::started();
    world.now += 100 * HOUR;
    world.perform(&Action::Restart);
    world.publish();
    world.settle();
    assert_eq!(world.activations.len(), 2);
    world.now += SKEW;
    world.publish();
    assert_eq!(world.set.authorities().len(), 1);
}

#[test]
fn a_longer_leaf_ttl_is_remembered_for_as_long_as_it_matters() {
    let mut world = World::started();
    let longer = LifeSettings {
        leaf_ttl: 2 * HOUR,
        ..settings()
    };
    world.policy = LifePolicy::new(longer).unwrap();
    world.perform(&Action::Restart);
    assert_eq!(world.set.active().unwrap().longest_leaf_ttl, 2 * HOUR);
    world.policy = policy();
    world.perform(&Action::Restart);
    assert_eq!(world.set.active().unwrap().longest_leaf_ttl, 2 * HOUR);
}

#[test]
fn a_second_preparation_and_a_stray_answer_are_refused() {
    let mut world = World::started();
    world.orders(rotation(false)).unwrap();
    let (active, authority) = (
        world.set.active().unwrap().id(),
        world.make(SignatureAlgorithm::P256),
    );
    let second = Event::Prepared {
        authority,
        activation: Activation::AtOnce,
        author: "admin".into(),
        link: None,
        verb: None,
    };
    assert!(matches!(world.step(second), Err(Refused::AlreadyPrepared(_))));
    let stray = Event::LastLeafExpired { authority: active };
    assert_eq!(world.step(stray), Err(Refused::NotOld(active)));
}

/// Covers INV-16. The clock was a year ahead while timers ran and two witnesses believed it; what was made then cannot sign
/// when it is right again, and the authority that was left for it can.
#[test]
fn an_authority_made_ahead_of_time_gives_its_place_back() {
    let mut world = World::started();
    let good = world.set.active().unwrap().id();
    let right = world.now;
    world.now += 400 * 24 * HOUR;
    world.step(Event::Tick).unwrap();
    world.publish();
    world.settle();
    let early = world.set.active().unwrap().id();
    assert_ne!(early, good);
    world.now = right + MINUTE;
    world.step(Event::Tick).unwrap();
    assert_eq!(world.set.active().unwrap().id(), good);
    assert_eq!(world.set.get(early).unwrap().state.name(), "old");
}

/// Covers INV-16. A server first started in the future has nothing that can sign when the clock is right: it makes another
/// authority at once, and does so only where the time is trusted.
#[test]
fn a_first_start_ahead_of_time_is_left_by_another_authority() {
    let mut world = World::started();
    let early = world.set.active().unwrap().id();
    world.now -= 24 * HOUR;
    let untrusted = Context {
        at: Moment {
            trusted: false,
            ..world.context().at
        },
        ..world.context()
    };
    assert_eq!(world.set.apply(Event::Tick, &untrusted).unwrap().next, world.set);
    world.step(Event::Tick).unwrap();
    world.publish();
    world.settle();
    let active = world.set.active().unwrap();
    assert_ne!(active.id(), early);
    assert!(!active.is_useless(world.now));
}

/// Timers rotate, and authorities end, by settled time alone.
#[test]
fn without_settled_time_no_timer_acts() {
    let mut world = World::started();
    world.now += 11 * HOUR;
    let unsettled = Context {
        at: Moment {
            settled: None,
            ..world.context().at
        },
        ..world.context()
    };
    let transition = world.set.apply(Event::Tick, &unsettled).unwrap();
    assert_eq!((&transition.next, transition.effects), (&world.set, Vec::new()));
    assert!(
        world
            .set
            .next_deadline(&unsettled)
            .is_none_or(|deadline| deadline > world.now)
    );
    world.step(Event::Tick).unwrap();
    assert!(world.set.prepared().is_some());
}
