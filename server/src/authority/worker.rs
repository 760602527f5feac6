//! The task that owns the authorities: commands, deadlines, publications, reports, drain.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::authority::AuthorityKind;
use signet_runtime::backoff::Backoff;
use signet_runtime::drain::Drain;
use signet_runtime::pace;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::command::{Command, RotateRequest};
use super::lifecycle::{Lifecycle, LifecycleError, Tools};
use super::rotation::{RotationProgress, Watcher};
use super::spread::SpreadReports;
use super::state::{Event, Moment};
use super::view::AuthorityView;
use crate::clock::{State, TrustedClock};
use crate::trust::TrustSnapshot;

/// The wall clock may be set; so the worker looks at it at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const RETRIES: Backoff = Backoff::between(Duration::from_secs(1), Duration::from_secs(30));

/// Owner of the authorities of both kinds.
pub(super) struct Worker {
    pub(super) kinds: [Lifecycle; 2],
    pub(super) tools: Tools,
    pub(super) clock: Arc<TrustedClock>,
    pub(super) clock_state: watch::Receiver<State>,
    pub(super) view: watch::Sender<Arc<AuthorityView>>,
    pub(super) snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    pub(super) reports: watch::Receiver<SpreadReports>,
    pub(super) watchers: Vec<Watcher>,
    /// A publication was not journalled yet.
    pub(super) unheard: bool,
}

impl Worker {
    /// The first step. Both kinds are there before anything is shown, so the first bundle already has both.
    pub(super) async fn start(&mut self) -> Result<(), LifecycleError> {
        let at = self.moment();
        for index in 0..self.kinds.len() {
            self.step(index, Event::Start, at).await?;
        }
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
            match outcome {
                Ok(()) => retry.reset(),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "authority step failed, will try again"
                    );
                    not_before = Instant::now() + retry.next(0.0);
                }
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
        if let Wake::Command(Command::Rotate {
            request,
            progress,
            reply,
        }) = wake
        {
            let outcome = self.rotate(request, progress, now).await;
            // An admin who went away does not stop the rotation.
            let _ = reply.send(outcome);
            return Ok(());
        }
        self.unheard |= matches!(wake, Wake::Published);
        if self.unheard {
            self.published(now).await?;
            self.unheard = false;
        }
        for index in 0..self.kinds.len() {
            self.step(index, Event::Tick, now).await?;
        }
        Ok(())
    }

    async fn published(&mut self, at: Moment) -> Result<(), LifecycleError> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        for index in 0..self.kinds.len() {
            let published = snapshot.kind(self.kinds[index].kind);
            let listed = published
                .iter()
                .map(|one| (one.certificate.id(), one.crl.this_update()))
                .collect();
            self.step(
                index,
                Event::Published {
                    sequence: snapshot.sequence,
                    listed,
                },
                at,
            )
            .await?;
        }
        Ok(())
    }

    async fn rotate(
        &mut self,
        request: RotateRequest,
        progress: mpsc::Sender<RotationProgress>,
        now: Moment,
    ) -> Result<(), LifecycleError> {
        let index = usize::from(request.kind == AuthorityKind::Control);
        let event = Event::Rotate {
            force: request.force,
            author: request.author.into(),
        };
        self.step(index, event, now).await?;
        self.watchers
            .extend(Watcher::new(request.kind, self.kinds[index].set(), progress));
        Ok(())
    }

    async fn step(&mut self, index: usize, event: Event, at: Moment) -> Result<(), LifecycleError> {
        let reports = self.reports.borrow().clone();
        self.kinds[index].handle(event, at, &reports, &self.tools).await
    }

    /// Shows what is journalled, and tells those who wait for a rotation.
    fn show(&mut self) {
        let [x509, control] = &mut self.kinds;
        let changed = [x509.take_visible(), control.take_visible()];
        if changed.contains(&true) {
            self.view.send_replace(Arc::new(AuthorityView {
                x509: x509.view(),
                control: control.view(),
            }));
        }
        let (now, reports) = (self.moment(), self.reports.borrow().clone());
        let kinds = &self.kinds;
        self.watchers.retain_mut(|watcher| {
            let kind = &kinds[usize::from(watcher.kind == AuthorityKind::Control)];
            watcher.update(kind.set(), kind.spread_status(now, &reports))
        });
    }

    fn deadline(&self) -> Instant {
        let (at, reports) = (self.moment(), self.reports.borrow().clone());
        let next = self
            .kinds
            .iter()
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

/// Why the worker woke up.
enum Wake {
    Command(Command),
    Published,
    Deadline,
}
