//! A trust domain in a box: a folder, a fake cluster, a real server, real agents, and pods with real sockets. Server and
//! agents also stand alone, for a cluster that is not in the box.

mod agent;
mod moved_clock;
mod server;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use signet_runtime::environment;
use tempfile::TempDir;

use crate::{
    agent_client::{ClientCertificate, RawAgent},
    fake_kube::{FakeKube, FakeKubeConfig, PodSpec},
    part::Launch,
};

pub use agent::Agent;
pub use moved_clock::MovedClock;
pub use server::Server;

/// The longest path of a socket below the folder in which the box is made.
const LONGEST: &str = "signet-123456/node-of-a-name/volumes/0123456789abcdef/socket/spiffe.sock";
/// Name of the trust domain.
pub const TRUST_DOMAIN: &str = "example.org";
/// Name of the cluster in the server's configuration.
pub const CLUSTER: &str = "box";
/// Audience of node tokens.
pub const NODE_AUDIENCE: &str = "signet:example.org:node";
/// Audience of pod tokens.
pub const POD_AUDIENCE: &str = "signet:example.org:pod";
/// Where the pods of the agents live.
const AGENT_NAMESPACE: &str = "signet-system";
/// Under which service account.
const AGENT_ACCOUNT: &str = "signet-agent";
/// Tokens of the box live this long.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// What to change before the box is built.
#[derive(Default)]
pub struct Plan {
    folder: Option<PathBuf>,
    launch: Launch,
    kube: FakeKubeConfig,
    server: Vec<Change>,
    agent: Vec<Change>,
}

impl Plan {
    /// A folder that stays, instead of one that goes with the box.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Other programs than the workspace's binaries.
    #[must_use]
    pub fn launch(mut self, launch: Launch) -> Self {
        self.launch = launch;
        self
    }

    /// Another fake cluster.
    #[must_use]
    pub fn kube(mut self, config: FakeKubeConfig) -> Self {
        self.kube = config;
        self
    }

    /// Sets a key of the server's configuration, named by a JSON pointer such as `/svid/ttl`.
    #[must_use]
    pub fn server(mut self, pointer: &str, value: Value) -> Self {
        self.server.push((pointer.to_owned(), value));
        self
    }

    /// Sets a key of every agent's configuration.
    #[must_use]
    pub fn agent(mut self, pointer: &str, value: Value) -> Self {
        self.agent.push((pointer.to_owned(), value));
        self
    }

    /// Builds the box and waits until the server is ready. No agent runs yet.
    ///
    /// # Errors
    /// What is in the way; the server's log is part of it.
    pub async fn start(self) -> Result<Domain> {
        let (root, temporary) = match self.folder {
            Some(folder) => (folder, None),
            None => {
                let folder = tempfile::Builder::new()
                    .prefix("signet-")
                    .tempdir_in(environment::temporary_for(Path::new(LONGEST)))
                    .context("make a folder")?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let kube = FakeKube::start(self.kube).await?;
        let kubeconfig = root.join("kubeconfig");
        kube.kubeconfig(&kubeconfig)?;
        let mut server = Server::prepare(&root.join("server"), &kubeconfig, &self.launch)?;
        server.change(&self.server)?;
        server.start().await?;
        Ok(Domain {
            root,
            launch: self.launch,
            kube,
            server,
            agent_changes: self.agent,
            _temporary: temporary,
        })
    }
}

/// A key's place in a configuration, as a JSON pointer, and its value.
pub type Change = (String, Value);

/// Sets each key, making the objects on the way to it.
fn apply(config: &mut Value, changes: &[Change]) -> Result<()> {
    for (pointer, value) in changes {
        let mut place = &mut *config;
        for key in pointer.trim_start_matches('/').split('/') {
            if place.is_null() {
                *place = json!({});
            }
            place = match place {
                Value::Object(members) => members.entry(key).or_insert(Value::Null),
                Value::Array(items) => key
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get_mut(index))
                    .with_context(|| format!("{pointer}: there is no item {key}"))?,
                _ => bail!("{pointer}: what is above {key} has no members"),
            };
        }
        place.clone_from(value);
    }
    Ok(())
}

/// The running box. Dropping it ends everything in it.
pub struct Domain {
    root: PathBuf,
    launch: Launch,
    /// The cluster.
    pub kube: FakeKube,
    /// The server.
    pub server: Server,
    agent_changes: Vec<Change>,
    /// Last: what runs in it ends before it goes.
    _temporary: Option<TempDir>,
}

impl Domain {
    /// A box with the default configuration.
    ///
    /// # Errors
    /// As [`Plan::start`].
    pub async fn start() -> Result<Self> {
        Plan::default().start().await
    }

    /// The folder: `server` below it is the server's, and each node has one of its name.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A token of the agent's pod on `node`; that pod is created when it does not exist.
    ///
    /// # Errors
    /// When signing fails.
    pub fn node_token(&self, node: &str) -> Result<String> {
        let name = self.agent_pod(node)?;
        self.kube.token(AGENT_NAMESPACE, &name, NODE_AUDIENCE, TOKEN_LIFE)
    }

    /// Name of the agent's pod on `node`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn agent_pod(&self, node: &str) -> Result<String> {
        let name = format!("{AGENT_ACCOUNT}-{node}");
        if self.kube.pod(AGENT_NAMESPACE, &name).is_err() {
            let spec = PodSpec::new(AGENT_NAMESPACE, &name)
                .service_account(AGENT_ACCOUNT)
                .node(node);
            self.kube.add_pod(&spec)?;
        }
        Ok(name)
    }

    /// A token of a pod, as kubelet passes it to the agent.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn pod_token(&self, namespace: &str, pod: &str) -> Result<String> {
        self.kube.token(namespace, pod, POD_AUDIENCE, TOKEN_LIFE)
    }

    /// Creates a pod of `shop` under the service account of its own name, and returns a token of it.
    ///
    /// # Errors
    /// When there is such a pod.
    pub fn shop_pod(&self, name: &str, node: &str) -> Result<String> {
        self.kube
            .add_pod(&PodSpec::new("shop", name).service_account(name).node(node))?;
        self.pod_token("shop", name)
    }

    /// An attested agent of `node` that says whatever the test wants.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn raw_agent(&self, node: &str) -> Result<(RawAgent, ClientCertificate)> {
        let token = self.node_token(node)?;
        RawAgent::attested(self.server.agents(), CLUSTER, &token).await
    }

    /// The folder in which it is; what else a test writes may stand there.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// A real agent for `node`, ready, with kubelet's part played beside it.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn agent(&self, node: &str) -> Result<Agent> {
        let mut agent = self.prepare_agent(node)?;
        agent.start().await?;
        self.register(&mut agent).await?;
        Ok(agent)
    }

    /// Plays kubelet's handshake with the agent's CSI driver.
    ///
    /// # Errors
    /// What a kubelet would not accept.
    pub async fn register(&self, agent: &mut Agent) -> Result<()> {
        agent.register(&self.kube.url()).await
    }

    /// A real agent that is not started yet.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn prepare_agent(&self, node: &str) -> Result<Agent> {
        let token = self.node_token(node)?;
        let mut agent = Agent::prepare(&self.root.join(node), node, &self.server, &self.launch)?;
        agent.set_token(&token)?;
        agent.change(&self.agent_changes)?;
        Ok(agent)
    }
}
