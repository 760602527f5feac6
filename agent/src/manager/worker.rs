//! The task that owns the cache.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::pace::{nap_until_elapsed, random_unit};
use tokio::sync::{mpsc, watch};

use super::admission::Admitted;
use super::issue::{Answer, Requester};
use super::kept::Kept;
use super::left::Left;
use super::parked::{Parked, Received};
use super::receive::{accept, authority_of};
use super::render::{Published, Told, render};
use super::requests::Requests;
use super::shelf::{KeptFiles, Proof, Shelf};
use super::status::name;
use super::{Command, ManagerParts, Question};
use crate::cache::{Cache, CacheState, Evidence, Failure, TrustView, Wanted, WorkloadId};
use crate::context::WorkloadState;
use crate::kept;
use crate::server_client::sync::Notice;
use crate::server_client::trust::TrustState;
use crate::server_client::{MAX_BATCH, TrustReport};
use crate::time::Moment;

mod questions;
mod report;

/// Of what was sent to the worker, the most that is taken before it looks at everything again.
const MOST_AT_ONCE: usize = 256;

pub(super) struct Worker {
    cache: Cache,
    admitted: Admitted,
    /// Certificates whose authority has not arrived in the bundle yet.
    parked: Parked,
    requests: Requests,
    kept: Kept,
    left: Left,
    clock: Arc<dyn Clock>,
    commands: mpsc::UnboundedReceiver<Command>,
    questions: mpsc::Receiver<Question>,
    notices: mpsc::Receiver<Notice>,
    outage: watch::Receiver<Option<SystemTime>>,
    trust_changes: watch::Receiver<Option<Arc<TrustState>>>,
    told: Option<Told>,
    /// Numbers the trust states, so that comparing what was published is cheap.
    trust_number: u64,
    reports: watch::Sender<TrustReport>,
}

impl Worker {
    pub(super) fn new(
        parts: ManagerParts,
        commands: mpsc::UnboundedReceiver<Command>,
        questions: mpsc::Receiver<Question>,
    ) -> Self {
        let mut trust_changes = parts.trust;
        trust_changes.mark_changed();
        let mut outage = parts.outage;
        outage.mark_changed();
        Self {
            cache: Cache::new(parts.backoff),
            admitted: Admitted::default(),
            parked: Parked::default(),
            requests: Requests::new(Requester {
                api: parts.api,
                objections: parts.objections,
                rng: SystemRandom::new(),
                unix: parts.unix,
            }),
            kept: Kept::new(&parts.places),
            left: Left::default(),
            clock: parts.clock,
            commands,
            questions,
            notices: parts.notices,
            outage,
            trust_changes,
            told: None,
            trust_number: 0,
            reports: parts.reports,
        }
    }

    pub(super) async fn run(mut self, drain: Drain) {
        let clock = self.clock.clone();
        let (mut commands, mut questions) = (Vec::new(), Vec::new());
        loop {
            // What may not be served any more is gone, its file too, before another key is made for it.
            self.look_again();
            self.publish();
            self.start_requests();
            let wake = self.wake_at();
            // What has come meanwhile is taken at once: the above costs as much as there are workloads.
            tokio::select! {
                biased;
                () = drain.signalled() => break,
                number = self.commands.recv_many(&mut commands, MOST_AT_ONCE) => match number {
                    0 => break,
                    _ => commands.drain(..).for_each(|command| self.command(command)),
                },
                Ok(()) = self.trust_changes.changed() => self.take_trust(),
                Ok(()) = self.outage.changed() => self.cache.set_outage(*self.outage.borrow_and_update()),
                Some(notice) = self.notices.recv() => self.notice(&notice),
                Some(answers) = self.requests.next() => {
                    answers.into_iter().for_each(|(wanted, answer)| self.take_answer(wanted, answer));
                }
                1.. = self.questions.recv_many(&mut questions, MOST_AT_ONCE) => {
                    questions.drain(..).for_each(|question| self.answer(question));
                }
                () = nap_until_elapsed(clock.as_ref(), wake) => {}
            }
        }
        for (_, shelf) in self.admitted.iter() {
            shelf.sender.send_replace(WorkloadState::Gone);
        }
    }

