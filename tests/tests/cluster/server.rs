//! The real server, which knows the cluster only through the documented permissions.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use http::StatusCode;
use serde_json::{Value, json};
use signet_tests::{
    http::get,
    process::{Finished, Process, binary, free_port, run},
};
use tempfile::TempDir;

use crate::api::{Cluster, apply, wait_for};

/// Name of the trust domain.
pub(crate) const TRUST_DOMAIN: &str = "cluster.test";
/// Name of the cluster in the server's configuration.
pub(crate) const CLUSTER: &str = "real";
/// Audience of the agents' tokens.
pub(crate) const NODE_AUDIENCE: &str = "signet:cluster.test:node";
/// Audience of the pods' tokens.
pub(crate) const POD_AUDIENCE: &str = "signet:cluster.test:pod";

/// A server that belongs to one test.
pub(crate) struct Server {
    folder: TempDir,
    telemetry: SocketAddr,
    process: Process,
    /// Where agents connect.
    pub(crate) agents: SocketAddr,
}

impl Server {
    /// Applies the documented RBAC and starts a server with a token of its service account, and nothing more.
    ///
    /// `relay` stands in for the API server's URL; `svid_ttl` is the life of the workloads' certificates.
    pub(crate) async fn start(cluster: &Cluster, relay: Option<&str>, svid_ttl: &str) -> Result<Self> {
        apply(cluster, "rbac.yaml", |_| {}).await?;
        let token = cluster
            .token("signet-server", &[], 3600, None)
            .await
            .context("a token for the server")?;
        let folder = tempfile::tempdir()?;
        let local = || Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        let (agents, publish, telemetry) = (local()?, local()?, local()?);
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.kubeconfig(&token, relay).to_string())?;
        let config = json!({
            "trust_domain": TRUST_DOMAIN,
            "data_dir": folder.path().join("data"),
            "listen": {
                "agents": agents, "publish": publish, "telemetry": telemetry, "bundle": null,
                "admin_socket": folder.path().join("admin.sock"),
            },
            "svid": {"ttl": svid_ttl},
            "attestation": {"clusters": [{
                "name": CLUSTER, "uid": cluster.uid, "kubeconfig": kubeconfig,
                "agent_service_accounts": [format!("{}:signet-agent", cluster.namespace)],
            }]},
            "audit": {"file": folder.path().join("audit.jsonl")},
        });
        // JSON is YAML.
        std::fs::write(folder.path().join("server.yaml"), config.to_string())?;
        let mut server = Self {
            process: spawn(&folder)?,
            folder,
            telemetry,
            agents,
        };
        server.ready().await?;
        Ok(server)
    }

    /// Waits until it is ready and its watches of the cluster are complete.
    async fn ready(&mut self) -> Result<()> {
        let url = format!("http://{}/ready", self.telemetry);
        wait_for("a ready server", async || {
            if !self.process.is_running() {
                bail!("the server ended: {}", self.process.stderr());
            }
            let answer = get(&url).await?;
            Ok((answer.status == StatusCode::OK).then_some(()))
        })
        .await
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts it again on its data.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.folder)?;
        self.ready().await
    }

    /// PEM file with the anchors for agents.
    pub(crate) fn anchors(&self) -> PathBuf {
        self.folder.path().join("data/control-anchors.pem")
    }

    /// What the log says so far.
    pub(crate) fn log(&self) -> String {
        format!("the server's log:\n{}", self.process.stderr())
    }

    /// Runs an admin command.
    pub(crate) async fn admin(&self, args: &[&str]) -> Result<Finished> {
        let socket = self.folder.path().join("admin.sock");
        let socket = socket.to_string_lossy();
        let args = args.iter().copied().chain(["--admin-socket", &socket]);
        run(&binary("signet-server"), args, &[]).await
    }

    /// All lines of the audit log, without half a line at its end.
    pub(crate) fn audit(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl"))?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    /// Waits until the audit log has a refusal after its first `after` lines that gives `reason`.
    pub(crate) async fn audited_refusal(&self, after: usize, operation: &str, reason: &str) -> Result<Value> {
        let what = format!("an audit line that {operation} was refused: {reason}");
        wait_for(&what, async || {
            let lines = self.audit()?;
            let fits = |line: &&Value| {
                line["event"] == "refused"
                    && line["operation"] == operation
                    && line["reason"].as_str().is_some_and(|text| text.contains(reason))
            };
            Ok(lines.iter().skip(after).find(fits).cloned())
        })
        .await
    }
}

fn spawn(folder: &TempDir) -> Result<Process> {
    let config = folder.path().join("server.yaml");
    let args = ["run".into(), "--config".into(), config.into_os_string()];
    Process::start("signet-server", &binary("signet-server"), args, &[])
}
