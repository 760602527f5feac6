//! A real node with the real agent on it: the agent runs on the host beside kubelet, as root, in the name of a pod.

use std::{
    io::ErrorKind,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use signet_tests::{
    domain::{Agent, NODE_AUDIENCE, POD_AUDIENCE, TRUST_DOMAIN},
    part::Launch,
    process::binary,
    workload::WorkloadClient,
};
use tempfile::TempDir;

use crate::{
    api::{Cluster, Node, Pod, apply, text, wait_for},
    checks::World,
    server::Server,
};

/// User and group of the workloads.
const NOBODY: u32 = 65534;
/// Where the workloads find their socket.
const MOUNT: &str = "run/spiffe";
/// What a workload does: look at its socket, try to write beside it, and stay.
const LOOK: &str = "id; ls -ln /run/spiffe; echo x > /run/spiffe/x; echo looked; exec sleep 100000";

/// A node with kubelet, server and agent.
pub(crate) struct OneNode {
    /// The API server.
    pub(crate) cluster: Arc<Cluster>,
    /// The server.
    pub(crate) server: Server,
    /// The agent.
    pub(crate) agent: Agent,
    /// The pod in whose name it runs.
    pub(crate) agent_pod: Pod,
    /// This machine as Kubernetes knows it.
    pub(crate) node: Node,
    /// Name of the CSIDriver object.
    pub(crate) driver: String,
    /// The pod that most of the story is about.
    pub(crate) first: Option<Volume>,
    kubelet: PathBuf,
    image: String,
    _folder: TempDir,
}

/// A pod's volume as seen from the host.
pub(crate) struct Volume {
    /// Its pod.
    pub(crate) pod: Pod,
    /// Where kubelet had it mounted.
    pub(crate) target: PathBuf,
    /// The agent's folder for it.
    pub(crate) folder: PathBuf,
    /// A process of the pod.
    pub(crate) pid: u32,
}

impl World for OneNode {
    fn log(&self) -> String {
        format!("{}\n{}", self.server.log(), agent_stands(&self.agent))
    }
}

impl OneNode {
    /// The agent's pod runs, and the agent in its name.
    pub(crate) async fn set_up(cluster: Arc<Cluster>) -> Result<Self> {
        let kubelet = std::env::var_os(crate::KUBELET_DIR).context("no kubelet")?;
        let kubelet = PathBuf::from(kubelet).canonicalize()?;
        ensure!(nix::unistd::geteuid().is_root(), "mounts need root");
        let server = Server::start(&cluster, None, "30s").await?;
        cluster.create_account("web").await?;
        let driver = apply(&cluster, "csidriver.yaml", |object| {
            object["spec"]["tokenRequests"][0]["audience"] = json!(POD_AUDIENCE);
        })
        .await?;
        let image = std::env::var("SIGNET_TEST_IMAGE").unwrap_or_else(|_| "local/busybox:1".to_owned());
        let agent_pod = cluster.create_pod_of("agent", agent_spec(&image)).await?;
        let node = running(&cluster, &agent_pod).await?;
        let folder = tempfile::Builder::new().prefix("signet-agent").tempdir()?;
        let token = kubelet
            .join("pods")
            .join(&agent_pod.uid)
            .join("volumes/kubernetes.io~projected/node-token/token");
        ensure!(
            token.is_file(),
            "{} is not there: another node's kubelet?",
            token.display()
        );
        let mut agent = Agent::prepare(folder.path(), &node.name, &server, &Launch::Binaries)?;
        let driver = driver.into_iter().next().context("no CSIDriver")?;
        agent.change(&[
            ("/node/token_file".to_owned(), json!(token)),
            ("/csi/kubelet_dir".to_owned(), json!(kubelet)),
            ("/csi/driver_name".to_owned(), json!(driver)),
            // Below kubelet's folder, where a driver belongs.
            ("/csi/socket_path".to_owned(), json!("")),
            ("/csi/mounter".to_owned(), json!("bind")),
            ("/shared_socket".to_owned(), Value::Null),
        ])?;
        agent.spawn()?;
        Ok(Self {
            agent,
            cluster,
            server,
            agent_pod,
            node,
            driver,
            first: None,
            kubelet,
            image,
            _folder: folder,
        })
    }

    /// Starts the agent again after it was killed.
    pub(crate) async fn start_agent(&mut self) -> Result<()> {
        self.agent.spawn()?;
        let admin = self.agent.admin_socket();
        wait_for("the agent's sockets", async || {
            let running = self.agent.process()?.is_running();
            ensure!(running, "{}", agent_stands(&self.agent));
            Ok(std::os::unix::net::UnixStream::connect(&admin)
                .is_ok()
                .then_some(()))
        })
        .await
    }

    /// The story's first pod.
    pub(crate) fn first(&self) -> Result<&Volume> {
        self.first.as_ref().context("there is no first pod")
    }

    /// What every workload here must be.
    pub(crate) fn expected_id(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/web", self.cluster.namespace)
    }

    /// A workload that mounts the volume; returns once it runs.
    pub(crate) async fn start_pod(&self, name: &str) -> Result<Pod> {
        let spec = workload_spec(&self.node.name, &self.image, &self.driver);
        let pod = self.cluster.create_pod_of(name, spec).await?;
        let started = running(&self.cluster, &pod).await;
        started.with_context(|| agent_stands(&self.agent))?;
        Ok(pod)
    }

    /// Deletes a pod and waits until kubelet has let go of it.
    pub(crate) async fn end_pod(&self, pod: &Pod) -> Result<()> {
        self.cluster.delete_pod(pod, 1).await?;
        let path = format!("{}/{}", self.cluster.path("pods"), pod.name);
        wait_for("the end of a pod", async || {
            let there = self.cluster.find(&path).await?;
            Ok(there.is_none().then_some(()))
        })
        .await
    }

    /// The volume of a running pod.
    pub(crate) async fn volume(&self, pod: &Pod) -> Result<Volume> {
        let target = self.kubelet.join("pods").join(&pod.uid);
        let target = target.join("volumes/kubernetes.io~csi/spiffe/mount");
        let pid = wait_for("a process of the pod", async || find_process(&pod.uid)).await?;
        // The agent's folder is the one whose inner directory is what is mounted.
        let inode = std::fs::metadata(&target)?.ino();
        for entry in std::fs::read_dir(self.agent.folder().join("volumes"))? {
            let folder = entry?.path();
            if std::fs::metadata(folder.join("socket")).is_ok_and(|found| found.ino() == inode) {
                return Ok(Volume {
                    pod: pod.clone(),
                    target,
                    folder,
                    pid,
                });
            }
        }
        bail!("{} is none of the agent's folders", target.display())
    }

    /// Runs `signet-agent fetch x509` as the pod's user, through the pod's own view of its files.
    pub(crate) async fn fetch_as_pod(&self, volume: &Volume) -> Result<Value> {
        // The pod's user cannot look into the build's folders.
        let open = tempfile::Builder::new().prefix("signet-open").tempdir()?;
        let program = open.path().join("signet-agent");
        std::fs::copy(binary("signet-agent"), &program)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(open.path(), mode)?;
        let socket = format!("unix://{}", volume.socket().display());
        let fetched = tokio::task::spawn_blocking(move || {
            std::process::Command::new(program)
                .args(["fetch", "x509", "--output", "json", "--socket", &socket])
                .uid(NOBODY)
                .gid(NOBODY)
                .current_dir("/")
                .env_clear()
                .output()
        });
        let output = fetched.await??;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "fetch as the pod's user: {said}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Volume {
    /// The socket as a process of the pod sees it.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_of(self.pid)
    }

    /// A client in the pod's place.
    pub(crate) fn client(&self) -> WorkloadClient {
        WorkloadClient::new(&self.socket())
    }

    /// Of the directory that the pod has mounted.
    pub(crate) fn inode(&self) -> Result<u64> {
        let seen = std::fs::metadata(self.socket().parent().context("no folder")?)?.ino();
        let held = std::fs::metadata(self.folder.join("socket"))?.ino();
        ensure!(seen == held, "the pod and the agent have different directories");
        Ok(seen)
    }

    /// Whether kubelet's folder is a mount point.
    pub(crate) fn is_mounted(&self) -> Result<bool> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let target = self.target.to_string_lossy();
        Ok(mounts.lines().any(|line| line.split(' ').nth(4) == Some(&target)))
    }

    /// Where the agent keeps the pod's token.
    pub(crate) fn token_file(&self) -> Result<PathBuf> {
        let path = self.folder.join("token.json");
        let mode = std::fs::metadata(&path)?.mode() & 0o777;
        ensure!(mode == 0o600, "mode {mode:o} of a token");
        Ok(path)
    }

    /// That token.
    pub(crate) fn token(&self) -> Result<String> {
        let kept: Value = serde_json::from_slice(&std::fs::read(self.token_file()?)?)?;
        text(&kept, "/secret")
    }
}

