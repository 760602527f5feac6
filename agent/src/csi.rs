//! The CSI driver: every pod that mounts a volume of it gets a socket directory of its own, so that the socket is the
//! attestation and no process id has to be guessed.
//!
//! kubelet names the pod and brings its token in each publish call; the driver pins the volume to the first pod UID it is
//! given, keeps the token on tmpfs, and never waits for the server: a pod starts whether or not the server is up.

pub(crate) mod mount;
mod publish;
pub(crate) mod registration;
mod service;
pub(crate) mod sockets;
pub(crate) mod standing;
pub(crate) mod volumes;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use signet_proto::csi::{self as wire, identity_server, node_server};
use signet_runtime::{drain::Drain, files::FileError, limits::Limit, uds};
use tokio::sync::Mutex;
use tonic::Status;

pub use self::publish::TokensFrom;
use self::{
    mount::{Bound, Mounter},
    publish::{Publication, Target},
    standing::Standing,
    volumes::{Folder, VolumeRecord, Volumes},
};
use crate::{
    sockets::incoming::{call_span, incoming},
    token::PodToken,
};

/// Only root may call the driver: kubelet does.
const SOCKET_MODE: u32 = 0o600;
/// kubelet's messages are small; a pod's tokens are a few kilobytes.
const MAX_MESSAGE: usize = 1 << 20;

/// Most volumes of one pod; each is a socket, and files. One does for all its containers.
const MAX_VOLUMES_OF_POD: usize = 16;

/// The rest of the agent, as the driver sees it.
pub trait VolumeSink: Send + Sync {
    /// Serves the Workload API for a volume: a new one, or one rebuilt after a restart. Called once for each. In
    /// `svid_file` what it serves may be kept, with its key; it goes with the volume.
    ///
    /// # Errors
    /// When the socket cannot be made. The publish call then fails and kubelet calls again.
    fn open(&self, volume: &VolumeRecord, socket: &Path, svid_file: &Path) -> anyhow::Result<()>;

    /// A token of the volume's pod: the first, or a fresher one.
    fn token(&self, volume_id: &str, token: Arc<PodToken>);

    /// Containers of the volume's pod hold a folder that is gone: no socket of this agent is in it.
    fn cut_off(&self, volume_id: &str);

    /// A volume that was there before a restart is not served: what its pod holds is not known.
    fn missed(&self, volume_id: &str);

    /// The volume is gone: its socket closes, its keys are forgotten.
    fn close(&self, volume_id: &str);
}

/// Settings of the driver.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Name of the CSIDriver object.
    pub driver_name: String,
    /// Where kubelet calls the driver.
    pub socket_path: PathBuf,
    /// kubelet's plugin registry.
    pub registration_dir: PathBuf,
    /// kubelet's root directory; targets outside of its `pods` are refused.
    pub kubelet_dir: PathBuf,
    /// Name of this node.
    pub node_name: String,
    /// Audience of the pod tokens.
    pub token_audience: String,
    /// Where kubelet puts them.
    pub tokens_from: TokensFrom,
    /// Volumes that there is room for.
    pub max_volumes: usize,
}

/// Rows of the table of limits.
pub(crate) fn limits() -> [Limit; 2] {
    let row = |who, what, cap: String| Limit {
        who,
        what,
        share: cap.clone(),
        cap,
        counted: "agent::csi",
        metric: standing::REFUSED,
    };
    [
        row("a pod", "volumes", MAX_VOLUMES_OF_POD.to_string()),
        row(
            "all pods of a node",
            "volumes",
            "what the limit of open files leaves for volumes".to_owned(),
        ),
    ]
}

impl DriverConfig {
    fn no_room(&self) -> String {
        format!(
            "the agent has room for {} volumes, by the number of files that it may open: raise its limit (LimitNOFILE= of systemd, ulimit -n)",
            self.max_volumes
        )
    }
}

