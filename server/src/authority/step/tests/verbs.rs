//! What admins order, and what is refused them.

use std::sync::Arc;

use signet_certs::authority::AuthorityId;

use super::super::super::operation::{Order, Stage, Verb};
use super::world::{AGENTS, Action, HOUR, MINUTE, World, retirement, rotation};
use super::*;

/// A rotation is over, and every agent's workload still uses the one before.
fn rotated() -> (World, AuthorityId, AuthorityId) {
    let mut world = World::started();
    let old = world.set.active().unwrap().id();
    (0..AGENTS).for_each(|agent| world.renew(agent));
    world.forced = true;
    world.orders(rotation(true)).unwrap();
    world.publish();
    world.settle();
    let new = world.set.active().unwrap().id();
    assert_eq!(world.last_operation(), Some((Verb::Rotate, Stage::Done)));
    (world, old, new)
}

fn everyone_reports(world: &mut World) {
    world.publish();
    (0..AGENTS).for_each(|agent| world.report(agent));
    world.settle();
}

#[test]
fn prepare_ends_when_it_has_spread_and_activate_when_it_signs() {
    let mut world = World::started();
    let refused = world.orders(Order::Activate { force: false });
    assert_eq!(refused, Err(Refused::NothingPrepared));
    world.orders(Order::Prepare { algorithm: None }).unwrap();
    everyone_reports(&mut world);
    assert_eq!(world.last_operation(), Some((Verb::Prepare, Stage::Spreading)));
    let refused = world.orders(Order::Activate { force: false });
    assert!(matches!(refused, Err(Refused::NotSpread { .. })), "{refused:?}");
    let before = world.now;
    world.perform(&Action::WaitForDeadline);
    assert!(world.now <= before + 6 * MINUTE, "it wakes when it has spread");
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Prepare, Stage::Done)));
    assert!(world.set.prepared().is_some(), "it waits to be asked");
    world.orders(Order::Activate { force: false }).unwrap();
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Activate, Stage::Done)));
    assert_eq!(world.activations.len(), 2);
}

/// What was prepared goes on to where the later order leads, as one operation.
#[test]
fn a_later_order_over_the_same_successor_joins_the_one_under_way() {
    let mut world = World::started();
    world.orders(Order::Prepare { algorithm: None }).unwrap();
    world.orders(rotation(false)).unwrap();
    world.orders(rotation(false)).unwrap();
    let all: Vec<_> = world.set.operations().iter().map(|one| one.verb).collect();
    assert_eq!(all, [Verb::Rotate]);
    world.orders(retirement()).unwrap();
    world.orders(Order::Prepare { algorithm: None }).unwrap();
    assert_eq!(world.last_operation(), Some((Verb::Retire, Stage::Spreading)));
    assert_eq!(world.set.operations().iter().count(), 1);
}

/// Covers INV-8.
#[test]
fn a_retirement_ends_when_nobody_uses_the_old_one_and_everyone_has_reported_that_it_is_gone() {
    let mut world = World::started();
    let old = world.set.active().unwrap().id();
    (0..AGENTS).for_each(|agent| world.renew(agent));
    world.orders(retirement()).unwrap();
    everyone_reports(&mut world);
    world.now += 6 * MINUTE;
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Retire, Stage::Draining)));
    assert_eq!(world.set.get(old).unwrap().state.name(), "tainted");
    everyone_reports(&mut world);
    assert!(world.set.get(old).is_some(), "every agent says that it uses it");
    (1..AGENTS).for_each(|agent| world.renew(agent));
    everyone_reports(&mut world);
    assert!(world.set.get(old).is_some(), "one still does");
    // Asked again, it is the same one.
    world.orders(retirement()).unwrap();
    world.renew(0);
    everyone_reports(&mut world);
    assert!(world.set.get(old).is_none());
    assert_eq!(world.last_operation(), Some((Verb::Retire, Stage::Telling)));
    assert_eq!(world.set.operations().iter().count(), 1);
    everyone_reports(&mut world);
    assert_eq!(world.last_operation(), Some((Verb::Retire, Stage::Done)));
    assert!(!world.keys.contains(&old));
}

/// After a restart nobody has said anything: that is not "nobody uses it".
#[test]
fn an_agent_that_has_not_said_what_it_uses_holds_a_retirement_up() {
    let mut world = World::started();
    let old = world.set.active().unwrap().id();
    world.orders(retirement()).unwrap();
    everyone_reports(&mut world);
    world.now += 6 * MINUTE;
    world.settle();
    world.publish();
    (1..AGENTS).for_each(|agent| world.report(agent));
    world.settle();
    assert!(world.set.get(old).is_some(), "one has not spoken since the mark");
    world.report(0);
    world.settle();
    assert!(world.set.get(old).is_none());
}

