//! A node: its clock, its folders, the agent in its pod, and kubelet's part towards the pods.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use signet_agent::testing::{Caller, InMemory, WorkloadState, X509Context};
use signet_certs::time::rfc3339;
use signet_proto::csi::NodeUnpublishVolumeRequest;
use signet_proto::csi::node_server::Node as _;
use signet_runtime::clock::{Clock as _, FakeClock};
use signet_runtime::files::{self, Durability};
use signet_runtime::sync::Mutex;
use signet_server::testing::Dial;
use signet_tests::domain::{CLUSTER, NODE_AUDIENCE, POD_AUDIENCE, TRUST_DOMAIN};
use signet_tests::fake_kube::PodSpec;
use signet_tests::kubelet::{KubeletConfig, PodOfVolume, Volume, publish_request, volume};
use tokio::io::{DuplexStream, copy_bidirectional};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::Request;

use crate::api::Api;

pub(crate) const NAMESPACE: &str = "shop";
const AGENT_NAMESPACE: &str = "signet-system";
const AGENT_ACCOUNT: &str = "signet-agent";
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Bytes under way in one direction of a node's line.
const IN_FLIGHT: usize = 64 << 10;

/// The line to the server; none while there is no server.
pub(crate) type Line = Arc<Mutex<Option<Dial>>>;

/// A pod of this node with its volume.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) volume: Volume,
}

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) clock: FakeClock,
    pub(crate) agent: Option<InMemory>,
    pub(crate) pods: Vec<Pod>,
    /// Whether the agent's pod is there.
    pub(crate) is_member: bool,
    /// Nothing that has been done to the agent is in the way of its pods.
    pub(crate) is_allowed: bool,
    /// By how much the wall clock is wrong.
    wall: i64,
    pub(crate) elapsed_stands: bool,
    /// No stream between this node and the server lives, and none is made.
    cut: watch::Sender<bool>,
    /// Since when nothing is wrong here.
    right_since: Instant,
    /// How many pods of the agent there have been.
    pods_of_agent: usize,
    folder: PathBuf,
    address: SocketAddr,
    line: Line,
}

impl Node {
    pub(crate) fn new(name: &'static str, number: u8, folder: &Path, clock: FakeClock, line: Line) -> Self {
        let folder = folder.join(name);
        fs::create_dir_all(folder.join("kubelet/plugins_registry")).unwrap();
        Self {
            name,
            clock,
            agent: None,
            pods: Vec::new(),
            is_member: false,
            is_allowed: true,
            wall: 0,
            elapsed_stands: false,
            cut: watch::Sender::new(false),
            right_since: Instant::now(),
            pods_of_agent: 0,
            folder,
            address: SocketAddr::from(([10, 0, 0, number], 40_000)),
            line,
        }
    }

    /// The agent's pod comes to the node.
    pub(crate) fn join(&mut self, api: &Api) {
        self.pods_of_agent += 1;
        self.is_member = true;
        let spec = PodSpec::new(AGENT_NAMESPACE, &self.agent_pod());
        let spec = spec.service_account(AGENT_ACCOUNT).node(self.name);
        api.kube.add_pod(&spec).unwrap();
        self.refresh_token(api);
    }

    /// The agent's pod is deleted; its agent must have stopped.
    pub(crate) fn leave(&mut self, api: &Api) {
        assert!(self.agent.is_none());
        self.is_member = false;
        api.kube.delete_pod(AGENT_NAMESPACE, &self.agent_pod()).unwrap();
    }

    fn agent_pod(&self) -> String {
        format!("{}-{}", self.name, self.pods_of_agent)
    }

    /// The container of the agent starts, again or for the first time.
    pub(crate) async fn start(&mut self, anchors: &Path) {
        let config = self.folder.join("agent.yaml");
        let said = json!({
            "trust_domain": TRUST_DOMAIN,
            "cluster": CLUSTER,
            "trust": { "anchors_file": anchors },
            "node": { "token_file": self.folder.join("token"), "name": self.name },
            "data_dir": self.folder.join("data"),
            "state_dir": self.folder.join("state"),
            "keep_secrets_on_disk": true,
            "csi": {
                "enabled": true,
                "kubelet_dir": self.folder.join("kubelet"),
                "socket_path": self.folder.join("csi.sock"),
                "volumes_dir": self.folder.join("volumes"),
                "mounter": "link",
            },
            "admin_socket": self.folder.join("admin.sock"),
            "telemetry": { "listen": "127.0.0.1:0" },
        });
        // JSON is YAML.
        fs::write(&config, said.to_string()).unwrap();
        let (line, address, cut) = (self.line.clone(), self.address, self.cut.subscribe());
        let dial = move || match line.lock().as_ref() {
            Some(dial) if !*cut.borrow() => Ok(carried(dial.agents(address)?, cut.clone())),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        };
        let started = InMemory::start(&config, Arc::new(self.clock.clone()), dial).await;
        self.agent = Some(started.unwrap());
        self.has_changed();
    }

    pub(crate) fn set_wall(&mut self, wrong: i64) {
        self.wall = wrong;
        self.clock.set_offset(wrong);
        self.has_changed();
    }

