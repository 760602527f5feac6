//! What the worker keeps for one workload beside the cache: its subscribers, and who can prove it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::PodVolume;
use super::render::Published;
use crate::cache::{Evidence, UnixFacts};
use crate::context::{PeerProcess, WorkloadState};
use crate::peer::Connected;
use crate::token::PodToken;

/// Connections of one program that are remembered as its proof; each is looked at again and again.
const MAX_PEERS: usize = 256;

/// One workload.
pub(super) struct Shelf {
    pub(super) sender: watch::Sender<WorkloadState>,
    /// What was sent last, in a form that is cheap to compare.
    pub(super) published: Option<Published>,
    /// What an earlier run of the agent kept for it.
    pub(super) kept: KeptFiles,
    pub(super) holders: Holders,
}

/// How far the files that an earlier run of the agent left were looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum KeptFiles {
    /// Not yet.
    Unread,
    /// They are no good by the present clock; looked at again when the server has told the time.
    NotNow,
    /// Taken over, or there were none.
    Done,
}

/// Those whose existence is the workload's.
pub(super) enum Holders {
    Volumes(Vec<Volume>),
    Processes { facts: UnixFacts, peers: Vec<Connected> },
}

/// A volume of a pod.
pub(super) struct Volume {
    pub(super) volume_id: String,
    pub(super) name: String,
    pub(super) socket: PathBuf,
    pub(super) svid_file: PathBuf,
    /// Containers of the pod hold a folder that is gone.
    pub(super) cut_off: bool,
    token: Option<Arc<PodToken>>,
}

/// What goes with a request.
#[derive(Clone)]
pub(super) enum Proof {
    Token(Arc<PodToken>),
    Process {
        facts: UnixFacts,
        peers: Vec<PeerProcess>,
    },
}

impl Volume {
    pub(super) fn new(volume: PodVolume) -> Self {
        Self {
            volume_id: volume.volume_id,
            name: volume.pod,
            socket: volume.socket,
            svid_file: volume.svid_file,
            cut_off: false,
            token: None,
        }
    }

    /// A token that dies earlier than the one held is an old one that arrives late.
    pub(super) fn refresh(&mut self, token: Arc<PodToken>) {
        if self
            .token
            .as_ref()
            .is_none_or(|held| held.expires() <= token.expires())
        {
            self.token = Some(token);
        }
    }
}

/// The one that lives longest.
fn best_token(volumes: &[Volume]) -> Option<&Arc<PodToken>> {
    volumes
        .iter()
        .filter_map(|volume| volume.token.as_ref())
        .max_by_key(|token| token.expires())
}

impl Shelf {
    pub(super) fn new(sender: watch::Sender<WorkloadState>, holders: Holders) -> Self {
        Self {
            sender,
            published: None,
            kept: KeptFiles::Unread,
            holders,
        }
    }

    /// Of a pod; empty for a process.
    pub(super) fn volumes(&self) -> &[Volume] {
        match &self.holders {
            Holders::Volumes(volumes) => volumes,
            Holders::Processes { .. } => &[],
        }
    }

    pub(super) fn volumes_mut(&mut self) -> &mut [Volume] {
        match &mut self.holders {
            Holders::Volumes(volumes) => volumes,
            Holders::Processes { .. } => &mut [],
        }
    }

    pub(super) fn is_process(&self) -> bool {
        matches!(self.holders, Holders::Processes { .. })
    }

    /// Streams that wait for news.
    pub(super) fn streams(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Until when the best token proves the pod; `None` without one, and for a process.
    pub(super) fn token_ends(&self) -> Option<SystemTime> {
        best_token(self.volumes()).map(|token| token.expires())
    }

    /// Whether the server can be asked; forgets processes that have ended or run something else. A process proves something only while it
    /// waits for news: nothing is renewed for nobody.
    pub(super) fn evidence(&mut self) -> Evidence {
        let streams = self.streams();
        match &mut self.holders {
            Holders::Volumes(volumes) => {
                best_token(volumes).map_or(Evidence::Absent, |token| Evidence::Until(token.expires()))
            }
            Holders::Processes { peers, .. } => {
                peers.retain(Connected::is_unchanged);
                if peers.is_empty() || streams == 0 {
                    Evidence::Absent
                } else {
                    Evidence::Live
                }
            }
        }
    }

    /// The best evidence for a request.
    pub(super) fn proof(&self) -> Option<Proof> {
        match &self.holders {
            Holders::Volumes(volumes) => Some(Proof::Token(best_token(volumes)?.clone())),
            Holders::Processes { facts, peers } => Some(Proof::Process {
                facts: facts.clone(),
                peers: peers.iter().filter_map(Connected::peer).collect(),
            }),
        }
    }

    /// Adds a process; a connection over which it calls again is remembered once. Beyond [`MAX_PEERS`] the others are proof enough.
    pub(super) fn add_process(&mut self, peer: &PeerProcess) {
        if let Holders::Processes { peers, .. } = &mut self.holders {
            peers.retain(|known| known.is_unchanged() && !known.is_of(peer));
            if peers.len() < MAX_PEERS {
                peers.push(Connected::of(peer));
            }
        }
    }
}