/// The driver's service; clones share one state.
#[derive(Clone)]
pub struct Driver {
    config: Arc<DriverConfig>,
    mounter: Arc<dyn Mounter>,
    sink: Arc<dyn VolumeSink>,
    standing: Standing,
    /// One call at a time: kubelet may repeat a call while the first still runs.
    volumes: Arc<Mutex<Held>>,
}

/// What the driver keeps.
struct Held {
    records: Volumes,
    /// Volumes whose socket is open. One that could not be opened after a restart is opened at kubelet's next call.
    served: BTreeSet<String>,
}

impl Driver {
    /// Rebuilds every volume that was there before a restart, each with its kept token.
    #[must_use]
    pub fn restore(
        config: DriverConfig,
        volumes: Volumes,
        mounter: Arc<dyn Mounter>,
        sink: Arc<dyn VolumeSink>,
        standing: Standing,
    ) -> Self {
        let mut served = BTreeSet::new();
        for (record, token) in volumes.all() {
            if served.len() >= config.max_volumes {
                tracing::error!(volume = %record.volume_id, pod = %record.pod(), reason = config.no_room(), "a volume is not served again");
                sink.missed(&record.volume_id);
                continue;
            }
            if let Err(error) = open(sink.as_ref(), &volumes, &record) {
                tracing::error!(volume = %record.volume_id, pod = %record.pod(), error = format!("{error:#}"), "a volume could not be served again");
                sink.missed(&record.volume_id);
                continue;
            }
            served.insert(record.volume_id.clone());
            if let Some(token) = token {
                sink.token(&record.volume_id, token);
            }
            if volumes.is_cut_off(&record.volume_id) {
                sink.cut_off(&record.volume_id);
            }
        }
        standing.tell(&volumes);
        Self {
            config: Arc::new(config),
            mounter,
            sink,
            standing,
            volumes: Arc::new(Mutex::new(Held {
                records: volumes,
                served,
            })),
        }
    }

