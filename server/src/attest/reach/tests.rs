use signet_runtime::clock::FakeClock;
use tokio::time::advance;

use super::*;
use crate::fixtures::{HOUR, START};

const GRACE: Duration = Duration::from_secs(24 * 3600);

struct World {
    machine: FakeClock,
    reach: Reach,
}

fn world(unreachable_since: Option<SystemTime>) -> World {
    let machine = FakeClock::new(SystemTime::UNIX_EPOCH + START);
    let clock = Arc::new(TrustedClock::agreed(Arc::new(machine.clone())));
    World {
        machine,
        reach: Reach::new(clock, GRACE, unreachable_since),
    }
}

impl World {
    /// Probes fail until the cluster counts as unreachable.
    async fn away() -> (Self, SystemTime) {
        let world = world(None);
        let since = SystemTime::UNIX_EPOCH + START;
        assert_eq!(world.reach.probed(Probe::Failed, false), None);
        advance(FAILING_FOR).await;
        assert_eq!(world.reach.probed(Probe::Failed, false), Some(since));
        (world, since)
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_unreachable_since_the_first_of_probes_that_fail_for_half_a_minute() {
    let World { reach, .. } = world(None);
    for failing in [Duration::ZERO, FAILING_FOR / 2, FAILING_FOR / 3] {
        advance(failing).await;
        assert_eq!(reach.probed(Probe::Failed, false), None);
        assert_eq!(reach.in_grace(), None);
    }
    // One answer in between, and it begins anew; what is no API server neither ends it nor counts.
    assert_eq!(reach.probed(Probe::Answered, false), None);
    advance(FAILING_FOR).await;
    assert_eq!(reach.probed(Probe::Failed, false), None);
    let since = SystemTime::UNIX_EPOCH + START + FAILING_FOR * 11 / 6;
    advance(FAILING_FOR).await;
    assert_eq!(reach.probed(Probe::Unclear, false), None);
    assert_eq!(reach.probed(Probe::Failed, false), Some(since));
    assert_eq!(
        (reach.unreachable_since(), reach.in_grace()),
        (Some(since), Some(since))
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_watches_are_whole_is_not_away() {
    let World { reach, .. } = world(None);
    for _ in 0..10 {
        assert_eq!(reach.probed(Probe::Failed, true), None);
        advance(FAILING_FOR).await;
    }
    assert_eq!(
        reach.probed(Probe::Failed, false),
        None,
        "it begins to fail only now"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_success_ends_an_outage() {
    for (probe, watching) in [(Probe::Answered, false), (Probe::Failed, true)] {
        let (world, since) = World::away().await;
        assert_eq!(world.reach.probed(Probe::Unclear, false), Some(since));
        assert_eq!(world.reach.probed(probe, watching), None);
        assert_eq!(
            (world.reach.unreachable_since(), world.reach.in_grace()),
            (None, None)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_ends_a_day_after_the_start_of_the_outage() {
    let (world, since) = World::away().await;
    advance(GRACE - FAILING_FOR - Duration::from_secs(1)).await;
    assert_eq!(world.reach.in_grace(), Some(since));
    advance(Duration::from_secs(1)).await;
    assert_eq!(world.reach.in_grace(), None);
    assert_eq!(
        world.reach.unreachable_since(),
        Some(since),
        "the outage itself goes on"
    );
}

/// A machine's clock that jumps, either way, neither ends the grace nor lengthens it.
#[tokio::test(start_paused = true)]
async fn one_wrong_clock_changes_nothing_about_the_grace() {
    let (world, since) = World::away().await;
    for offset in [25 * 3600, 0, -12 * 3600] {
        world.machine.set_offset(offset);
        assert_eq!(world.reach.in_grace(), Some(since));
    }
    advance(GRACE).await;
    assert_eq!(
        world.reach.in_grace(),
        None,
        "elapsed time has passed all the same"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_outlives_a_restart_with_its_start() {
    let start = SystemTime::UNIX_EPOCH + START;
    let since = start - 23 * HOUR;
    let World { reach, .. } = world(Some(since));
    assert_eq!(
        (reach.unreachable_since(), reach.in_grace()),
        (Some(since), Some(since))
    );
    advance(HOUR).await;
    assert_eq!(reach.in_grace(), None);
    let ahead = world(Some(start + HOUR)).reach;
    assert!(ahead.unreachable_since().is_some());
    assert_eq!(
        ahead.in_grace(),
        None,
        "it began in a future that nobody can measure"
    );
}

/// Neither our own budget nor what the API server refuses is an outage, and junk says nothing.
#[test]
fn only_what_the_api_server_owes_is_a_failed_probe() {
    let status = |code| CallError::Status {
        code,
        message: String::new(),
        retry_after: None,
    };
    for code in [400, 401, 403, 404, 429] {
        assert_eq!(Probe::of::<()>(&Err(status(code))), Probe::Answered, "{code}");
    }
    for code in [500, 502, 503, 504] {
        assert_eq!(Probe::of::<()>(&Err(status(code))), Probe::Failed, "{code}");
    }
    assert_eq!(Probe::of(&Ok(())), Probe::Answered);
    assert_eq!(Probe::of::<()>(&Err(CallError::NotFound)), Probe::Answered);
    assert_eq!(Probe::of::<()>(&Err(CallError::Timeout)), Probe::Failed);
    assert_eq!(
        Probe::of::<()>(&Err(CallError::Transport(String::new()))),
        Probe::Failed
    );
    assert_eq!(
        Probe::of::<()>(&Err(CallError::Junk(String::new()))),
        Probe::Unclear
    );
    assert_eq!(
        Probe::of::<()>(&Err(CallError::OverBudget(Duration::ZERO))),
        Probe::Unclear
    );
}
