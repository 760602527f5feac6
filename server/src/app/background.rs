//! Small standing tasks of the server.

use std::{sync::Arc, time::Duration};

use signet_certs::time::rfc3339;
use signet_runtime::drain::Drain;
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::{
    agents::Agents,
    attest::Attestor,
    audit::{AuditAction, AuditBacklog, AuditEvent, AuditLog},
    clock::{ClockEvent, TrustedClock},
    metrics::Metrics,
    publisher::RoomUse,
    store::{KnownTime, Store},
    trust::TrustSnapshot,
};

/// How often the clocks are compared while nobody asks for the time.
const LOOK: Duration = Duration::from_secs(5);
/// How soon what agents report counts, and is stored: at most once in this time, all of it together.
const SPREAD: Duration = Duration::from_secs(1);
/// So many times without news, and it is looked all the same: certificates end, pods go.
const LOOKS_WITHOUT_NEWS: u32 = 5;
/// How often the store is tidied and the agents' registry with it.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) audit: AuditLog,
    pub(super) backlog: AuditBacklog,
    pub(super) agents: Arc<Agents>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    pub(super) rooms: watch::Receiver<Vec<RoomUse>>,
    pub(super) attestor: Arc<dyn Attestor>,
    pub(super) clock: Arc<TrustedClock>,
    pub(super) drain: Drain,
}

pub(super) fn start(parts: Parts) {
    let drain = parts.drain.clone();
    let housekeeper = Housekeeper {
        store: parts.store.clone(),
        audit: parts.audit.clone(),
        agents: parts.agents.clone(),
        clock: parts.clock.clone(),
    };
    drain.spawn_vital("housekeeping", housekeeper.run(drain.clone()));
    drain.spawn_vital("background", run(parts));
}

/// Lets go of what has had its time. A task of its own: a round may take long, and nothing else waits for it.
struct Housekeeper {
    store: Arc<dyn Store>,
    audit: AuditLog,
    agents: Arc<Agents>,
    clock: Arc<TrustedClock>,
}

impl Housekeeper {
    async fn run(self, drain: Drain) {
        let mut tick = tokio::time::interval(HOUSEKEEPING);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.signalled() => return,
                _ = tick.tick() => {}
            }
            tokio::select! {
                () = drain.signalled() => return,
                () = self.round() => {}
            }
        }
    }

    async fn round(&self) {
        let now = self.clock.now();
        self.agents.forget_gone(now);
        self.audit.tidy(now);
        let time = self.clock.time();
        let known = KnownTime {
            confirmed: time.confirmed(),
            // Nothing that may have an end to come goes from a list.
            settled: time.removing().map(|settled| settled.min(time.earliest)),
            jumped: self.clock.is_waiting_after_jump(),
        };
        if let Err(error) = self.store.housekeeping(known).await {
            tracing::error!(%error, "the store could not be tidied");
        }
    }
}

async fn run(mut parts: Parts) {
    let mut look = tokio::time::interval(LOOK);
    let mut spread = tokio::time::interval(SPREAD);
    let mut without_news = 0;
    parts.metrics.set_published(&parts.snapshots.borrow_and_update());
    parts.show_rooms();
    loop {
        tokio::select! {
            () = parts.drain.signalled() => return,
            _ = look.tick() => {
                parts.look_at_the_clocks();
                parts.show_reviews();
            }
            _ = spread.tick() => {
                parts.metrics.set_audit(parts.backlog.waiting(), parts.store.left_out());
                without_news += 1;
                if parts.agents.is_spread_stale() || without_news >= LOOKS_WITHOUT_NEWS {
                    without_news = 0;
                    parts.refresh_spread().await;
                }
            }
            Ok(()) = parts.snapshots.changed() => {
                let snapshot = parts.snapshots.borrow_and_update().clone();
                parts.metrics.set_published(&snapshot);
            }
            Ok(()) = parts.rooms.changed() => parts.show_rooms(),
        }
        parts.metrics.set_agents(parts.agents.connected());
    }
}

impl Parts {
    fn show_rooms(&mut self) {
        let mut lack = false;
        for room in self.rooms.borrow_and_update().iter() {
            self.metrics.set_room(room.kind, room.capacity, room.waiting);
            lack |= room.waiting > 0;
        }
        // Found in the store by a new process: who has connected before this may have missed the word.
        if lack && self.agents.lists_lack() {
            self.agents.all_affected();
        }
    }

    async fn refresh_spread(&self) {
        if let Err(error) = self.agents.refresh_spread(self.clock.time().earliest).await {
            tracing::error!(%error, "what agents hold could not be stored or read");
        }
    }

    /// Says what has happened to the clocks, once, and shows how they stand.
    fn look_at_the_clocks(&self) {
        let shown = self.clock.show();
        let trusted = shown.state.is_trusted();
        self.metrics
            .set_clock(trusted, shown.contradicted, shown.wall, shown.steady);
        for event in self.clock.take_events() {
            let action = match event {
                ClockEvent::Jumped { wall, steady } => {
                    let (wall, steady) = (rfc3339(wall), rfc3339(steady));
                    tracing::error!(
                        wall,
                        steady,
                        reason = shown.reason,
                        "the machine's clock has jumped"
                    );
                    AuditAction::ClockJumped { wall, steady }
                }
                ClockEvent::Adopted { wall, steady } => {
                    let (wall, steady) = (rfc3339(wall), rfc3339(steady));
                    tracing::warn!(
                        wall,
                        steady,
                        "machine and API servers agree on another time: it is used"
                    );
                    AuditAction::ClockAdopted { wall, steady }
                }
                ClockEvent::Healed => {
                    tracing::warn!("the machine's clock is right again");
                    AuditAction::ClockHealed {}
                }
            };
            self.audit.record(AuditEvent::new(shown.steady, action));
        }
    }

    fn show_reviews(&self) {
        let clusters = self.attestor.clusters();
        let kept = clusters.iter().map(|cluster| cluster.kept_reviews).sum();
        let displaced = clusters.iter().map(|cluster| cluster.displaced_reviews).sum();
        self.metrics.set_reviews(kept, displaced);
    }
}
