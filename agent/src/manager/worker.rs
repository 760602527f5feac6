//! The task that owns the cache.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use signet_certs::signer::LeafKey;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::pace::{nap_until, random_unit};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::issue::{Answer, Requester};
use super::receive::{accept, authority_of};
use super::render::{Published, render};
use super::shelf::{Holders, Shelf, Volume};
use super::status::{name, status};
use super::{Command, ManagerParts, PodVolume};
use crate::cache::{Cache, CacheState, Evidence, Failure, TrustView, UnixFacts, Wanted, WorkloadId};
use crate::context::{AttachError, PeerProcess, WorkloadState};
use crate::server_client::sync::Notice;
use crate::server_client::trust::TrustState;
use crate::server_client::{IssuedChain, MAX_BATCH, TrustReport};

/// Requests to the server at the same time.
const MAX_REQUESTS: usize = 4;

/// Workloads from which on no further process is taken on without letting an idle one go. Pods are bounded by kubelet.
const MAX_WORKLOADS: usize = 1024;

/// The part of them that one user may take, who can make as many programs as he likes.
pub(super) const MAX_PROGRAMS_PER_USER: usize = 128;

/// How long a certificate waits for the bundle that verifies it.
const PARKED_FOR: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    cache: Cache,
    shelves: BTreeMap<WorkloadId, Shelf>,
    /// Certificates whose authority has not arrived in the bundle yet; their identities count as in flight.
    parked: Vec<Parked>,
    requests: JoinSet<Vec<(Wanted, Answer)>>,
    /// What each request is about, for the case that its task dies.
    asked: HashMap<Id, Vec<Wanted>>,
    requester: Requester,
    clock: Arc<dyn Clock>,
    commands: mpsc::UnboundedReceiver<Command>,
    notices: mpsc::Receiver<Notice>,
    trust_changes: watch::Receiver<Option<Arc<TrustState>>>,
    trust: Option<Arc<TrustState>>,
    /// Numbers the trust states, so that comparing what was published is cheap.
    trust_number: u64,
    reports: watch::Sender<TrustReport>,
}

struct Parked {
    wanted: Wanted,
    chain: IssuedChain,
    key: LeafKey,
    until: SystemTime,
}

impl Worker {
    pub(super) fn new(parts: ManagerParts, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        let mut trust_changes = parts.trust;
        trust_changes.mark_changed();
        Self {
            cache: Cache::new(parts.backoff),
            shelves: BTreeMap::new(),
            parked: Vec::new(),
            requests: JoinSet::new(),
            asked: HashMap::new(),
            requester: Requester {
                api: parts.api,
                attest_again: parts.attest_again,
                rng: SystemRandom::new(),
                unix: parts.unix,
            },
            clock: parts.clock,
            commands,
            notices: parts.notices,
            trust_changes,
            trust: None,
            trust_number: 0,
            reports: parts.reports,
        }
    }

    pub(super) async fn run(mut self, drain: Drain) {
        let clock = self.clock.clone();
        loop {
            self.start_requests();
            self.publish();
            let wake = self.wake_at();
            tokio::select! {
                () = drain.signalled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(notice) = self.notices.recv() => self.notice(&notice),
                Ok(()) = self.trust_changes.changed() => self.take_trust(),
                Some(done) = self.requests.join_next_with_id() => self.take_answers(done),
                () = nap_until(clock.as_ref(), wake) => {}
            }
        }
        for shelf in self.shelves.values() {
            shelf.sender.send_replace(WorkloadState::Gone);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::VolumeReady(volume) => self.volume_ready(volume),
            Command::TokenRefreshed { volume_id, token } => {
                if let Some((_, volume)) = find_volume(&mut self.shelves, &volume_id) {
                    volume.refresh(token);
                }
            }
            Command::VolumeRemoved { volume_id } => self.volume_removed(&volume_id),
            // A receiver that is dropped because nobody waits for the reply any more is unsubscribed by that.
            Command::AttachVolume {
                volume_id,
                pod_uid,
                reply,
            } => {
                let _ = reply.send(self.attach_volume(&volume_id, &pod_uid));
            }
            Command::AttachProcess { facts, peer, reply } => {
                let _ = reply.send(self.attach_process(facts, peer));
            }
            Command::Status { reply } => {
                let now = self.clock.now();
                let _ = reply.send(status(&self.cache, &self.shelves, now));
            }
        }
    }

