//! What one caller may know of itself. No secrets, and nothing of others.

use std::time::SystemTime;

use tokio::sync::oneshot;

use super::admission::Admitted;
use super::{Manager, Question, ending};
use crate::cache::{Cache, CacheState, SlotStatus, UnixFacts, WorkloadId};
use crate::context::{AttachError, Caller, PeerProcess};
use crate::time::Moment;

/// What the agent knows of a caller.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// `pod` or `unix`.
    pub kind: &'static str,
    /// Of a pod, as `namespace/name`.
    pub pod: String,
    /// Of a pod.
    pub pod_uid: String,
    /// Of a process.
    pub process: Option<UnixFacts>,
    /// End of the token that proves the pod; `None` without one.
    pub token_ends: Option<SystemTime>,
    /// `ready`, `pending`, `refused` or `unknown`.
    pub state: &'static str,
    /// Why it waits or is refused.
    pub message: String,
    /// Streams that wait for news.
    pub streams: usize,
    /// Its identities.
    pub slots: Vec<SlotStatus>,
}

impl Account {
    /// Nothing is known but what the socket tells.
    fn of(id: &WorkloadId) -> Self {
        let (kind, pod_uid, process) = match id {
            WorkloadId::Pod(uid) => ("pod", uid.clone(), None),
            WorkloadId::Unix(facts) => ("unix", String::new(), Some(facts.clone())),
        };
        Self {
            kind,
            pod: String::new(),
            pod_uid,
            process,
            token_ends: None,
            state: "unknown",
            message: String::new(),
            streams: 0,
            slots: Vec::new(),
        }
    }

    fn of_stranger(peer: &PeerProcess) -> Self {
        Self::of(&WorkloadId::Unix(UnixFacts {
            uid: peer.uid,
            gid: peer.gid,
            path: None,
            sha256: None,
        }))
    }
}

/// What is known of one workload.
pub(super) fn account(cache: &Cache, admitted: &Admitted, id: &WorkloadId, now: Moment) -> Account {
    let mut account = Account::of(id);
    let Some(shelf) = admitted.get(id) else {
        return account;
    };
    if let Some(volume) = shelf.volumes().first() {
        account.pod.clone_from(&volume.name);
    }
    account.token_ends = shelf.token_ends();
    account.streams = shelf.streams();
    account.slots = cache.status(id, now);
    (account.state, account.message) = match cache.state(id, now) {
        Some(CacheState::Ready(_)) => {
            let problem = account.slots.iter().find_map(|slot| slot.problem.clone());
            ("ready", problem.unwrap_or_default())
        }
        Some(CacheState::Pending { problem }) => ("pending", problem.unwrap_or_default()),
        Some(CacheState::Refused { message }) => ("refused", message),
        None => ("unknown", String::new()),
    };
    account
}

impl Manager {
    /// What is known of a caller. It is let in as for an identity, and subscribes to nothing.
    ///
    /// # Errors
    /// Why it is not attested, with what is known all the same.
    pub(crate) async fn account(&self, caller: &Caller) -> Result<Account, (Account, AttachError)> {
        match caller {
            Caller::Volume { volume_id, pod_uid } => {
                let id = WorkloadId::Pod(pod_uid.clone());
                match self.doorways.attach(volume_id, pod_uid) {
                    Ok(_) => self.ask_account(id).await,
                    Err(error) => Err((Account::of(&id), error)),
                }
            }
            Caller::Peer(peer) => {
                let stranger = |error| (Account::of_stranger(peer), error);
                let (facts, _turn) = self.attested(peer).await.map_err(stranger)?;
                self.ask_account(WorkloadId::Unix(facts)).await
            }
        }
    }

    async fn ask_account(&self, id: WorkloadId) -> Result<Account, (Account, AttachError)> {
        let (reply, answer) = oneshot::channel();
        let nothing = Account::of(&id);
        // Fails only when the worker has ended, and then the answer does, too.
        let _ = self.questions.send(Question::Account { id, reply }).await;
        answer.await.map_err(|_| (nothing, ending()))
    }
}
