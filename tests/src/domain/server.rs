//! The server's process, its configuration and its admin commands.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{CLUSTER, TRUST_DOMAIN};
use crate::{
    http,
    process::{Finished, Process, binary, free_port, run},
};

/// A server that may be stopped and started again on the same store and ports.
pub struct Server {
    folder: PathBuf,
    config: Value,
    process: Option<Process>,
}

impl Server {
    /// A configuration with every file in `folder` and every port free.
    ///
    /// # Errors
    /// When there are no free ports.
    pub fn config(folder: &Path, kubeconfig: &Path) -> Result<Value> {
        let listen = || free_port().map(|port| format!("127.0.0.1:{port}"));
        let publish = listen()?;
        Ok(json!({
            "trust_domain": TRUST_DOMAIN,
            "data_dir": folder.join("server"),
            "listen": {
                "agents": listen()?,
                "admin_socket": folder.join("admin.sock"),
                "publish": publish,
                "bundle": listen()?,
                "telemetry": listen()?,
            },
            "publish": { "url": format!("http://{publish}") },
            "trust": { "control_anchors_file": folder.join("anchors.pem") },
            // Nobody in a box reads a bundle without reporting it.
            "authority": { "spread": "1s", "spread_max": "20s" },
            "attestation": { "clusters": [{ "name": CLUSTER, "kubeconfig": kubeconfig }] },
            "audit": { "file": folder.join("audit.log") },
        }))
    }

    /// Writes the configuration; starts nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(folder: &Path, config: Value) -> Result<Self> {
        let server = Self {
            folder: folder.to_owned(),
            config,
            process: None,
        };
        server.write_config()?;
        Ok(server)
    }

    fn write_config(&self) -> Result<()> {
        let path = self.config_path();
        // JSON is YAML.
        fs::write(&path, serde_json::to_string_pretty(&self.config)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.join("server.yaml")
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead; its log is part of the message.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let config = self.config_path();
        let args = [Path::new("run"), Path::new("--config"), &config];
        self.process = Some(Process::start(
            "signet-server",
            &binary("signet-server"),
            args,
            &[],
        )?);
        Ok(())
    }

    /// Waits until `/ready` says so.
    ///
    /// # Errors
    /// When the process ends, or is never ready.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("http://{}/ready", self.listens("telemetry"));
        let process = self.process.as_mut().context("the server is not running")?;
        process.until_ready(&url).await
    }

    /// Its process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server is not running")
    }

    /// Kills it with SIGKILL, as a power cut would.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// When it takes too long or ends badly.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the server is not running")?;
        process.stop().await
    }

    fn listens(&self, door: &str) -> SocketAddr {
        let text = self.config["listen"][door].as_str();
        let parsed = text.and_then(|text| text.parse().ok());
        parsed.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// gRPC for agents.
    pub fn agents(&self) -> SocketAddr {
        self.listens("agents")
    }

    /// Base URL of lists and CA certificates.
    pub fn publish_url(&self) -> String {
        format!("http://{}", self.listens("publish"))
    }

    /// Address of the bundle over HTTPS.
    pub fn bundle(&self) -> SocketAddr {
        self.listens("bundle")
    }

    /// Base URL of `/ready`, `/live` and `/metrics`.
    pub fn telemetry_url(&self) -> String {
        format!("http://{}", self.listens("telemetry"))
    }

    /// The anchors that agents start from.
    pub fn anchors(&self) -> PathBuf {
        self.folder.join("anchors.pem")
    }

    /// The audit log so far, one object for each complete line.
    ///
    /// # Errors
    /// When it cannot be read or a line is no JSON.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join("audit.log"))?;
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete
            .lines()
            .map(|line| serde_json::from_str(line).context("a line of the audit log"))
            .collect()
    }

    /// Runs an admin command, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn command(&self, args: &[&str]) -> Result<Finished> {
        let socket = self.folder.join("admin.sock");
        let socket = socket.to_str().context("a folder that is no UTF-8")?;
        run(&binary("signet-server"), args, &[("SIGNET_ADMIN_SOCKET", socket)]).await
    }

    /// Runs an admin command that must succeed and answers its JSON.
    ///
    /// # Errors
    /// When it fails; what it said is part of the message.
    pub async fn admin(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let finished = self.command(&all).await?;
        if !finished.status.success() {
            bail!(
                "signet-server {}: {}{}",
                args.join(" "),
                finished.stderr,
                finished.stdout
            );
        }
        serde_json::from_str(&finished.stdout).with_context(|| format!("not JSON: {}", finished.stdout))
    }

    /// The published list of one authority, DER.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn crl(&self, authority: &str) -> Result<Vec<u8>> {
        let url = format!("{}/crl/{authority}.crl", self.publish_url());
        let answer = http::get(&url).await?;
        ensure!(answer.status == 200, "{url}: {}", answer.status);
        Ok(answer.body.to_vec())
    }
}