    fn volume_ready(&mut self, volume: PodVolume) {
        let id = WorkloadId::Pod(volume.pod_uid.clone());
        if let Some((owner, _)) = find_volume(&mut self.shelves, &volume.volume_id)
            && *owner != id
        {
            tracing::warn!(volume_id = %volume.volume_id, "volume is pinned to another pod, report ignored");
            return;
        }
        let shelf = self
            .shelves
            .entry(id)
            .or_insert_with(|| Shelf::new(Holders::Volumes(Vec::new())));
        let Holders::Volumes(volumes) = &mut shelf.holders else {
            return;
        };
        if volumes.iter().all(|known| known.volume_id != volume.volume_id) {
            volumes.push(Volume::new(volume));
        }
    }

    fn volume_removed(&mut self, volume_id: &str) {
        let Some((id, _)) = find_volume(&mut self.shelves, volume_id) else {
            return;
        };
        let id = id.clone();
        let Some(Shelf {
            holders: Holders::Volumes(volumes),
            ..
        }) = self.shelves.get_mut(&id)
        else {
            return;
        };
        volumes.retain(|volume| volume.volume_id != volume_id);
        if volumes.is_empty() {
            self.forget(&id);
        }
    }

    fn attach_volume(
        &mut self,
        volume_id: &str,
        pod_uid: &str,
    ) -> Result<watch::Receiver<WorkloadState>, AttachError> {
        let known = find_volume(&mut self.shelves, volume_id).map(|(id, _)| id.clone());
        let id = known.filter(|id| *id == WorkloadId::Pod(pod_uid.to_owned()));
        let shelf = id.and_then(|id| self.shelves.get(&id));
        let unknown =
            || AttachError::Unavailable("the volume of this socket is not known (any more)".to_owned());
        shelf.map(|shelf| shelf.sender.subscribe()).ok_or_else(unknown)
    }

    fn attach_process(
        &mut self,
        facts: UnixFacts,
        peer: PeerProcess,
    ) -> Result<watch::Receiver<WorkloadState>, AttachError> {
        let id = WorkloadId::Unix(facts.clone());
        if !self.shelves.contains_key(&id) && !self.make_room(facts.uid) {
            let message = "the agent serves as many different programs as it can";
            return Err(AttachError::Unavailable(message.to_owned()));
        }
        let new = || {
            Shelf::new(Holders::Processes {
                facts,
                peers: Vec::new(),
            })
        };
        let shelf = self.shelves.entry(id).or_insert_with(new);
        shelf.add_process(peer);
        Ok(shelf.sender.subscribe())
    }

    /// Whether one more program of this user has room; another that nobody waits for is forgotten if need be, and for a
    /// user beyond his share only one of his own.
    fn make_room(&mut self, user: u32) -> bool {
        let of_user = |id: &WorkloadId| matches!(id, WorkloadId::Unix(facts) if facts.uid == user);
        let own = self.shelves.keys().filter(|id| of_user(id)).count();
        let greedy = own >= MAX_PROGRAMS_PER_USER;
        if !greedy && self.shelves.len() < MAX_WORKLOADS {
            return true;
        }
        let idle = |(id, shelf): &(&WorkloadId, &Shelf)| {
            let process = matches!(shelf.holders, Holders::Processes { .. });
            process && shelf.streams() == 0 && (!greedy || of_user(id))
        };
        let Some(id) = self.shelves.iter().find(idle).map(|(id, _)| id.clone()) else {
            return false;
        };
        self.forget(&id);
        true
    }