#[test]
fn what_would_break_somebody_is_refused_and_says_why() {
    let (mut world, old, new) = rotated();
    let taint = |authority| Order::Taint { authority };
    let revoke = |authority, force| Order::Revoke { authority, force };
    assert_eq!(world.orders(taint(new)), Err(Refused::Signs(new)));
    assert_eq!(world.orders(revoke(new, true)), Err(Refused::Signs(new)));
    let state = "old";
    let authority = old;
    assert_eq!(
        world.orders(revoke(old, false)),
        Err(Refused::NotTainted { authority, state })
    );
    let stranger = AuthorityId::from_bytes([200; 20]);
    assert_eq!(world.orders(taint(stranger)), Err(Refused::Unknown(stranger)));
    assert_eq!(
        world.orders(revoke(stranger, true)),
        Err(Refused::Unknown(stranger))
    );

    world.orders(taint(old)).unwrap();
    everyone_reports(&mut world);
    assert_eq!(world.last_operation(), Some((Verb::Taint, Stage::Done)));
    let used = world.orders(revoke(old, false)).unwrap_err();
    let says = "still used: 3 agents report 3 current certificates of it; ask again";
    assert!(used.to_string().contains(says), "{used}");
    (0..AGENTS).for_each(|agent| world.renew(agent));
    everyone_reports(&mut world);
    world.orders(revoke(old, false)).unwrap();
    assert!(world.set.get(old).is_none());
    everyone_reports(&mut world);
    assert_eq!(world.last_operation(), Some((Verb::Revoke, Stage::Done)));
    // Once more is no mistake: it is proved again.
    world.orders(revoke(old, false)).unwrap();
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Revoke, Stage::Done)));
    assert!(matches!(world.orders(taint(old)), Err(Refused::HasLeft { .. })));
}

#[test]
fn force_overrules_what_is_in_use_but_not_the_one_that_signs() {
    let (mut world, authority, _) = rotated();
    world
        .orders(Order::Revoke {
            authority,
            force: true,
        })
        .unwrap();
    assert!(world.set.get(authority).is_none());
    let departed = world.set.departed().get(authority).unwrap();
    assert!(departed.forced && departed.author.as_ref() == "admin");
}

/// A bundle without it can be mended; a key that a wrong clock has destroyed cannot.
#[test]
fn revoking_waits_for_no_time_and_its_key_does() {
    let (mut world, authority, _) = rotated();
    let unsettled = Context {
        at: Moment {
            settled: None,
            trusted: false,
            ..world.context().at
        },
        ..world.context()
    };
    let event = Event::Ordered {
        order: Order::Revoke {
            authority,
            force: true,
        },
        author: "admin".into(),
    };
    let after = world.set.apply(event, &unsettled).unwrap().next;
    assert!(after.get(authority).is_none());
    let ticked = after.apply(Event::Tick, &unsettled).unwrap();
    assert!(ticked.effects.is_empty(), "{:?}", ticked.effects);
    world.now += Duration::from_secs(1);
    let settled = after.apply(Event::Tick, &world.context()).unwrap();
    assert!(settled.effects.contains(&Effect::DeleteKey(authority)));
}

/// A server whose clock was ahead takes an older authority back; never one that is not to be trusted.
#[test]
fn a_tainted_authority_never_signs_again() {
    let mut world = World::started();
    let good = world.set.active().unwrap().id();
    let right = world.now;
    world.now += 400 * 24 * HOUR;
    world.step(Event::Tick).unwrap();
    world.publish();
    world.settle();
    world.now = right + MINUTE;
    // Before the machine notices that its clock was wrong.
    let author: Arc<str> = "admin".into();
    world.set.taint(good, &author, world.now);
    world.step(Event::Tick).unwrap();
    world.publish();
    world.settle();
    assert_eq!(world.set.get(good).unwrap().state.name(), "tainted");
    assert!(
        !world.set.active().unwrap().is_useless(world.now),
        "another was made"
    );
}

#[test]
fn a_tainted_authority_that_ends_by_itself_is_remembered() {
    let (mut world, authority, _) = rotated();
    world.orders(Order::Taint { authority }).unwrap();
    world.now += 2 * HOUR;
    world.publish();
    world.settle();
    world.now += HOUR;
    world.publish();
    assert!(world.set.get(authority).is_none());
    let departed = world.set.departed().get(authority).unwrap();
    assert_eq!((departed.left.name(), departed.has_key), ("expired", false));
}