/// What the agent said, for a failed check.
pub(crate) fn agent_stands(agent: &Agent) -> String {
    format!("the agent's log:\n{}", agent.said())
}

/// A pod with the agent's account and its projected token; the agent itself runs on the host.
fn agent_spec(image: &str) -> Value {
    json!({
        "serviceAccountName": "signet-agent", "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main", "image": image, "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "exec sleep 100000"],
            "volumeMounts": [{"name": "node-token", "mountPath": "/token", "readOnly": true}],
        }],
        "volumes": [{"name": "node-token", "projected": {"sources": [
            {"serviceAccountToken": {"audience": NODE_AUDIENCE, "expirationSeconds": 3600, "path": "token"}},
        ]}}],
    })
}

/// A workload of any user that mounts the driver's volume.
pub(crate) fn workload_spec(node: &str, image: &str, driver: &str) -> Value {
    json!({
        "serviceAccountName": "web", "automountServiceAccountToken": false, "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": NOBODY, "runAsGroup": NOBODY, "runAsNonRoot": true},
        "containers": [{
            "name": "main", "image": image, "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", LOOK],
            "volumeMounts": [{"name": "spiffe", "mountPath": format!("/{MOUNT}"), "readOnly": true}],
        }],
        "volumes": [{"name": "spiffe", "csi": {"driver": driver, "readOnly": true}}],
    })
}