    fn notice(&mut self, notice: &Notice) {
        let now = self.clock.now();
        match notice {
            Notice::Affected(affected) => self.cache.affected(affected, now),
            Notice::Connected => self.cache.server_back(now),
        }
    }

    /// Takes over the newest trust, and with it the certificates that waited for it.
    fn take_trust(&mut self) {
        let Some(trust) = self.trust_changes.borrow_and_update().clone() else {
            return;
        };
        let now = self.clock.now();
        self.cache.set_trust(trust.clone() as Arc<dyn TrustView>, now);
        self.cache.set_policy_revision(trust.policy_revision, now);
        // A push that brought nothing to publish publishes nothing (API-16).
        if !self.trust.as_ref().is_some_and(|held| held.looks_like(&trust)) {
            self.trust_number += 1;
        }
        self.trust = Some(trust);
        for parked in std::mem::take(&mut self.parked) {
            self.receive(parked, now);
        }
    }

    fn take_answers(&mut self, done: Result<(Id, Vec<(Wanted, Answer)>), JoinError>) {
        let now = self.clock.now();
        match done {
            Ok((id, answers)) => {
                self.asked.remove(&id);
                answers
                    .into_iter()
                    .for_each(|(wanted, answer)| self.take_answer(wanted, answer, now));
            }
            Err(error) => {
                tracing::error!(%error, "a request for certificates died");
                let failure = Failure::new("the agent failed to ask the server");
                for wanted in self.asked.remove(&error.id()).unwrap_or_default() {
                    self.cache.failed(&wanted, &failure, now, random_unit());
                }
            }
        }
    }

    fn take_answer(&mut self, wanted: Wanted, answer: Answer, now: SystemTime) {
        match answer {
            Answer::Issued { chain, key } => {
                self.receive(
                    Parked {
                        wanted,
                        chain,
                        key,
                        until: now + PARKED_FOR,
                    },
                    now,
                );
            }
            Answer::Refused(verdict) => {
                tracing::info!(workload = %name(&wanted.workload), reason = %verdict.message, "no identity issued");
                self.cache.refused(&wanted, verdict, now);
            }
            Answer::Failed(failure) => self.failed(&wanted, &failure, now),
        }
    }