    /// The newest that was believed.
    fn trust(&self) -> Option<&Arc<TrustState>> {
        self.told.as_ref().map(|told| &told.trust)
    }

    fn moment(&self) -> Moment {
        Moment::of(self.clock.as_ref())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::VolumeReady(volume, channel) => {
                let workload = WorkloadId::Pod(volume.pod_uid.clone());
                self.left.opened(&volume.volume_id, &workload);
                self.admitted.volume_ready(volume, channel);
            }
            Command::TokenRefreshed { volume_id, token } => self.admitted.token_refreshed(&volume_id, token),
            Command::VolumeCutOff { volume_id } => self.admitted.volume_cut_off(&volume_id),
            Command::VolumeMissed { volume_id } => self.left.closed(volume_id),
            Command::VolumesNamed => self.left.named(),
            Command::VolumeRemoved { volume_id } => {
                self.left.removed(&volume_id);
                if let Some((volume, forgotten)) = self.admitted.volume_removed(&volume_id) {
                    kept::remove(&volume.svid_file);
                    forgotten.iter().for_each(|pod| self.forget(pod));
                }
            }
        }
    }

    fn notice(&mut self, notice: &Notice) {
        let now = self.moment();
        match notice {
            Notice::Affected(affected) => self.cache.affected(affected, now),
            Notice::Connected => {
                self.kept.time_is_told(&mut self.admitted, now);
                self.cache.server_back(now);
            }
        }
    }

    /// Takes over the newest trust, and with it the certificates that waited for it.
    fn take_trust(&mut self) {
        let Some(trust) = self.trust_changes.borrow_and_update().clone() else {
            return;
        };
        let now = self.moment();
        self.cache.set_trust(trust.clone() as Arc<dyn TrustView>, now);
        self.cache.set_policy_revision(trust.policy_revision, now);
        let told = Told::of(trust, self.told.as_ref());
        // A push that brought nothing to publish publishes nothing (API-16).
        if !self
            .told
            .as_ref()
            .is_some_and(|before| Arc::ptr_eq(&before.lists, &told.lists))
        {
            self.trust_number += 1;
        }
        self.told = Some(told);
        for received in self.parked.take_all() {
            self.receive(received, now);
        }
    }

    fn take_answer(&mut self, wanted: Wanted, answer: Answer) {
        let now = self.moment();
        match answer {
            Answer::Issued { chain, key } => self.receive(Received::new(wanted, chain, key, now), now),
            Answer::Refused(verdict) => {
                tracing::info!(workload = %name(&wanted.workload), reason = %verdict.message, "no identity issued");
                self.cache.refused(&wanted, verdict, now);
            }
            Answer::Failed(failure) => self.failed(&wanted, &failure, now),
        }
    }

    /// Publishes a certificate, parks it until the bundle can verify it, or drops it.
    fn receive(&mut self, received: Received, now: Moment) {
        let of_bundle =
            |trust: &&Arc<TrustState>| authority_of(&received.chain).map_or(true, |id| trust.contains(&id));
        let Some(trust) = self.trust().filter(of_bundle) else {
            if now.elapsed < received.until && self.cache.contains(&received.wanted.workload) {
                return self.parked.push(received);
            }
            let failure = Failure::new("the bundle that verifies the certificate has not arrived");
            return self.failed(&received.wanted, &failure, now);
        };
        let Received {
            wanted, chain, key, ..
        } = received;
        match accept(&wanted, chain, key, trust, now.date) {
            Ok(issued) => {
                let serial = issued.leaf.serial;
                tracing::info!(spiffe_id = %issued.leaf.svid.spiffe_id, %serial, "X.509-SVID received");
                self.cache.issued(&wanted, issued, now, random_unit());
            }
            Err(error) => {
                self.failed(&wanted, &Failure::new(error.to_string()), now);
            }
        }
    }

    fn failed(&mut self, wanted: &Wanted, failure: &Failure, now: Moment) {
        tracing::warn!(workload = %name(&wanted.workload), reason = %failure.message, "X.509-SVID not received, will retry");
        self.cache.failed(wanted, failure, now, random_unit());
    }

    /// At who can be proved, what was kept for them, and what has waited long enough.
    fn look_again(&mut self) {
        let now = self.moment();
        self.refresh_evidence(now);
        self.cache.forget_expired(now);
        if let Some(told) = &self.told {
            self.kept
                .take_over(&mut self.admitted, &mut self.cache, &told.trust, now);
        }
        for received in self.parked.take_overdue(now) {
            self.receive(received, now);
        }
    }

    fn start_requests(&mut self) {
        let now = self.moment();
        while self.can_ask() {
            let wanted = self.cache.due(now, MAX_BATCH);
            if wanted.is_empty() {
                return;
            }
            // Processes are looked at again first, which takes as long as their executables are large: pods do not wait.
            let is_pod = |wanted: &Wanted| matches!(wanted.workload, WorkloadId::Pod(_));
            let (pods, processes): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_pod);
            for part in [pods, processes] {
                self.requests.start(self.with_proof(part));
            }
        }
    }

    /// Before the first trust state nothing could be published, and the server is not reached yet anyway.
    fn can_ask(&self) -> bool {
        self.told.is_some() && self.requests.has_room()
    }

    fn with_proof(&self, wanted: Vec<Wanted>) -> Vec<(Wanted, Option<Proof>)> {
        let proof = |wanted: &Wanted| self.admitted.get(&wanted.workload).and_then(Shelf::proof);
        wanted
            .into_iter()
            .map(|wanted| (wanted.clone(), proof(&wanted)))
            .collect()
    }

    /// Tells the cache who can be proved, and forgets programs that nobody runs or asks for any more.
    fn refresh_evidence(&mut self, now: Moment) {
        let mut idle = Vec::new();
        for (id, shelf) in self.admitted.iter_mut() {
            let evidence = shelf.evidence();
            self.cache.set_evidence(id, evidence);
            // A leaf or a verdict is kept for the next process of the same kind, so that calling often costs nothing.
            let worth_keeping = !matches!(self.cache.state(id, now), Some(CacheState::Pending { .. }));
            if shelf.is_process() && evidence == Evidence::Absent && shelf.streams() == 0 && !worth_keeping {
                idle.push(id.clone());
            }
        }
        idle.iter().for_each(|id| self.forget(id));
    }

    fn forget(&mut self, id: &WorkloadId) {
        if let Some(shelf) = self.admitted.get(id) {
            self.kept.remove(id, shelf);
        }
        self.cache.remove(id);
        self.parked.forget(id);
        self.left.settled(id);
        self.admitted.remove(id);
    }

    fn publish(&mut self) {
        let now = self.moment();
        for (id, shelf) in self.admitted.iter_mut() {
            let Some(state) = self.cache.state(id, now) else {
                continue;
            };
            if !matches!(state, CacheState::Pending { .. }) {
                self.left.settled(id);
            }
            let published = Published::of(&state, self.trust_number);
            // Before anybody holds it. What waits for a date is neither served nor thrown away.
            let put_off = shelf.kept != KeptFiles::Done || self.cache.waits_for_its_date(id);
            if !put_off || !matches!(state, CacheState::Pending { .. }) {
                self.kept.follow(id, shelf, &state);
            }
            if shelf.published.as_ref() == Some(&published) {
                continue;
            }
            let ready = matches!(state, CacheState::Ready(_));
            shelf.sender.send_replace(render(state, self.told.as_ref()));
            shelf.published = Some(published);
            if ready {
                self.cache.published(id);
            }
        }
        self.report(now);
    }

    /// With every request slot taken, what is due waits for an answer and not for time.
    fn wake_at(&self) -> Option<Duration> {
        let now = self.moment();
        let due = self.cache.next_deadline(now);
        let due = due.filter(|due| *due > now.elapsed || self.can_ask());
        due.into_iter().chain(self.parked.next_overdue()).min()
    }
}

#[cfg(test)]
mod tests;