/// The socket as a process of its pod sees it.
pub(crate) fn socket_of(pid: u32) -> PathBuf {
    Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(MOUNT)
        .join("spiffe.sock")
}

/// Waits until a pod runs; returns its node.
pub(crate) async fn running(cluster: &Cluster, pod: &Pod) -> Result<Node> {
    let path = format!("{}/{}", cluster.path("pods"), pod.name);
    let mut last = Value::Null;
    let found = wait_for("a running pod", async || {
        last = cluster.get(&path).await?;
        let is_running = last.pointer("/status/phase") == Some(&json!("Running"));
        is_running.then(|| text(&last, "/spec/nodeName")).transpose()
    })
    .await;
    let name = found.with_context(|| format!("pod {}: {}", pod.name, last["status"]))?;
    let node = cluster.get(&format!("/api/v1/nodes/{name}")).await?;
    let uid = text(&node, "/metadata/uid")?;
    Ok(Node { name, uid })
}

/// The workload's process, once its shell has become it.
pub(crate) fn find_process(pod_uid: &str) -> Result<Option<u32>> {
    let flat = pod_uid.replace('-', "_");
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let read = |name: &str| match std::fs::read_to_string(entry.path().join(name)) {
            // It ended while it was looked at.
            Err(error) if error.kind() != ErrorKind::PermissionDenied => Ok(String::new()),
            other => other,
        };
        let cgroup = read("cgroup")?;
        if (cgroup.contains(pod_uid) || cgroup.contains(&flat)) && read("cmdline")?.starts_with("sleep") {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}