    /// Publishes a certificate, parks it until the bundle can verify it, or drops it.
    fn receive(&mut self, parked: Parked, now: SystemTime) {
        let Parked {
            wanted,
            chain,
            key,
            until,
        } = parked;
        let held = |trust: &&Arc<TrustState>| authority_of(&chain).map_or(true, |id| trust.contains(&id));
        let Some(trust) = self.trust.as_ref().filter(held) else {
            if now < until && self.cache.contains(&wanted.workload) {
                return self.parked.push(Parked {
                    wanted,
                    chain,
                    key,
                    until,
                });
            }
            return self.failed(
                &wanted,
                &Failure::new("the bundle that verifies the certificate has not arrived"),
                now,
            );
        };
        match accept(&wanted, chain, key, trust, now) {
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

    fn failed(&mut self, wanted: &Wanted, failure: &Failure, now: SystemTime) {
        tracing::warn!(workload = %name(&wanted.workload), reason = %failure.message, "X.509-SVID not received, will retry");
        self.cache.failed(wanted, failure, now, random_unit());
    }

    fn start_requests(&mut self) {
        let now = self.clock.now();
        self.refresh_evidence(now);
        let overdue = self.parked.extract_if(.., |parked| parked.until <= now);
        for parked in overdue.collect::<Vec<_>>() {
            self.receive(parked, now);
        }
        while self.can_ask() {
            let wanted = self.cache.due(now, MAX_BATCH);
            if wanted.is_empty() {
                return;
            }
            // Processes are looked at again first, which takes as long as their executables are large: pods do not wait.
            let is_pod = |wanted: &Wanted| matches!(wanted.workload, WorkloadId::Pod(_));
            let (pods, processes): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_pod);
            for part in [pods, processes] {
                self.start_request(part);
            }
        }
    }

    /// Before the first trust state nothing could be published, and the server is not reached yet anyway.
    fn can_ask(&self) -> bool {
        self.trust.is_some() && self.requests.len() < MAX_REQUESTS
    }

    fn start_request(&mut self, wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let proof = |wanted: &Wanted| self.shelves.get(&wanted.workload).and_then(Shelf::proof);
        let batch = wanted
            .iter()
            .map(|wanted| (wanted.clone(), proof(wanted)))
            .collect();
        let task = self.requests.spawn(self.requester.clone().ask(batch));
        self.asked.insert(task.id(), wanted);
    }

    /// Tells the cache who can be proved, and forgets programs that nobody runs or asks for any more.
    fn refresh_evidence(&mut self, now: SystemTime) {
        let mut idle = Vec::new();
        for (id, shelf) in &mut self.shelves {
            let evidence = shelf.evidence();
            self.cache.set_evidence(id, evidence);
            // A leaf or a verdict is kept for the next process of the same kind, so that calling often costs nothing.
            let worth_keeping = !matches!(self.cache.state(id, now), Some(CacheState::Pending { .. }));
            let process = matches!(shelf.holders, Holders::Processes { .. });
            if process && evidence == Evidence::Absent && shelf.streams() == 0 && !worth_keeping {
                idle.push(id.clone());
            }
        }
        idle.iter().for_each(|id| self.forget(id));
    }

    fn forget(&mut self, id: &WorkloadId) {
        self.cache.remove(id);
        self.parked.retain(|parked| parked.wanted.workload != *id);
        if let Some(shelf) = self.shelves.remove(id) {
            shelf.sender.send_replace(WorkloadState::Gone);
        }
    }

    fn publish(&mut self) {
        let now = self.clock.now();
        for (id, shelf) in &mut self.shelves {
            let Some(state) = self.cache.state(id, now) else {
                continue;
            };
            let published = Published::of(&state, self.trust_number);
            if shelf.published.as_ref() == Some(&published) {
                continue;
            }
            let ready = matches!(state, CacheState::Ready(_));
            shelf.sender.send_replace(render(state, self.trust.as_deref()));
            shelf.published = Some(published);
            if ready {
                self.cache.published(id);
            }
        }
        self.report(now);
    }

    /// After publishing: what is reported has reached the workloads' channels.
    fn report(&self, now: SystemTime) {
        let pods = self.shelves.keys().filter_map(|id| match id {
            WorkloadId::Pod(uid) => Some(uid.clone()),
            WorkloadId::Unix(_) => None,
        });
        let report = TrustReport {
            authorities_in_use: self.cache.authorities_in_use(now).into_iter().collect(),
            pod_uids: pods.collect(),
            ..self
                .trust
                .as_ref()
                .map(|trust| trust.report())
                .unwrap_or_default()
        };
        self.reports.send_if_modified(|current| {
            let changed = *current != report;
            *current = report;
            changed
        });
    }

    /// With every request slot taken, what is due waits for an answer and not for time.
    fn wake_at(&self) -> Option<SystemTime> {
        let now = self.clock.now();
        let due = self.cache.next_deadline(now);
        let due = due.filter(|due| *due > now || self.can_ask());
        due.into_iter()
            .chain(self.parked.iter().map(|parked| parked.until))
            .min()
    }
}

fn find_volume<'a>(
    shelves: &'a mut BTreeMap<WorkloadId, Shelf>,
    volume_id: &str,
) -> Option<(&'a WorkloadId, &'a mut Volume)> {
    shelves
        .iter_mut()
        .find_map(|(id, shelf)| match &mut shelf.holders {
            Holders::Volumes(volumes) => {
                let volume = volumes.iter_mut().find(|volume| volume.volume_id == volume_id)?;
                Some((id, volume))
            }
            Holders::Processes { .. } => None,
        })
}
