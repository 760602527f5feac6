//! A trust domain in one process on paused time: an API server, a server, and two nodes, each with a clock of its own.
//!
//! A restart drops everything but the server's store and keys, and the folders of the agents.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use serde_json::json;
use signet_certs::id::TrustDomain;
use signet_proto::admin::admin_client::AdminClient;
use signet_runtime::clock::FakeClock;
use signet_runtime::drain::Drain;
use signet_server::testing::{Dial, InMemory, KeptInMemory};
use signet_tests::domain::{CLUSTER, TRUST_DOMAIN};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use crate::api::Api;
use crate::node::{Line, Node};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// 2026-11-22T00:00:00Z.
const START: Duration = Duration::from_secs(1_795_305_600);
/// No API server tells its time.
pub(crate) const SILENT: i64 = i64::MAX;
/// kubelet looks after its pods this often.
const KUBELET: Duration = Duration::from_secs(300);

/// One process of the server.
pub(crate) struct Server {
    pub(crate) admin: AdminClient<Channel>,
    stop: Drain,
    running: JoinHandle<anyhow::Result<()>>,
}

pub(crate) struct World {
    pub(crate) api: Api,
    /// The one clock that is always right.
    pub(crate) truth: FakeClock,
    /// The server's machine.
    pub(crate) machine: FakeClock,
    pub(crate) kept: KeptInMemory,
    pub(crate) server: Option<Server>,
    pub(crate) nodes: [Node; 2],
    /// By how much the wall clock of the server's machine is wrong.
    pub(crate) wall: i64,
    /// By how much the API server's `Date` is wrong, or [`SILENT`].
    pub(crate) date: i64,
    pub(crate) elapsed_stands: bool,
    /// Since when nothing is wrong for the server.
    right_since: Instant,
    line: Line,
    folder: tempfile::TempDir,
}

impl World {
    /// Everything is up, and nobody has been waited for.
    pub(crate) async fn new() -> Self {
        let folder = signet_testkit::folder();
        let base = SystemTime::UNIX_EPOCH + START;
        let clocks = [(); 4].map(|()| FakeClock::new(base));
        let api = Api::start(base).await;
        // A clock whose elapsed time is zero tells none.
        sleep(MINUTE).await;
        let [truth, machine, one, two] = clocks;
        let line = Line::default();
        let nodes = [
            Node::new("node-a", 1, folder.path(), one, line.clone()),
            Node::new("node-b", 2, folder.path(), two, line.clone()),
        ];
        let mut world = Self {
            api,
            truth,
            machine,
            kept: KeptInMemory::new(TrustDomain::parse(TRUST_DOMAIN).unwrap()),
            server: None,
            nodes,
            wall: 0,
            date: 0,
            elapsed_stands: false,
            right_since: Instant::now(),
            line,
            folder,
        };
        world.start_server().await;
        while !world.anchors().exists() {
            sleep(Duration::from_secs(1)).await;
        }
        let anchors = world.anchors();
        for node in &mut world.nodes {
            node.join(&world.api);
            node.start(&anchors).await;
            let pod = format!("pod-of-{}", node.name);
            node.add_pod(&world.api, &pod).await;
        }
        world
    }

    pub(crate) fn anchors(&self) -> PathBuf {
        self.folder.path().join("server/control-anchors.pem")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.folder.path().join("server/audit.log")
    }

    /// Starts a process over what is kept, and waits for nothing.
    pub(crate) async fn start_server(&mut self) {
        let folder = self.folder.path().join("server");
        fs::create_dir_all(&folder).unwrap();
        let config = folder.join("server.yaml");
        let said = json!({
            "trust_domain": TRUST_DOMAIN,
            "data_dir": folder,
            "listen": {
                "agents": "127.0.0.1:0",
                "admin_socket": folder.join("admin.sock"),
                "publish": "127.0.0.1:0",
                "bundle": null,
                "telemetry": "127.0.0.1:0",
            },
            "authority": { "ttl": "12h", "control_ttl": "12h", "control_svid_ttl": "1h", "spread": "5m", "spread_max": "1h" },
            "attestation": { "clusters": [{ "name": CLUSTER, "kubeconfig": folder.join("kubeconfig") }] },
            "audit": { "file": self.audit_log() },
        });
        fs::write(&config, said.to_string()).unwrap();
        let machine = Arc::new(self.machine.clone());
        let built = InMemory::build(&config, &mut self.kept, machine, &self.api.client()).await;
        let server = built.unwrap();
        let (dial, stop) = (server.dial(), Drain::new());
        *self.line.lock() = Some(dial.clone());
        self.server = Some(Server {
            admin: AdminClient::new(admin_channel(dial)),
            stop: stop.clone(),
            running: tokio::spawn(server.run(stop)),
        });
        self.has_changed();
    }

    pub(crate) async fn stop_server(&mut self) {
        *self.line.lock() = None;
        if let Some(server) = self.server.take() {
            server.stop.start();
            server.running.await.unwrap().unwrap();
        }
    }

    pub(crate) async fn restart_server(&mut self) {
        self.stop_server().await;
        self.start_server().await;
    }

    pub(crate) fn set_wall(&mut self, wrong: i64) {
        self.wall = wrong;
        self.machine.set_offset(wrong);
        self.has_changed();
    }

    pub(crate) async fn set_date(&mut self, wrong: i64) {
        self.date = wrong;
        self.api.set_silent(wrong == SILENT);
        if wrong != SILENT {
            self.api.clock.set_offset(wrong);
        }
        self.has_changed();
        self.kubelet().await;
    }

    pub(crate) fn let_elapsed_stand(&mut self, stands: bool) {
        self.elapsed_stands = stands;
        if stands {
            self.machine.stop_elapsed();
        } else {
            self.machine.resume_elapsed();
        }
        self.has_changed();
    }

    pub(crate) async fn set_away(&mut self, away: bool) {
        if self.api.is_away() != away {
            self.api.set_away(away);
            self.has_changed();
            self.kubelet().await;
        }
    }

    fn has_changed(&mut self) {
        self.right_since = Instant::now();
    }

    /// Whether nothing has been wrong for the server, nor with it, for this long.
    pub(crate) fn is_right_for(&self, time: Duration) -> bool {
        let clocks = self.wall == 0 && self.date == 0 && !self.elapsed_stands;
        let right = clocks && !self.api.is_away() && self.server.is_some();
        right && self.right_since.elapsed() > time
    }

    /// Time passes, and kubelet does its part.
    pub(crate) async fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let part = left.min(KUBELET);
            sleep(part).await;
            left -= part;
            self.kubelet().await;
        }
    }

    pub(crate) async fn kubelet(&self) {
        if !self.api.is_away() {
            for node in &self.nodes {
                node.refresh(&self.api).await;
            }
        }
    }
}

fn admin_channel(dial: Dial) -> Channel {
    let connector = tower::service_fn(move |_| {
        let dialled = dial.admin().map(TokioIo::new);
        async move { dialled }
    });
    Endpoint::from_static("http://admin").connect_with_connector_lazy(connector)
}
