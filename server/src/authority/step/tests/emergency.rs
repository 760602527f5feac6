//! A key is stolen.

use signet_certs::authority::AuthorityId;
use signet_certs::signer::SignatureAlgorithm;

use super::super::super::operation::{Order, Stage, Verb};
use super::super::super::policy::{EmergencySettings, LifePolicy, LifeSettings};
use super::world::{AGENTS, Action, HOUR, MINUTE, World, retirement, rotation, settings};
use super::*;

fn in_emergency(world: &mut World) -> Result<(), Refused> {
    world.orders(Order::Emergency { algorithm: None })
}

fn state(world: &World, id: AuthorityId) -> Option<&'static str> {
    world.set.get(id).map(|record| record.state.name())
}

/// Everyone's workload uses the first; another has spread.
fn with_a_successor() -> (World, AuthorityId, AuthorityId) {
    let mut world = World::started();
    let stolen = world.set.active().unwrap().id();
    (0..AGENTS).for_each(|agent| world.renew(agent));
    world.orders(Order::Prepare { algorithm: None }).unwrap();
    let beside = world.set.prepared().unwrap().id();
    world.publish();
    (0..AGENTS).for_each(|agent| world.report(agent));
    (world, stolen, beside)
}

#[test]
fn the_bundle_comes_first_and_then_all_before_it_leave_whoever_has_reported() {
    let (mut world, stolen, beside) = with_a_successor();
    in_emergency(&mut world).unwrap();
    let new = world.set.prepared().unwrap().id();
    assert_ne!(new, beside, "whoever has one key may have the other");
    assert_eq!(state(&world, beside), Some("tainted"));
    world.publish();
    world.settle();
    assert_eq!(
        world.set.active().unwrap().id(),
        stolen,
        "agents that are connected have yet to say that they hold it"
    );
    (0..AGENTS).for_each(|agent| world.report(agent));
    world.settle();
    assert_eq!(world.set.active().unwrap().id(), new);
    assert_eq!(
        state(&world, stolen),
        Some("tainted"),
        "agents replace what it has signed"
    );
    let begun = world.now;
    world.publish();
    world.settle();
    world.now = begun + 2 * MINUTE - Duration::from_millis(1);
    world.settle();
    assert!(world.set.get(stolen).is_some() && world.set.get(beside).is_some());
    world.perform(&Action::WaitForDeadline);
    assert_eq!(world.now, begun + 2 * MINUTE);
    assert_eq!(world.set.authorities().len(), 1, "nobody has reported");
    for id in [stolen, beside] {
        assert_eq!(world.set.departed().get(id).unwrap().left.name(), "emergency");
    }
    assert_eq!(world.last_operation(), Some((Verb::Emergency, Stage::Telling)));
    world.publish();
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Emergency, Stage::Done)));
}

#[test]
fn silence_delays_it_for_five_seconds() {
    let (mut world, stolen, _) = with_a_successor();
    in_emergency(&mut world).unwrap();
    world.publish();
    world.settle();
    world.now += Duration::from_secs(5) - Duration::from_millis(1);
    world.settle();
    assert_eq!(world.set.active().unwrap().id(), stolen);
    world.perform(&Action::WaitForDeadline);
    assert_ne!(world.set.active().unwrap().id(), stolen);
}

/// Where a thief could send a bundle too, what he cannot send comes first, and nobody is waited for but those whose own certificates are of
/// what was stolen.
#[test]
fn where_the_bundle_proves_nothing_another_signs_at_once_and_every_agent_attests_anew() {
    let mut world = World::started();
    let stolen = world.set.active().unwrap().id();
    (0..AGENTS).for_each(|agent| world.attest(agent));
    world.policy = LifePolicy::new(LifeSettings {
        emergency: EmergencySettings {
            grace: MINUTE,
            bundle_first: false,
        },
        ..settings()
    })
    .unwrap();
    in_emergency(&mut world).unwrap();
    let new = world.set.active().unwrap().id();
    assert_ne!(new, stolen);
    assert_eq!(
        world.set.get(stolen).unwrap().state.out_at(),
        Some(world.now + MINUTE)
    );
    world.settle();
    world.publish();
    (1..AGENTS).for_each(|agent| world.attest(agent));
    world.perform(&Action::WaitForDeadline);
    world.publish();
    world.settle();
    assert!(world.set.get(stolen).is_none());
    assert_eq!(
        world.last_operation(),
        Some((Verb::Emergency, Stage::Telling)),
        "one has not attested"
    );
    world.attest(0);
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Emergency, Stage::Done)));
}

#[test]
fn it_goes_on_by_a_time_that_nobody_has_settled_and_its_grace_grows_by_no_clock() {
    let (mut world, stolen, _) = with_a_successor();
    in_emergency(&mut world).unwrap();
    world.publish();
    world.now += 5 * MINUTE;
    world.settle();
    assert_eq!(state(&world, stolen), Some("tainted"));
    // Its clock is right now; then again, and the server starts with it.
    world.now -= 20 * HOUR;
    world.settle();
    world.step(Event::Tick).unwrap();
    let out_at = |world: &World| world.set.get(stolen).unwrap().state.out_at().unwrap();
    assert_eq!(out_at(&world), world.now + 2 * MINUTE);
    world.now -= HOUR;
    world.perform(&Action::Restart);
    assert_eq!(out_at(&world), world.now + 2 * MINUTE);
    let out_at = out_at(&world);
    let unsettled = Context {
        at: Moment {
            now: out_at,
            trusted: false,
            settled: None,
        },
        ..world.context()
    };
    assert_eq!(world.set.next_deadline(&unsettled), Some(out_at));
    let transition = world.set.apply(Event::Tick, &unsettled).unwrap();
    assert!(transition.next.get(stolen).is_none());
    assert!(
        !transition
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::DeleteKey(_))),
        "a wrong clock destroys no key"
    );
}

/// Its successor was distrusted before it could say that it signs.
#[test]
fn a_retirement_whose_successor_is_distrusted_comes_to_nothing() {
    let mut world = World::started();
    (0..AGENTS).for_each(|agent| world.renew(agent));
    world.forced = true;
    world.orders(retirement()).unwrap();
    world.publish();
    world.now += 2 * HOUR;
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Retire, Stage::Draining)));
    in_emergency(&mut world).unwrap();
    world.publish();
    world.now += MINUTE;
    world.settle();
    let first = world.set.operations().iter().next().unwrap();
    assert_eq!((first.verb, first.stage), (Verb::Retire, Stage::Superseded));
}

#[test]
fn it_joins_itself_and_ends_what_waited_for_another_successor() {
    let mut world = World::new();
    assert_eq!(in_emergency(&mut world), Err(Refused::NothingToReplace));
    let mut world = World::started();
    world.orders(rotation(false)).unwrap();
    in_emergency(&mut world).unwrap();
    in_emergency(&mut world).unwrap();
    let other = world.orders(Order::Emergency {
        algorithm: Some(SignatureAlgorithm::P384),
    });
    assert!(matches!(other, Err(Refused::OtherAlgorithm { .. })), "{other:?}");
    // It goes further than a rotation.
    world.orders(rotation(false)).unwrap();
    world.settle();
    let operations = world.set.operations().iter();
    let operations: Vec<_> = operations.map(|one| (one.verb, one.stage)).collect();
    assert_eq!(
        operations,
        [
            (Verb::Rotate, Stage::Superseded),
            (Verb::Emergency, Stage::Spreading)
        ]
    );
}
