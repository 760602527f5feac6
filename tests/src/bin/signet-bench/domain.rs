//! A real server process with a fake Kubernetes API, simulated agents, and their pods with tokens that are already
//! reviewed.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use signet_server::cli::admin::AdminClient;
use signet_tests::{
    agent_client::{RawAgent, new_csr, pod_item},
    fake_kube::{FakeKube, FakeKubeConfig, PodSpec},
    process::free_port,
    wait,
};
use tokio::process::{Child, Command};

const TRUST_DOMAIN: &str = "bench.example.org";
const CLUSTER: &str = "bench";
/// Nodes, each with an agent.
const AGENTS: usize = 4;
/// Pods on each node.
const PODS_PER_AGENT: usize = 64;

/// An agent with its pods' tokens.
pub(crate) struct Agent {
    pub(crate) connection: RawAgent,
    pub(crate) tokens: Vec<String>,
}

/// Everything that is measured against; ends when dropped.
pub(crate) struct Domain {
    pub(crate) agents: Vec<Agent>,
    _kube: FakeKube,
    _server: Child,
    _dir: tempfile::TempDir,
}

impl Domain {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("signet-bench-").tempdir()?;
        let kube = FakeKube::start(FakeKubeConfig::default()).await?;
        let kubeconfig = dir.path().join("kubeconfig");
        kube.kubeconfig(&kubeconfig)?;
        kube.add_service_account("signet-system", "signet-agent");
        kube.add_service_account("bench", "worker");
        for node in 0..AGENTS {
            populate(&kube, node)?;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = dir.path().join("server.yaml");
        std::fs::write(&config, server_yaml(dir.path(), &kubeconfig, address)?)?;
        let server = Command::new(std::env::current_exe()?)
            .arg(crate::AS_SERVER)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .env("RUST_LOG", "warn")
            .kill_on_drop(true)
            .spawn()?;
        let socket = dir.path().join("admin.sock");
        wait::within(Duration::from_secs(20), async || {
            let answer = AdminClient::connect(&socket)
                .await
                .ok()?
                .healthcheck()
                .await
                .ok()?;
            answer.problem.is_none().then_some(())
        })
        .await
        .context("the server did not come up within 20 s")?;
        let mut agents = Vec::new();
        for node in 0..AGENTS {
            agents.push(agent(&kube, address, node).await?);
        }
        Ok(Self {
            agents,
            _kube: kube,
            _server: server,
            _dir: dir,
        })
    }
}

fn populate(kube: &FakeKube, node: usize) -> anyhow::Result<()> {
    let node_name = format!("node-{node}");
    kube.add_node(&node_name);
    let on_node = |namespace: &str, name: String, account: &str| {
        let mut pod = PodSpec::new(namespace, &name);
        pod.service_account = account.to_owned();
        pod.node = Some(node_name.clone());
        pod
    };
    kube.add_pod(&on_node("signet-system", format!("agent-{node}"), "signet-agent"))?;
    for pod in 0..PODS_PER_AGENT {
        kube.add_pod(&on_node("bench", format!("worker-{node}-{pod}"), "worker"))?;
    }
    Ok(())
}

/// Attests the agent, and has every pod's token reviewed by issuing once for it.
async fn agent(kube: &FakeKube, address: SocketAddr, node: usize) -> anyhow::Result<Agent> {
    let hour = Duration::from_secs(3600);
    let node_audience = format!("signet:{TRUST_DOMAIN}:node");
    let token = kube.token("signet-system", &format!("agent-{node}"), &node_audience, hour)?;
    let (mut connection, _) = RawAgent::attested(address, CLUSTER, &token).await?;
    let pod_audience = format!("signet:{TRUST_DOMAIN}:pod");
    let tokens = (0..PODS_PER_AGENT)
        .map(|pod| kube.token("bench", &format!("worker-{node}-{pod}"), &pod_audience, hour))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let items = tokens
        .iter()
        .map(|token| Ok(pod_item(new_csr()?, token)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for result in connection.issue(items).await? {
        let issued = matches!(
            result.outcome,
            Some(signet_proto::agent::issue_result::Outcome::Issued(_))
        );
        ensure!(
            issued,
            "a certificate was not issued before the measurement: {result:?}"
        );
    }
    Ok(Agent { connection, tokens })
}

fn server_yaml(
    dir: &std::path::Path,
    kubeconfig: &std::path::Path,
    agents: SocketAddr,
) -> anyhow::Result<String> {
    Ok(format!(
        "\
trust_domain: {TRUST_DOMAIN}
data_dir: {dir}/data
listen:
  agents: {agents}
  admin_socket: {dir}/admin.sock
  publish: 127.0.0.1:{publish}
  bundle: null
  telemetry: 127.0.0.1:{telemetry}
svid:
  # The peer is measured without its limit too.
  max_live: 100000000
attestation:
  clusters:
    - name: {CLUSTER}
      kubeconfig: {kubeconfig}
audit:
  file: {dir}/audit.log
",
        dir = dir.display(),
        publish = free_port()?,
        telemetry = free_port()?,
        kubeconfig = kubeconfig.display(),
    ))
}
