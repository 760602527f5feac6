//! The task that owns the authorities: commands, deadlines, publications, reports, drain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::authority::AuthorityKind;
use signet_runtime::backoff::Backoff;
use signet_runtime::drain::Drain;
use signet_runtime::{pace, spans};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

use super::command::{Command, OrderRequest};
use super::lifecycle::{Lifecycle, LifecycleError, Tools};
use super::reports::OperationReport;
use super::spread::SpreadReports;
use super::state::{Event, Moment, Shown};
use super::view::AuthorityView;
use crate::clock::{State, TrustedClock};
use crate::trust::TrustSnapshot;

/// The wall clock may be set; so the worker looks at it at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const RETRIES: Backoff = Backoff::between(Duration::from_secs(1), Duration::from_secs(30));

/// Owner of the authorities of all kinds.
pub(super) struct Worker {
    pub(super) kinds: BTreeMap<AuthorityKind, Lifecycle>,
    pub(super) tools: Tools,
    pub(super) clock: Arc<TrustedClock>,
    pub(super) clock_state: watch::Receiver<State>,
    pub(super) view: watch::Sender<Arc<AuthorityView>>,
    pub(super) snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    pub(super) reports: watch::Receiver<SpreadReports>,
    pub(super) told: watch::Sender<Arc<[OperationReport]>>,
    /// A publication was not journalled yet.
    pub(super) unheard: bool,
}

impl Worker {
    /// The first step. All kinds are there before anything is shown, so the first bundle already has them.
    pub(super) async fn start(&mut self) -> Result<(), LifecycleError> {
        let at = self.moment();
        self.step_all(|_| Event::Start, at).await?;
        self.show();
        Ok(())
    }

    /// Works until the drain starts.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, drain: Drain) {
        let mut retry = RETRIES;
        let mut not_before = Instant::now();
        let mut event = Wake::Deadline;
        loop {
            let outcome = self.wake(event).await;
            self.show();
            for lifecycle in self.kinds.values_mut() {
                lifecycle.destroy_forgotten(&self.tools).await;
            }
            match outcome {
                Ok(()) => retry.reset(),
                Err(_) => not_before = Instant::now() + retry.next(0.0),
            }
            let deadline = if self.unheard {
                not_before
            } else {
                self.deadline().max(not_before)
            };
            event = tokio::select! {
                Some(command) = commands.recv() => Wake::Command(command),
                Ok(()) = self.snapshots.changed() => Wake::Published,
                Ok(()) = self.reports.changed() => Wake::Deadline,
                Ok(()) = self.clock_state.changed() => Wake::Deadline,
                () = sleep_until(deadline) => Wake::Deadline,
                () = drain.signalled() => return,
            };
        }
    }

    async fn wake(&mut self, wake: Wake) -> Result<(), LifecycleError> {
        let now = self.moment();
        if let Wake::Command(Command::Order {
            request,
            reply,
            story,
        }) = wake
        {
            let outcome = self.order(request, now).instrument(story).await;
            // Whoever hears of it finds it.
            self.show();
            // An admin who went away stops nothing.
            let _ = reply.send(outcome);
            return Ok(());
        }
        self.unheard |= matches!(wake, Wake::Published);
        let mut heard = Ok(());
        if self.unheard {
            heard = self.published(now).await;
            self.unheard = heard.is_err();
        }
        heard.and(self.step_all(|_| Event::Tick, now).await)
    }

    async fn published(&mut self, at: Moment) -> Result<(), LifecycleError> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let published = |kind| {
            let published = || snapshot.kind(kind).iter();
            let listed = published().map(|one| (one.certificate.id(), Some(one.crl.this_update())));
            let tainted = published().filter(|one| one.tainted);
            let shown = Shown {
                listed: listed.collect(),
                tainted: tainted.map(|one| one.certificate.id()).collect(),
                departed: snapshot.departed.to_vec(),
            };
            Event::Published {
                sequence: snapshot.sequence,
                shown,
            }
        };
        self.step_all(published, at).await
    }

    async fn order(&mut self, request: OrderRequest, now: Moment) -> Result<u64, LifecycleError> {
        let event = Event::Ordered {
            order: request.order,
            author: request.author.into(),
        };
        let reports = self.reports.borrow().clone();
        let lifecycle = self.kinds.get_mut(&request.kind);
        let lifecycle = lifecycle.ok_or(LifecycleError::NoSuchKind(request.kind))?;
        let operation = lifecycle.handle(event, now, &reports, &self.tools).await?;
        operation.ok_or(LifecycleError::NoSuchKind(request.kind))
    }

    /// One step of every kind. What fails for one does not hold up the others; the first failure is returned.
    async fn step_all(
        &mut self,
        event: impl Fn(AuthorityKind) -> Event,
        at: Moment,
    ) -> Result<(), LifecycleError> {
        let reports = self.reports.borrow().clone();
        let mut outcome = Ok(());
        for (kind, lifecycle) in &mut self.kinds {
            let step = lifecycle.handle(event(*kind), at, &reports, &self.tools);
            let step = async { step.await.map(drop).inspect_err(tell) };
            let step = step.instrument(spans::authorities(kind.as_str())).await;
            outcome = outcome.and(step);
        }
        outcome
    }

    /// Shows what is journalled, and how operations stand.
    fn show(&mut self) {
        let mut changed = false;
        for (kind, lifecycle) in &mut self.kinds {
            if lifecycle.take_visible() {
                changed = true;
                let active = lifecycle
                    .acting()
                    .map(|acting| acting.certificate().id().to_string());
                spans::authorities(kind.as_str()).in_scope(|| tracing::info!(active, "authorities changed"));
            }
        }
        if changed {
            let view: AuthorityView = (self.kinds.iter())
                .map(|(kind, lifecycle)| (*kind, lifecycle.view()))
                .collect();
            self.view.send_replace(Arc::new(view));
        }
        self.tell();
    }

    fn tell(&self) {
        let (at, reports) = (self.moment(), self.reports.borrow().clone());
        let kinds = self.kinds.values();
        let told: Arc<[OperationReport]> = kinds.flat_map(|kind| kind.operations(at, &reports)).collect();
        self.told.send_if_modified(|current| {
            let changed = *current != told;
            *current = told;
            changed
        });
    }

    fn deadline(&self) -> Instant {
        let (at, reports) = (self.moment(), self.reports.borrow().clone());
        let next = self
            .kinds
            .values()
            .filter_map(|kind| kind.next_deadline(at, &reports))
            .min();
        Instant::now() + pace::slice(at.now, next, LONGEST_SLEEP)
    }

    fn moment(&self) -> Moment {
        let time = self.clock.time();
        Moment {
            now: time.now,
            trusted: time.adding().is_ok(),
            settled: time.removing(),
        }
    }
}

fn tell(error: &LifecycleError) {
    let error = error as &dyn std::error::Error;
    tracing::error!(error, "authority step failed, will try again");
}

/// Why the worker woke up.
enum Wake {
    Command(Command),
    Published,
    Deadline,
}