    pub(crate) fn let_elapsed_stand(&mut self, stands: bool) {
        self.elapsed_stands = stands;
        if stands {
            self.clock.stop_elapsed();
        } else {
            self.clock.resume_elapsed();
        }
        self.has_changed();
    }

    pub(crate) fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    pub(crate) fn set_cut(&mut self, cut: bool) {
        if self.cut.send_replace(cut) != cut {
            self.has_changed();
        }
    }

    /// Something has happened that takes a while to get over.
    pub(crate) fn has_changed(&mut self) {
        self.right_since = Instant::now();
    }

    /// Whether nothing has been wrong here for this long.
    pub(crate) fn is_right_for(&self, time: Duration) -> bool {
        let right = self.agent.is_some()
            && self.is_allowed
            && self.wall == 0
            && !self.elapsed_stands
            && !self.is_cut();
        right && self.right_since.elapsed() > time
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop().await.unwrap();
        }
    }

    /// kubelet replaces the token of the agent's pod.
    pub(crate) fn refresh_token(&self, api: &Api) {
        let token = (api.kube).token(AGENT_NAMESPACE, &self.agent_pod(), NODE_AUDIENCE, TOKEN_LIFE);
        let path = self.folder.join("token");
        files::replace(&path, token.unwrap().as_bytes(), 0o600, Durability::Volatile).unwrap();
    }

    /// A pod with a volume comes to the node, under the service account of its own name.
    pub(crate) async fn add_pod(&mut self, api: &Api, name: &str) {
        let spec = PodSpec::new(NAMESPACE, name)
            .service_account(name)
            .node(self.name);
        let uid = api.kube.add_pod(&spec).unwrap();
        let pod = PodOfVolume {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            uid,
            service_account: name.to_owned(),
        };
        let config = KubeletConfig::new("", &self.folder.join("kubelet"), POD_AUDIENCE);
        let volume = volume(&config, pod);
        fs::create_dir_all(volume.target.parent().unwrap()).unwrap();
        self.publish(api, &volume).await;
        let name = name.to_owned();
        self.pods.push(Pod { name, volume });
    }

    /// The pod goes, and its volume before it.
    pub(crate) async fn remove_pod(&mut self, api: &Api, name: &str) {
        let at = self.pods.iter().position(|pod| pod.name == name).unwrap();
        let pod = self.pods.remove(at);
        if let Some(agent) = &self.agent {
            let request = NodeUnpublishVolumeRequest {
                volume_id: pod.volume.id.clone(),
                target_path: pod.volume.target.display().to_string(),
            };
            let driver = agent.driver().unwrap();
            driver.node_unpublish_volume(Request::new(request)).await.unwrap();
        }
        api.kube.delete_pod(NAMESPACE, name).unwrap();
    }

    async fn publish(&self, api: &Api, volume: &Volume) {
        let Some(agent) = &self.agent else {
            return;
        };
        let token = (api.kube).token(NAMESPACE, &volume.pod.name, POD_AUDIENCE, TOKEN_LIFE);
        let expires = rfc3339(api.clock.now() + TOKEN_LIFE);
        let tokens = json!({ POD_AUDIENCE: { "token": token.unwrap(), "expirationTimestamp": expires } });
        let request = publish_request(volume, &tokens.to_string());
        let driver = agent.driver().unwrap();
        driver.node_publish_volume(Request::new(request)).await.unwrap();
    }

    /// What kubelet does again and again while it can ask the API server: fresh tokens for everybody.
    pub(crate) async fn refresh(&self, api: &Api) {
        if self.is_member {
            self.refresh_token(api);
        }
        for pod in &self.pods {
            self.publish(api, &pod.volume).await;
        }
    }

    /// What a pod is given at this moment; `None` also while the agent is away.
    pub(crate) async fn context(&self, pod: &Pod) -> Option<Arc<X509Context>> {
        self.context_within(pod, Duration::ZERO).await.ok()
    }

    /// What a pod is given within this time; else what is in the way.
    pub(crate) async fn context_within(
        &self,
        pod: &Pod,
        limit: Duration,
    ) -> Result<Arc<X509Context>, String> {
        let agent = self.agent.as_ref().ok_or("the agent is away")?;
        let caller = Caller::Volume {
            volume_id: pod.volume.id.clone(),
            pod_uid: pod.volume.pod.uid.clone(),
        };
        let attached = agent.workloads().attach(&caller).await;
        let mut states = attached.map_err(|error| error.to_string())?;
        let is_ready = |state: &WorkloadState| matches!(state, WorkloadState::Ready(_));
        let waited = timeout(limit, states.wait_for(is_ready)).await;
        let ready = waited.map(|state| state.map(|state| state.clone()));
        match ready {
            Ok(Ok(WorkloadState::Ready(context))) => Ok(context),
            Ok(_) => Err("the agent has ended".to_owned()),
            Err(_) => Err(format!("{:?}", &*states.borrow())),
        }
    }
}

/// The near end of a stream that breaks when the line is cut.
fn carried(mut server: DuplexStream, mut cut: watch::Receiver<bool>) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(IN_FLIGHT);
    tokio::spawn(async move {
        tokio::select! {
            _ = copy_bidirectional(&mut far, &mut server) => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
    });
    near
}