    /// Listens for kubelet and registers with it; ends when `drain` is signalled.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn serve(self, drain: &Drain) -> anyhow::Result<()> {
        let listener = uds::bind(&self.config.socket_path, SOCKET_MODE, None, None)?;
        let ended = drain.clone();
        let config = self.config.clone();
        let server = tonic::transport::Server::builder()
            .trace_fn(call_span)
            .add_service(identity_server::IdentityServer::new(self.clone()))
            .add_service(node_server::NodeServer::new(self).max_decoding_message_size(MAX_MESSAGE));
        drain.spawn_vital("CSI driver", async move {
            let incoming = incoming(listener, "CSI socket");
            if let Err(error) = server
                .serve_with_incoming_shutdown(incoming, async move { ended.signalled().await })
                .await
            {
                tracing::error!(%error, "the CSI socket failed");
            }
        });
        registration::register(&config, drain)
    }

    async fn publish(&self, request: wire::NodePublishVolumeRequest) -> Result<(), Status> {
        let publication = Publication::check(request, &self.config).map_err(Status::invalid_argument)?;
        let mut held = self.volumes.lock().await;
        self.admit(&held, &publication.record)?;
        let shown = self.show(&mut held, publication);
        self.standing.tell(&held.records);
        shown
    }

    /// Whether the volume is the one that is known by its name, or there is room for it.
    fn admit(&self, held: &Held, asked: &VolumeRecord) -> Result<(), Status> {
        let known = held.records.get(&asked.volume_id);
        if let Some(known) = &known {
            known.check_same(asked).map_err(Status::invalid_argument)?;
        }
        self.room(held, asked, known.is_some()).map_err(|problem| {
            self.standing.refused.inc();
            Status::resource_exhausted(problem)
        })
    }

    fn room(&self, held: &Held, asked: &VolumeRecord, is_known: bool) -> Result<(), String> {
        if !is_known && held.records.number_of_pod(&asked.pod_uid) >= MAX_VOLUMES_OF_POD {
            return Err(format!(
                "the pod has {MAX_VOLUMES_OF_POD} volumes of this driver already; all its containers can mount one"
            ));
        }
        if !held.served.contains(&asked.volume_id) && held.served.len() >= self.config.max_volumes {
            return Err(self.config.no_room());
        }
        Ok(())
    }

    fn show(&self, held: &mut Held, publication: Publication) -> Result<(), Status> {
        let Publication { record, token } = publication;
        let id = &record.volume_id;
        // A token is good for an identity whatever becomes of the files: kubelet brings the next one in a while.
        if held.served.contains(id) {
            self.sink.token(id, token.clone());
        }
        let known = held.records.get(id).is_some();
        let folder = held.records.keep(&record).map_err(internal)?;
        held.records.keep_token(id, &token);
        if folder == Folder::Made && held.served.remove(id) {
            tracing::warn!(volume = %id, pod = %record.pod(), "the folder of a volume that is served was gone and is made anew");
            self.sink.close(id);
        }
        if !held.served.contains(id) {
            self.open(held, &record, known)?;
            self.sink.token(id, token);
        }
        self.mount(held, &record)
    }

    fn open(&self, held: &mut Held, record: &VolumeRecord, known: bool) -> Result<(), Status> {
        if let Err(error) = open(self.sink.as_ref(), &held.records, record) {
            // kubelet's next try opens it. The directory of a known one is mounted already and has to stay.
            if !known {
                held.records.remove(&record.volume_id).map_err(internal)?;
            }
            return Err(Status::internal(format!("cannot serve the volume: {error:#}")));
        }
        held.served.insert(record.volume_id.clone());
        tracing::info!(volume = %record.volume_id, pod = %record.pod(), "volume published");
        Ok(())
    }

    fn mount(&self, held: &mut Held, record: &VolumeRecord) -> Result<(), Status> {
        let source = held.records.socket_dir(&record.volume_id);
        let bound = self.mounter.bind(&source, &record.target).map_err(|error| {
            Status::internal(format!(
                "cannot mount {} on {}: {error}",
                source.display(),
                record.target.display()
            ))
        })?;
        if bound == Bound::InPlaceOfAnother {
            tracing::warn!(
                volume = %record.volume_id,
                pod = %record.pod(),
                "another folder, which is gone, was mounted for this pod: its containers that run reach no agent until the pod is restarted"
            );
            held.records.cut_off(&record.volume_id);
            self.sink.cut_off(&record.volume_id);
        }
        Ok(())
    }

    async fn unpublish(&self, request: wire::NodeUnpublishVolumeRequest) -> Result<(), Status> {
        let target = Target::check(&request.target_path, &self.config.kubelet_dir)
            .map_err(Status::invalid_argument)?;
        publish::check_volume_id(&request.volume_id).map_err(Status::invalid_argument)?;
        let mut held = self.volumes.lock().await;
        if let Some(record) = held.records.get(&request.volume_id)
            && record.target != target.path
        {
            return Err(Status::invalid_argument("the volume is mounted somewhere else"));
        }
        self.sink.close(&request.volume_id);
        held.served.remove(&request.volume_id);
        let source = held.records.socket_dir(&request.volume_id);
        self.mounter.unbind(&source, &target.path).map_err(|error| {
            Status::internal(format!("cannot unmount {}: {error}", target.path.display()))
        })?;
        held.records.remove(&request.volume_id).map_err(internal)?;
        self.standing.tell(&held.records);
        tracing::info!(volume = %request.volume_id, "volume unpublished");
        Ok(())
    }
}

fn open(sink: &dyn VolumeSink, volumes: &Volumes, record: &VolumeRecord) -> anyhow::Result<()> {
    let id = &record.volume_id;
    sink.open(record, &volumes.socket_path(id), &volumes.svid_file(id))
}

fn internal(error: FileError) -> Status {
    tracing::error!(%error, "the folder of a volume cannot be made or removed");
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests;
