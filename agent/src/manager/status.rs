//! The workloads as a person sees them. No secrets.

use super::WorkloadStatus;
use super::admission::Admitted;
use super::shelf::Shelf;
use crate::cache::{Cache, CacheState, WorkloadId};
use crate::time::Moment;

/// Every workload.
pub(super) fn status(cache: &Cache, admitted: &Admitted, now: Moment) -> Vec<WorkloadStatus> {
    admitted
        .iter()
        .map(|(id, shelf)| workload(cache, id, shelf, now))
        .collect()
}

/// What nobody but the pod's owner can mend.
const CUT_OFF: &str = "the pod's volume was mounted from a folder that is gone: containers that ran then reach no agent; restart the pod";

fn workload(cache: &Cache, id: &WorkloadId, shelf: &Shelf, now: Moment) -> WorkloadStatus {
    let slots = cache.status(id, now);
    let problem = match cache.state(id, now) {
        Some(CacheState::Pending { problem }) => problem,
        Some(CacheState::Refused { message }) => Some(message),
        Some(CacheState::Ready(_)) | None => slots.iter().find_map(|slot| slot.problem.clone()),
    };
    let cut_off = shelf.volumes().iter().any(|volume| volume.cut_off);
    let problems: Vec<String> = cut_off
        .then(|| CUT_OFF.to_owned())
        .into_iter()
        .chain(problem)
        .collect();
    let volume = shelf.volumes().first();
    let (kind, pod_uid) = match id {
        WorkloadId::Pod(uid) => ("pod", uid.clone()),
        WorkloadId::Unix(_) => ("unix", String::new()),
    };
    WorkloadStatus {
        kind,
        name: volume.map_or_else(|| name(id), |volume| volume.name.clone()),
        pod_uid,
        socket: volume
            .map(|volume| volume.socket.display().to_string())
            .unwrap_or_default(),
        streams: shelf.streams(),
        slots,
        problem: problems.join("; "),
    }
}

/// For logs and status: no secrets.
pub(super) fn name(id: &WorkloadId) -> String {
    match id {
        WorkloadId::Pod(uid) => format!("pod:{uid}"),
        WorkloadId::Unix(facts) => format!("uid:{}", facts.uid),
    }
}
