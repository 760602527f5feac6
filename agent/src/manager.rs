//! The manager: one task owns the [`Cache`](crate::cache::Cache), drives it against the server, and publishes one
//! [`WorkloadState`] for each workload.
//!
//! [`Manager`] is the handle. Endpoints subscribe through [`WorkloadSource`]. The CSI driver reports, in this order for each
//! volume: [`Manager::volume_ready`] once (also for every kept volume after a restart), [`Manager::token_refreshed`]
//! whenever kubelet publishes again, [`Manager::volume_removed`] once. All three only leave a note for the task: they
//! wait for nothing and cannot fail. After `volume_ready` a caller of that volume's socket can attach.
//!
//! SVIDs are written for a restart of the agent before they are published, and taken over by the next run
//! (`manager/kept.rs`).
//!
//! A volume belongs to the pod UID it was first reported with. All volumes of one pod share the pod's leaves, the
//! longest-lived of their tokens counts, and the pod is forgotten with its last volume.

mod account;
mod admission;
mod doorways;
mod issue;
mod kept;
mod left;
mod parked;
mod receive;
mod render;
mod requests;
mod shelf;
mod status;
mod worker;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

pub(crate) use self::account::Account;
pub(crate) use self::admission::limit;
use self::doorways::Doorways;
pub(crate) use self::render::lists_of;
use crate::cache::{SlotStatus, UnixFacts, WorkloadId};
use crate::context::{AttachError, Caller, PeerProcess, WorkloadSource, WorkloadState};
use crate::kept::Places;
use crate::server_client::objections::Objections;
use crate::server_client::sync::Notice;
use crate::server_client::trust::TrustState;
use crate::server_client::{ServerApi, TrustReport};
use crate::shared::Shared;
use crate::token::PodToken;
use crate::unix::UnixAttestor;

/// A CSI volume with what kubelet said about its pod.
pub(crate) struct PodVolume {
    /// kubelet's id of the volume.
    pub volume_id: String,
    /// UID of the pod that the volume is pinned to.
    pub pod_uid: String,
    /// The pod, as `namespace/name`.
    pub pod: String,
    /// The pod's socket, on the host.
    pub socket: PathBuf,
    /// Where the pod's SVIDs may be kept: root-only, and gone with the volume.
    pub svid_file: PathBuf,
}

/// What the manager works with.
pub(crate) struct ManagerParts {
    /// Where certificates come from.
    pub api: Arc<dyn ServerApi>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The newest verified trust state.
    pub trust: watch::Receiver<Option<Arc<TrustState>>>,
    /// Since when the cluster's API server cannot be reached.
    pub outage: watch::Receiver<Option<SystemTime>>,
    /// News that is not state.
    pub notices: mpsc::Receiver<Notice>,
    /// Where the manager says what it has published.
    pub reports: watch::Sender<TrustReport>,
    /// Told when the server does not accept the agent's certificate.
    pub objections: Arc<Objections>,
    /// Attests callers of the shared socket; without it they are refused.
    pub unix: Option<UnixAttestor>,
    /// Pattern of each identity's backoff.
    pub backoff: Backoff,
    /// Where keys are kept for a restart.
    pub places: Places,
}

/// One workload as shown to a person.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadStatus {
    /// `pod` or `unix`.
    pub kind: &'static str,
    /// `namespace/name` or `uid:NNN`.
    pub name: String,
    /// Empty for processes.
    pub pod_uid: String,
    /// Where the socket is; empty for processes.
    pub socket: String,
    /// Streams that wait for news of this workload.
    pub streams: usize,
    /// Its identities.
    pub slots: Vec<SlotStatus>,
    /// Why there is no identity, or why it was not renewed.
    pub problem: String,
}

/// Questions that wait for the worker. Administrators ask, and each user once at a time.
const QUESTIONS: usize = 64;

/// The handle. Clones speak to the same worker.
#[derive(Clone)]
pub(crate) struct Manager {
    /// Unbounded, and yet bounded by its sender: kubelet's calls come one at a time.
    commands: mpsc::UnboundedSender<Command>,
    questions: mpsc::Sender<Question>,
    doorways: Arc<Doorways>,
    /// Whose process is being let in.
    turns: Arc<Shared<u32, Semaphore>>,
    unix: Option<UnixAttestor>,
}

/// What the worker is told.
enum Command {
    VolumeReady(PodVolume, watch::Sender<WorkloadState>),
    TokenRefreshed { volume_id: String, token: Arc<PodToken> },
    VolumeCutOff { volume_id: String },
    VolumeRemoved { volume_id: String },
    VolumeMissed { volume_id: String },
    VolumesNamed,
}

/// What the worker is asked.
enum Question {
    AttachProcess {
        facts: UnixFacts,
        peer: PeerProcess,
        reply: Reply,
        /// The user's, until this is answered or thrown away.
        turn: OwnedSemaphorePermit,
    },
    Account {
        id: WorkloadId,
        reply: oneshot::Sender<Account>,
    },
    Status {
        reply: oneshot::Sender<Vec<WorkloadStatus>>,
    },
}

