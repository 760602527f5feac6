//! The server's process, its configuration and its admin commands.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Error, Result, bail, ensure};
use serde_json::{Value, json};
use signet_testkit::check_der;

use super::{CLUSTER, Change, MovedClock, TRUST_DOMAIN, apply};
use crate::{
    http,
    part::{Launch, Part},
    process::{Finished, Process, binary, free_port, run},
};

/// A server that may be stopped and started again on the same store and ports.
pub struct Server {
    folder: PathBuf,
    config: Value,
    launch: Launch,
    process: Option<Process>,
    environment: Vec<(String, String)>,
}

impl Server {
    /// A server with every file in `folder` and every port free, that knows the cluster of the kubeconfig; starts nothing.
    ///
    /// # Errors
    /// When there are no free ports, or a file cannot be written.
    pub fn prepare(folder: &Path, kubeconfig: &Path, launch: &Launch) -> Result<Self> {
        fs::create_dir_all(folder).context("make the server's folder")?;
        let listen = || free_port().map(|port| format!("127.0.0.1:{port}"));
        let publish = listen()?;
        let config = json!({
            "trust_domain": TRUST_DOMAIN,
            "data_dir": folder.join("data"),
            "listen": {
                "agents": listen()?,
                "admin_socket": folder.join("admin.sock"),
                "publish": publish,
                "bundle": listen()?,
                "telemetry": listen()?,
            },
            "publish": { "url": format!("http://{publish}") },
            "keys": { "kek_file": folder.join("kek") },
            "trust": { "control_anchors_file": folder.join("control-anchors.pem") },
            // Nobody in a box reads a bundle without reporting it.
            "authority": { "spread": "1s", "spread_max": "20s" },
            "attestation": { "clusters": [{ "name": CLUSTER, "kubeconfig": kubeconfig }] },
            "audit": { "file": folder.join("audit.log") },
        });
        let mut server = Self {
            folder: folder.to_owned(),
            config,
            launch: launch.clone(),
            process: None,
            environment: Vec::new(),
        };
        server.change(&[])?;
        Ok(server)
    }

    /// Changes the configuration for the next start.
    ///
    /// # Errors
    /// When a key has no place in it, or it cannot be written.
    pub fn change(&mut self, changes: &[Change]) -> Result<()> {
        apply(&mut self.config, changes)?;
        let path = self.config_path();
        // JSON is YAML.
        fs::write(&path, serde_json::to_string_pretty(&self.config)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Other programs than those of the box, from the next start on.
    pub fn launch(&mut self, launch: Launch) {
        self.launch = launch;
    }

    /// Where its store is.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
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
        let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.process = Some(
            self.launch
                .start(Part::Server, &args, &self.folder, &environment)?,
        );
        Ok(())
    }

    /// Gives its next start a wall clock of its own, set by hand; timers and elapsed time go on as they are.
    ///
    /// # Errors
    /// When the library is not installed (Debian's `libfaketime`), or the file cannot be written.
    pub fn move_clock(&mut self) -> Result<MovedClock> {
        let clock = MovedClock::of(&self.folder)?;
        self.environment = clock.environment()?;
        Ok(clock)
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
        self.folder.join("control-anchors.pem")
    }

    /// Where admin commands are taken.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it said so far; nothing while it does not run.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
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
        let socket = self.admin_socket();
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
        let issuer = http::get(&format!("{}/ca/{authority}.cer", self.publish_url())).await?;
        check_der(&answer.body, &issuer.body, None).map_err(Error::msg)?;
        Ok(answer.body.to_vec())
    }
}
