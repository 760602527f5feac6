use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use signet_certs::authority::AuthorityKind;
use signet_runtime::ready::{Level, Readiness};
use tokio::sync::watch;

use super::{REASONS, Watched, start};
use crate::attest::fake::FakeAttestor;
use crate::audit::{AuditBacklog, AuditBound, AuditProgress, WhenFull};
use crate::authority::{AuthorityView, Held};
use crate::clock::{Past, TrustedClock};
use crate::fixtures::{HOUR, MINUTE, Running, authority, revoke_serial, serial};
use crate::store::{AuditOutbox as _, Ledger as _};

/// Until whatever has a word of its own is heard, and what has none was looked at.
const NOTICED: Duration = Duration::from_secs(2);

/// A running server's core whose readiness is watched.
struct World {
    running: Running,
    readiness: Readiness,
    attestor: Arc<FakeAttestor>,
    audit: watch::Sender<AuditProgress>,
    own: watch::Sender<Option<SystemTime>>,
    put_back: watch::Sender<Option<String>>,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// `change` has the last word on what is watched.
    async fn with(change: impl FnOnce(&mut Watched)) -> Self {
        let running = Running::new().await;
        let attestor = Arc::new(FakeAttestor::new());
        let audit = watch::Sender::new(AuditProgress {
            emitted: *running.store.stored().borrow(),
            failing: None,
        });
        let own = watch::Sender::new(Some(running.now() + 4 * HOUR));
        let put_back = watch::Sender::new(None);
        let mut watched = Watched {
            clock: running.trusted.clone(),
            store: running.store.clone(),
            view: running.manager.current(),
            snapshots: running.publisher.snapshots(),
            publishing: running.publisher.trouble(),
            put_back: put_back.subscribe(),
            own_valid_until: own.subscribe(),
            attestor: attestor.clone(),
            audit: AuditBacklog::new(running.store.stored(), audit.subscribe(), AuditBound::default()),
        };
        change(&mut watched);
        let readiness = Readiness::new(REASONS);
        start(watched, &readiness, &running.drain);
        Self {
            running,
            readiness,
            attestor,
            audit,
            own,
            put_back,
        }
    }

    /// What stands a moment later.
    async fn standing(&self) -> Vec<&'static str> {
        self.running.pass(NOTICED).await;
        let standing = self.readiness.standing(Level::Issue);
        standing.iter().map(|one| one.reason.name).collect()
    }

    /// The words of the only reason that stands; what is served is true all the same.
    async fn only(&self, name: &str) -> String {
        assert_eq!(self.standing().await, [name]);
        assert!(self.readiness.is_ready(Level::Serve), "{name}");
        self.readiness.standing(Level::Issue).remove(0).detail
    }

    /// All lines up to here leave the store.
    fn emit(&self, emitted: u64) {
        self.audit.send_replace(AuditProgress {
            emitted,
            failing: None,
        });
    }

    async fn nothing_stands(&self) {
        let nothing: [&str; 0] = [];
        assert_eq!(self.standing().await, nothing);
    }
}