#[test]
fn a_successor_that_is_tainted_before_it_signs_ends_what_waited_for_it() {
    let mut world = World::started();
    world.orders(rotation(false)).unwrap();
    let authority = world.set.prepared().unwrap().id();
    world.orders(Order::Taint { authority }).unwrap();
    world.settle();
    let verbs: Vec<_> = world
        .set
        .operations()
        .iter()
        .map(|one| (one.verb, one.stage))
        .collect();
    assert_eq!(
        verbs,
        [(Verb::Rotate, Stage::Superseded), (Verb::Taint, Stage::Telling)]
    );
}

/// For people: when each came to stand where it does.
#[test]
fn turns_are_remembered_with_their_times() {
    let (world, old, new) = rotated();
    let turns = |id| -> Vec<_> {
        let history = &world.set.get(id).unwrap().history;
        history.iter().map(|turn| turn.state).collect()
    };
    assert_eq!(turns(old), ["prepared", "active", "old"]);
    assert_eq!(turns(new), ["prepared", "active"]);
}

/// An order of somebody beside the admin of [`World`].
fn ordered_by(world: &mut World, author: &str, order: Order) -> Result<(), Refused> {
    let author = author.into();
    let after = world
        .set
        .apply(Event::Ordered { order, author }, &world.context())?;
    world.set = after.next;
    Ok(())
}

#[test]
fn who_raises_an_operation_is_who_wanted_it() {
    let mut world = World::started();
    world.orders(Order::Prepare { algorithm: None }).unwrap();
    ordered_by(&mut world, "second", Order::Prepare { algorithm: None }).unwrap();
    let author = |world: &World| world.set.operations().iter().last().unwrap().author.clone();
    assert_eq!(author(&world).as_ref(), "admin", "the same is no more than that");
    ordered_by(&mut world, "third", retirement()).unwrap();
    assert_eq!(author(&world).as_ref(), "third");
    assert_eq!(world.last_operation(), Some((Verb::Retire, Stage::Spreading)));
}

#[test]
fn a_retirement_is_joined_only_by_who_wants_the_same_of_its_key() {
    let mut world = World::started();
    world.orders(retirement()).unwrap();
    (0..AGENTS).for_each(|agent| world.renew(agent));
    everyone_reports(&mut world);
    world.now += 6 * MINUTE;
    world.settle();
    assert_eq!(world.last_operation(), Some((Verb::Retire, Stage::Draining)));
    let with = |algorithm| Order::Rotate {
        force: false,
        algorithm: Some(algorithm),
        retire: true,
    };
    let successor = world.set.active().unwrap();
    let (prepared, algorithm) = (successor.id(), successor.authority.algorithm);
    let other = SignatureAlgorithm::ALL
        .into_iter()
        .find(|other| *other != algorithm);
    assert_eq!(
        world.orders(with(other.unwrap())),
        Err(Refused::OtherAlgorithm { prepared, algorithm })
    );
    world.orders(with(algorithm)).unwrap();
    assert_eq!(world.set.operations().iter().count(), 1);
}

#[test]
fn a_revocation_takes_the_taint_of_the_same_authority_with_it_and_both_end_when_nobody_remembers_it() {
    let (mut world, authority, _) = rotated();
    world.orders(Order::Taint { authority }).unwrap();
    let force = true;
    world.orders(Order::Revoke { authority, force }).unwrap();
    assert_eq!(world.set.operations().running().count(), 1);
    assert_eq!(world.last_operation(), Some((Verb::Revoke, Stage::Telling)));
    // Nobody reports it until its certificate and every link to it have long ended.
    world.settle();
    world.now += WALK_AFTER_END + 400 * 24 * HOUR;
    world.settle();
    assert!(world.set.departed().get(authority).is_none());
    assert_eq!(world.last_operation(), Some((Verb::Revoke, Stage::Done)));
}

#[test]
fn who_had_reported_an_operation_when_it_ended_is_kept() {
    let mut world = World::started();
    world.forced = true;
    world.orders(rotation(true)).unwrap();
    world.publish();
    world.settle();
    let told = world.set.operations().iter().last().unwrap().told.unwrap();
    assert_eq!((told.agents, told.reported), (3, 0), "it was forced");
    let written = crate::authority::journal::encode(&world.set).unwrap();
    assert_eq!(
        crate::authority::journal::decode(&written).unwrap().operations(),
        world.set.operations()
    );
}
