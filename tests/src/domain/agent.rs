//! An agent's process, with kubelet's part played towards its CSI driver.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use signet_agent::SOCKET_NAME;
use signet_runtime::files::{self, Durability};

use super::{CLUSTER, Change, MovedClock, POD_AUDIENCE, Server, TRUST_DOMAIN, apply};
use crate::{
    kubelet::{Kubelet, KubeletConfig, Volume},
    part::{Launch, Part},
    process::{Finished, Process, binary, free_port, run},
    wait,
    workload::WorkloadClient,
};

/// An agent that may be stopped and started again on the same folder.
pub struct Agent {
    folder: PathBuf,
    config: Value,
    launch: Launch,
    telemetry: String,
    process: Option<Process>,
    kubelet: Option<Kubelet>,
    environment: Vec<(String, String)>,
}

impl Agent {
    /// An agent of this node with every file in `folder`; starts nothing.
    ///
    /// # Errors
    /// When there are no free ports, or a folder cannot be made.
    pub fn prepare(folder: &Path, node: &str, server: &Server, launch: &Launch) -> Result<Self> {
        let kubelet = folder.join("kubelet");
        for path in [kubelet.join("plugins_registry"), folder.join("pods")] {
            fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let telemetry = format!("127.0.0.1:{}", free_port()?);
        let config = json!({
            "trust_domain": TRUST_DOMAIN,
            "cluster": CLUSTER,
            "server": { "address": server.agents() },
            "trust": { "anchors_file": server.anchors() },
            "node": { "token_file": folder.join("token"), "name": node },
            "data_dir": folder.join("data"),
            "state_dir": folder.join("state"),
            // The folder may lie on a disk.
            "keep_secrets_on_disk": true,
            "csi": {
                "enabled": true,
                "kubelet_dir": kubelet,
                "socket_path": folder.join("csi.sock"),
                "volumes_dir": folder.join("volumes"),
                // Links need no privileges.
                "mounter": "link",
            },
            "shared_socket": { "path": folder.join("shell.sock"), "mode": "0600" },
            "admin_socket": folder.join("admin.sock"),
            "telemetry": { "listen": telemetry },
        });
        Ok(Self {
            folder: folder.to_owned(),
            config,
            launch: launch.clone(),
            telemetry,
            process: None,
            kubelet: None,
            environment: Vec::new(),
        })
    }

    /// Changes the configuration for the next start.
    ///
    /// # Errors
    /// When a key has no place in it.
    pub fn change(&mut self, changes: &[Change]) -> Result<()> {
        apply(&mut self.config, changes)
    }

    /// Other programs than those of the box, from the next start on.
    pub fn launch(&mut self, launch: Launch) {
        self.launch = launch;
    }

    /// Replaces the node's token, as kubelet does: by rename.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_token(&self, token: &str) -> Result<()> {
        let path = self.folder.join("token");
        files::replace(&path, token.as_bytes(), 0o600, Durability::Volatile).context("write the node's token")
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead, or is never ready; its log is part of the message.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        let url = format!("http://{}/ready/issue", self.telemetry);
        self.process()?.until_ready(&url).await
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let path = self.folder.join("agent.yaml");
        fs::write(&path, serde_json::to_string_pretty(&self.config)?)?;
        let args = ["run".as_ref(), "--config".as_ref(), path.as_os_str()];
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.process = Some(
            self.launch
                .start(Part::Agent, &args, &self.folder, &environment)?,
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

    pub(super) async fn register(&mut self, kube: &str) -> Result<()> {
        let config = KubeletConfig::new(kube, &self.folder.join("kubelet"), POD_AUDIENCE);
        self.kubelet = Some(Kubelet::register(config, wait::PATIENCE).await?);
        Ok(())
    }

    /// Where its health and its metrics are.
    pub fn telemetry_url(&self) -> String {
        format!("http://{}", self.telemetry)
    }

    /// Its process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent is not running")
    }

    /// Kills it with SIGKILL.
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
        let mut process = self.process.take().context("the agent is not running")?;
        process.stop().await
    }

    /// kubelet, once the driver is registered.
    ///
    /// # Errors
    /// When it is not.
    pub fn kubelet(&self) -> Result<&Kubelet> {
        self.kubelet.as_ref().context("the driver is not registered")
    }

    /// Publishes the volume of an existing pod, and mounts it where the pod would see it.
    ///
    /// # Errors
    /// What the driver answers.
    pub async fn publish(&self, namespace: &str, pod: &str) -> Result<Volume> {
        let volume = self.kubelet()?.publish(namespace, pod).await?;
        let mounted = self.mounted(&volume);
        // A pod of the same name that is gone has left its own.
        let _ = fs::remove_file(&mounted);
        symlink(&volume.target, &mounted).with_context(|| format!("link {}", mounted.display()))?;
        Ok(volume)
    }

    /// In a container the volume is at a short path; kubelet's own is too long for a socket address.
    fn mounted(&self, volume: &Volume) -> PathBuf {
        self.pods()
            .join(format!("{}.{}", volume.pod.namespace, volume.pod.name))
    }

    /// One folder for each pod with a volume, as its containers would see it.
    pub fn pods(&self) -> PathBuf {
        self.folder.join("pods")
    }

    /// A client on the socket in a pod's volume.
    pub fn workload(&self, volume: &Volume) -> WorkloadClient {
        WorkloadClient::new(&self.socket(volume))
    }

    /// The socket in a pod's volume.
    pub fn socket(&self, volume: &Volume) -> PathBuf {
        self.mounted(volume).join(SOCKET_NAME)
    }

    /// A client on the socket shared by processes outside Kubernetes.
    pub fn shell(&self) -> WorkloadClient {
        WorkloadClient::new(&self.shell_socket())
    }

    /// The socket shared by processes outside Kubernetes.
    pub fn shell_socket(&self) -> PathBuf {
        self.folder.join("shell.sock")
    }

    /// Where the agent's own commands are taken.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// What it said so far; nothing while it does not run.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command of the agent's binary, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn command(&self, args: &[&str]) -> Result<Finished> {
        let admin = self.admin_socket();
        let shell = format!("unix://{}", self.shell_socket().display());
        let admin = admin.to_str().context("a folder that is no UTF-8")?;
        let env = [
            ("SIGNET_AGENT_ADMIN_SOCKET", admin),
            ("SPIFFE_ENDPOINT_SOCKET", shell.as_str()),
        ];
        run(&binary("signet-agent"), args, &env).await
    }
}