type Reply = oneshot::Sender<Result<watch::Receiver<WorkloadState>, AttachError>>;

impl Manager {
    /// Starts the worker as a task of `drain`; it ends, and says [`WorkloadState::Gone`] to all, when draining starts.
    pub(crate) fn spawn(parts: ManagerParts, drain: &Drain) -> Self {
        let (commands, told) = mpsc::unbounded_channel();
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let unix = parts.unix.clone();
        let worker = worker::Worker::new(parts, told, asked);
        drain.spawn_vital("manager", worker.run(drain.clone()));
        Self {
            commands,
            questions,
            doorways: Arc::default(),
            turns: Arc::default(),
            unix,
        }
    }

    /// Every workload; empty once the agent ends.
    pub(crate) async fn status(&self) -> Vec<WorkloadStatus> {
        let (reply, answer) = oneshot::channel();
        // Fails only when the worker has ended, and then the answer does, too.
        let _ = self.questions.send(Question::Status { reply }).await;
        answer.await.unwrap_or_default()
    }

    /// A volume is published or, after a restart, known again; its token comes with [`Manager::token_refreshed`].
    /// Reported twice it is one volume; with another pod UID it is ignored.
    pub(crate) fn volume_ready(&self, volume: PodVolume) {
        let (volume_id, pod_uid) = (volume.volume_id.clone(), volume.pod_uid.clone());
        let tell = |channel| self.send(Command::VolumeReady(volume, channel));
        if !self.doorways.add(&volume_id, &pod_uid, tell) {
            tracing::warn!(%volume_id, "volume is pinned to another pod, report ignored");
        }
    }

    /// kubelet passed a newer token. An unknown volume is ignored, and so is a token that dies before the one held.
    pub(crate) fn token_refreshed(&self, volume_id: &str, token: Arc<PodToken>) {
        self.send(Command::TokenRefreshed {
            volume_id: volume_id.to_owned(),
            token,
        });
    }

    /// Containers of the volume's pod hold a folder that is gone; a person is told until the volume is.
    pub(crate) fn volume_cut_off(&self, volume_id: &str) {
        self.send(Command::VolumeCutOff {
            volume_id: volume_id.to_owned(),
        });
    }

    /// The volume is gone. Its streams end; the token is wiped.
    pub(crate) fn volume_removed(&self, volume_id: &str) {
        let removed = Command::VolumeRemoved {
            volume_id: volume_id.to_owned(),
        };
        self.doorways.remove(volume_id, || self.send(removed));
    }

    /// A volume of an earlier run that has no socket now. Its pod may hold what was issued then.
    pub(crate) fn volume_missed(&self, volume_id: &str) {
        self.send(Command::VolumeMissed {
            volume_id: volume_id.to_owned(),
        });
    }

    /// Every volume of an earlier run has been named.
    pub(crate) fn volumes_named(&self) {
        self.send(Command::VolumesNamed);
    }

    fn send(&self, command: Command) {
        // Fails only when the worker has ended, and then nothing is left to be told.
        let _ = self.commands.send(command);
    }

    /// Who a process is, and the turn of its user, which lasts until it is let go.
    async fn attested(&self, peer: &PeerProcess) -> Result<(UnixFacts, OwnedSemaphorePermit), AttachError> {
        let Some(unix) = &self.unix else {
            return Err(AttachError::Unavailable(
                "this agent attests no processes".to_owned(),
            ));
        };
        // One at a time of each user, so that nobody waits behind many of another's.
        let turn = self.turns.of(peer.uid, || Semaphore::new(1));
        let turn = turn.acquire_owned().await.map_err(|_| ending())?;
        // Failed attestation is never a verdict (EP-18).
        let attested = unix.attest(peer).await;
        let facts = attested.map_err(|error| AttachError::Unavailable(error.to_string()))?;
        Ok((facts, turn))
    }

    async fn attach_process(
        &self,
        peer: &PeerProcess,
    ) -> Result<watch::Receiver<WorkloadState>, AttachError> {
        let (facts, turn) = self.attested(peer).await?;
        let (reply, answer) = oneshot::channel();
        let question = Question::AttachProcess {
            facts,
            peer: peer.clone(),
            reply,
            turn,
        };
        self.questions.send(question).await.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }
}

fn ending() -> AttachError {
    AttachError::Unavailable("the agent is ending".to_owned())
}

impl WorkloadSource for Manager {
    fn attach<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<watch::Receiver<WorkloadState>, AttachError>> {
        Box::pin(async move {
            match caller {
                Caller::Volume { .. } if self.commands.is_closed() => Err(ending()),
                Caller::Volume { volume_id, pod_uid } => self.doorways.attach(volume_id, pod_uid),
                Caller::Peer(peer) => self.attach_process(peer).await,
            }
        })
    }
}
