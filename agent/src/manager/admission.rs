//! Who is let in: pods by their volumes, processes as far as there is room.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use signet_runtime::limits::Limit;
use tokio::sync::watch;

use super::PodVolume;
use super::shelf::{Holders, Shelf, Volume};
use crate::cache::{UnixFacts, WorkloadId};
use crate::context::{PeerProcess, WorkloadState};
use crate::token::PodToken;

/// Workloads from which on no further process is taken on without letting an idle one go. Pods are bounded by kubelet.
const MAX_WORKLOADS: usize = 1024;

/// The part of them that one user may take, who can make as many programs as he likes.
pub(super) const MAX_PROGRAMS_PER_USER: usize = 128;

/// Row of the table of limits.
pub(crate) fn limit() -> Limit {
    Limit {
        who: "a user of the shared socket",
        what: "programs that are known",
        share: "none".to_owned(),
        cap: format!(
            "{MAX_PROGRAMS_PER_USER}, of {MAX_WORKLOADS} workloads in all; one that nobody waits for makes room"
        ),
        counted: "agent::manager::admission",
        metric: crate::unix::METRIC,
    }
}

/// The workloads that were let in, each with its shelf.
#[derive(Default)]
pub(super) struct Admitted {
    shelves: BTreeMap<WorkloadId, Shelf>,
    /// The pod that each volume is pinned to.
    owners: HashMap<String, WorkloadId>,
}

/// Whether one more program can be taken on.
pub(super) enum Room {
    Free,
    /// When this one, which nobody waits for, is forgotten.
    Instead(WorkloadId),
    Full,
}

impl Admitted {
    /// A volume of a pod, whose callers hear over this channel.
    pub(super) fn volume_ready(&mut self, volume: PodVolume, channel: watch::Sender<WorkloadState>) {
        let id = WorkloadId::Pod(volume.pod_uid.clone());
        self.owners.insert(volume.volume_id.clone(), id.clone());
        let new = || Shelf::new(channel, Holders::Volumes(Vec::new()));
        let shelf = self.shelves.entry(id).or_insert_with(new);
        let Holders::Volumes(volumes) = &mut shelf.holders else {
            return;
        };
        if volumes.iter().all(|known| known.volume_id != volume.volume_id) {
            volumes.push(Volume::new(volume));
        }
    }

    pub(super) fn token_refreshed(&mut self, volume_id: &str, token: Arc<PodToken>) {
        if let Some(volume) = self.volume_mut(volume_id) {
            volume.refresh(token);
        }
    }

    pub(super) fn volume_cut_off(&mut self, volume_id: &str) {
        if let Some(volume) = self.volume_mut(volume_id) {
            volume.cut_off = true;
        }
    }

    fn volume_mut(&mut self, volume_id: &str) -> Option<&mut Volume> {
        let shelf = self.shelves.get_mut(self.owners.get(volume_id)?)?;
        let mut volumes = shelf.volumes_mut().iter_mut();
        volumes.find(|volume| volume.volume_id == volume_id)
    }

    /// Gives the volume back, and the pod when it has lost its last one and is to be forgotten.
    pub(super) fn volume_removed(&mut self, volume_id: &str) -> Option<(Volume, Option<WorkloadId>)> {
        let id = self.owners.remove(volume_id)?;
        let Holders::Volumes(volumes) = &mut self.shelves.get_mut(&id)?.holders else {
            return None;
        };
        let position = volumes.iter().position(|volume| volume.volume_id == volume_id)?;
        let volume = volumes.remove(position);
        let forgotten = volumes.is_empty().then_some(id);
        Some((volume, forgotten))
    }

    /// For a program that is there already, or for a new one; of a user beyond his share only one of his own makes room.
    pub(super) fn room_for(&self, facts: &UnixFacts) -> Room {
        if self.shelves.contains_key(&WorkloadId::Unix(facts.clone())) {
            return Room::Free;
        }
        let of_user = |id: &WorkloadId| matches!(id, WorkloadId::Unix(known) if known.uid == facts.uid);
        let own = self.shelves.keys().filter(|id| of_user(id)).count();
        let greedy = own >= MAX_PROGRAMS_PER_USER;
        if !greedy && self.shelves.len() < MAX_WORKLOADS {
            return Room::Free;
        }
        let idle = |(id, shelf): &(&WorkloadId, &Shelf)| {
            shelf.is_process() && shelf.streams() == 0 && (!greedy || of_user(id))
        };
        match self.shelves.iter().find(idle) {
            Some((id, _)) => Room::Instead(id.clone()),
            None => Room::Full,
        }
    }

    /// Subscribes a process; there must be [room](Self::room_for).
    pub(super) fn attach_process(
        &mut self,
        facts: UnixFacts,
        peer: PeerProcess,
    ) -> watch::Receiver<WorkloadState> {
        let id = WorkloadId::Unix(facts.clone());
        let new = || {
            let channel = watch::Sender::new(WorkloadState::Pending { problem: None });
            Shelf::new(
                channel,
                Holders::Processes {
                    facts,
                    peers: Vec::new(),
                },
            )
        };
        let shelf = self.shelves.entry(id).or_insert_with(new);
        shelf.add_process(&peer);
        shelf.sender.subscribe()
    }

    /// Its subscribers are told that it is gone.
    pub(super) fn remove(&mut self, id: &WorkloadId) {
        if let Some(shelf) = self.shelves.remove(id) {
            shelf.sender.send_replace(WorkloadState::Gone);
        }
    }

    pub(super) fn get(&self, id: &WorkloadId) -> Option<&Shelf> {
        self.shelves.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&WorkloadId, &Shelf)> {
        self.shelves.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&WorkloadId, &mut Shelf)> {
        self.shelves.iter_mut()
    }

    /// UIDs of the pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = &String> {
        self.shelves.keys().filter_map(|id| match id {
            WorkloadId::Pod(uid) => Some(uid),
            WorkloadId::Unix(_) => None,
        })
    }
}