/// The page has every reason, in the words of the program, and no other.
#[test]
fn the_documentation_has_the_table_of_reasons() {
    let page = include_str!("../../../docs/operating.md");
    let section = page
        .split("\n### ")
        .find(|part| part.starts_with("Reasons of the server"));
    let rows = section.unwrap().lines().filter(|line| line.starts_with("| `"));
    let row = |reason: &signet_runtime::ready::Reason| {
        let (name, level, meaning) = (reason.name, reason.level.path(), reason.meaning);
        format!("| `{name}` | `{level}` | {meaning} |")
    };
    assert_eq!(
        rows.collect::<Vec<_>>(),
        REASONS.iter().map(row).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_stands_in_the_way_of_a_server_that_is_well() {
    let world = World::new().await;
    world.nothing_stands().await;
    world.running.pass(2 * HOUR).await;
    world.nothing_stands().await;
}

/// Its lists lack what others name: they are not to be relied on.
#[tokio::test(start_paused = true)]
async fn a_store_that_was_put_back_does_not_serve_what_is_true() {
    let world = World::new().await;
    world.put_back.send_replace(Some("list 7".to_owned()));
    assert_eq!(world.standing().await, ["store_put_back"]);
    assert!(!world.readiness.is_ready(Level::Serve));
    world.put_back.send_replace(None);
    world.nothing_stands().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_is_noticed_by_a_write_and_without_one() {
    let world = World::new().await;
    world.nothing_stands().await;
    let store = &world.running.store;
    store.issue_failures.store(1, Ordering::SeqCst);
    store.issue(Vec::new(), world.running.now()).await.unwrap_err();
    world.only("store_failing").await;
    world.running.pass(2 * NOTICED).await;
    world.nothing_stands().await;

    store.probe_failures.store(u32::MAX, Ordering::SeqCst);
    world.running.pass(MINUTE).await;
    assert!(world.only("store_failing").await.contains("disk full"));
    store.probe_failures.store(0, Ordering::SeqCst);
    world.running.pass(3 * NOTICED).await;
    world.nothing_stands().await;
}

/// Revocations that wait are one thing, a list that nobody should rely on much longer another.
#[tokio::test(start_paused = true)]
async fn a_publisher_that_fails_is_noticed_at_once_and_closes_the_doors_at_two_thirds_of_a_list() {
    let world = World::new().await;
    let (store, publisher) = (&world.running.store, &world.running.publisher);
    store.crl_failures.store(u32::MAX, Ordering::SeqCst);
    let now = world.running.now();
    let active = world.running.active(AuthorityKind::X509);
    publisher.revocation_changed(revoke_serial(store.as_ref(), active, serial(1), now).await);
    world.running.pass(NOTICED).await;
    let standing = world.readiness.standing(Level::Issue);
    assert!(
        standing
            .iter()
            .any(|one| one.reason.name == "lists_failing" && one.detail.contains("disk full"))
    );
    assert!(world.readiness.is_ready(Level::Serve));

    world.running.pass(HOUR + 5 * MINUTE).await;
    let standing = world.readiness.standing(Level::Serve);
    assert_eq!(standing[0].reason.name, "lists_old", "{standing:?}");
    store.crl_failures.store(0, Ordering::SeqCst);
    world.emit(*store.stored().borrow());
    world.running.pass(2 * MINUTE).await;
    world.nothing_stands().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_the_time_serves_and_says_what_it_lacks() {
    let mut waiting = None;
    let world = World::with(|watched| {
        let past = Past {
            mark: None,
            jumped: false,
            second_clock: true,
            removal_delay: HOUR,
        };
        let clock = Arc::new(TrustedClock::new(watched.clock.clone(), past));
        waiting = Some(clock.clone());
        watched.clock = clock;
    })
    .await;
    assert!(world.only("clock_untrusted").await.contains("clock confirm"));
    waiting.unwrap().heard("dev", world.running.now(), Duration::ZERO);
    world.nothing_stands().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_a_valid_active_authority_is_named() {
    let mut views = None;
    let world = World::with(|watched| {
        let view = watched.view.borrow().clone();
        let (sender, receiver) = watch::channel(view);
        watched.view = receiver;
        views = Some(sender);
    })
    .await;
    let (views, now) = (views.unwrap(), world.running.now());
    let well = views.borrow().clone();
    world.nothing_stands().await;
    let changed = |change: &dyn Fn(&mut AuthorityView)| {
        let mut view = (*well).clone();
        change(&mut view);
        views.send_replace(Arc::new(view));
    };
    changed(&|view| view.kind_mut(AuthorityKind::Control).authorities.clear());
    assert_eq!(world.only("no_authority").await, "no control authority is active");
    // An authority that is not published at all takes away more.
    changed(&|view| {
        let late = Held::X509(authority(AuthorityKind::X509, now + HOUR));
        view.kind_mut(AuthorityKind::X509).authorities[0].held = late;
    });
    assert_eq!(world.standing().await, ["lists_old", "no_authority"]);
    assert!(!world.readiness.is_ready(Level::Serve));
    views.send_replace(well.clone());
    world.nothing_stands().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_certificate_of_its_own_no_agent_can_connect() {
    let world = World::new().await;
    world.own.send_replace(None);
    assert_eq!(world.only("own_certificate").await, "there is none yet");
    world.own.send_replace(Some(world.running.now() - MINUTE));
    assert!(world.only("own_certificate").await.starts_with("it ended at "));
    world.own.send_replace(Some(world.running.now() + MINUTE));
    world.nothing_stands().await;
}

#[tokio::test(start_paused = true)]
async fn when_no_cluster_can_be_reached_nobody_is_attested() {
    let world = World::new().await;
    world.attestor.set_failure(Some("connection refused"));
    assert_eq!(world.only("clusters_away").await, "`dev`: connection refused");
    world.attestor.set_failure(None);
    world.nothing_stands().await;
}

#[tokio::test(start_paused = true)]
async fn audit_lines_that_nobody_takes_are_noticed_whether_the_log_fails_or_hangs() {
    let world = World::new().await;
    let now = world.running.now();
    let active = world.running.active(AuthorityKind::X509);
    revoke_serial(world.running.store.as_ref(), active, serial(1), now).await;
    let stored = *world.running.store.stored().borrow();
    world.nothing_stands().await;
    world.running.pass(MINUTE).await;
    assert!(
        world
            .only("audit_stuck")
            .await
            .starts_with("1 lines wait, none was taken for ")
    );
    world.emit(stored);
    world.nothing_stands().await;
    world.audit.send_replace(AuditProgress {
        emitted: stored - 1,
        failing: Some("no space left".to_owned()),
    });
    assert_eq!(world.only("audit_stuck").await, "1 lines wait: no space left");
}

/// A log that is taken line by line is not stuck; while too many wait nobody gets a certificate all the same.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_taken_too_slowly_is_noticed_for_as_long_as_it_stops_issuing() {
    let (stored, progress) = (watch::Sender::new(0), watch::Sender::<AuditProgress>::default());
    let world = World::with(|watched| {
        let bound = AuditBound {
            most: 1_000,
            when_full: WhenFull::StopIssuing,
        };
        watched.audit = AuditBacklog::new(stored.subscribe(), progress.subscribe(), bound);
    })
    .await;
    world.nothing_stands().await;
    stored.send_replace(1_060);
    for _ in 0..60 {
        let said = world.only("audit_stuck").await;
        assert!(
            said.contains("too many lines") && said.ends_with("lines wait"),
            "{said}"
        );
        progress.send_modify(|progress| progress.emitted += 1);
    }
    world.only("audit_stuck").await;
    progress.send_modify(|progress| progress.failing = Some("no space left".to_owned()));
    let said = world.only("audit_stuck").await;
    assert!(said.ends_with("1000 lines wait: no space left"), "{said}");
    progress.send_replace(AuditProgress {
        emitted: 61,
        failing: None,
    });
    world.nothing_stands().await;
}
