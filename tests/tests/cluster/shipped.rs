//! The manifests of `deploy/kubernetes` as they are shipped, from an image: what they say about folders, mounts, probes and
//! privileges is what the agent needs. Only names and addresses are edited, as docs/kubernetes.md tells a user to.
//!
//! The checks are one story and run in this order.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use signet_tests::{
    domain::{CLUSTER, NODE_AUDIENCE, POD_AUDIENCE, TRUST_DOMAIN},
    wait::within,
    workload::{Identity, WorkloadClient},
};
use tempfile::TempDir;

use crate::{
    api::{Cluster, PATIENCE, Pod, apply, text, wait_for},
    checks::{Check, World, checks},
    csi::{find_process, running, socket_of, workload_spec},
    images::import,
    server::Server,
};

pub(crate) const CHECKS: &[Check<Shipped>] = checks![
    "the DaemonSet's pod starts and becomes ready" => starts,
    "a pod that mounts the driver's volume gets its identity" => serves,
    "a new pod of the DaemonSet serves the same certificate on the same socket" => is_replaced,
    "a deleted pod leaves nothing in the agent's folders" => ends,
];

/// A node whose agent is the shipped DaemonSet.
pub(crate) struct Shipped {
    cluster: Arc<Cluster>,
    server: Server,
    driver: String,
    kubelet: PathBuf,
    image: String,
    /// The host's folder for sockets and keys. On tmpfs, as `/run` is where an init system runs, and `/dev/shm` everywhere.
    run: TempDir,
    _data: TempDir,
    workload: Option<(Pod, WorkloadClient)>,
    held: Option<Identity>,
}

impl World for Shipped {
    fn log(&self) -> String {
        self.server.log()
    }
}

impl Shipped {
    /// Applies everything.
    pub(crate) async fn set_up(cluster: Arc<Cluster>) -> Result<Self> {
        let agent_image = format!("signet-test/agent:{}", cluster.namespace);
        import("signet-agent", &agent_image).await?;
        let kubelet =
            PathBuf::from(std::env::var_os(crate::KUBELET_DIR).context("no kubelet")?).canonicalize()?;
        let nodes = cluster.get("/api/v1/nodes").await?;
        let address = internal_address(&nodes)?;
        let server = Server::start_at(&cluster, &address, "10m").await?;
        cluster.create_account("web").await?;
        let driver = apply(&cluster, "csidriver.yaml", |object| {
            object["spec"]["tokenRequests"][0]["audience"] = json!(POD_AUDIENCE);
        })
        .await?;
        let driver = driver.into_iter().next().context("no CSIDriver")?;
        anchors(&cluster, &server).await?;
        let (run, data) = (
            tempfile::Builder::new().tempdir_in("/dev/shm")?,
            signet_testkit::folder(),
        );
        let folders = Folders {
            kubelet: &kubelet,
            driver: &driver,
            run: run.path(),
            data: data.path(),
        };
        apply(&cluster, "agent.yaml", |object| match object["kind"].as_str() {
            Some("ConfigMap") => configure(object, &server.agents().to_string(), &driver, &kubelet),
            _ => adapt(object, &agent_image, &folders),
        })
        .await?;
        Ok(Self {
            cluster,
            server,
            driver,
            kubelet,
            image: std::env::var("SIGNET_TEST_IMAGE").unwrap_or_else(|_| "local/busybox:1".to_owned()),
            run,
            _data: data,
            workload: None,
            held: None,
        })
    }

    /// The DaemonSet's only pod, once it is ready and not the one before.
    async fn ready_pod(&self, before: &str) -> Result<String> {
        let path = format!(
            "{}?labelSelector=app.kubernetes.io%2Fname%3Dsignet-agent",
            self.cluster.path("pods")
        );
        let mut last = Value::Null;
        let found = wait_for("a ready pod of the DaemonSet", async || {
            last = self.cluster.get(&path).await?;
            let pods = last["items"].as_array().cloned().unwrap_or_default();
            let is_ready = |pod: &&Value| {
                pod.pointer("/status/containerStatuses/0/ready") == Some(&json!(true))
                    && pod["metadata"]["name"] != before
            };
            pods.iter()
                .find(is_ready)
                .map(|pod| text(pod, "/metadata/name"))
                .transpose()
        })
        .await;
        found.with_context(|| format!("{}", last.pointer("/items/0/status").unwrap_or(&last)))
    }

    /// The folders that the agent keeps for volumes.
    fn volumes(&self) -> Result<usize> {
        let folders = std::fs::read_dir(self.run.path().join("volumes"))?;
        Ok(folders
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .count())
    }
}

/// Where the manifest's host folders are on this machine.
struct Folders<'a> {
    kubelet: &'a Path,
    driver: &'a str,
    run: &'a Path,
    data: &'a Path,
}

fn internal_address(nodes: &Value) -> Result<String> {
    let addresses = nodes
        .pointer("/items/0/status/addresses")
        .and_then(Value::as_array);
    let internal = addresses
        .into_iter()
        .flatten()
        .find(|address| address["type"] == "InternalIP");
    text(internal.context("a node without an address")?, "/address")
}

async fn anchors(cluster: &Cluster, server: &Server) -> Result<()> {
    let pem = wait_for("the file of control anchors", async || {
        Ok(std::fs::read_to_string(server.anchors()).ok())
    })
    .await?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "signet-anchors"},
        "data": {"anchors.pem": pem},
    });
    cluster.create(&cluster.path("configmaps"), &map).await.map(drop)
}

/// What a user edits in the agent's file, and where this machine's kubelet is.
fn configure(map: &mut Value, server: &str, driver: &str, kubelet: &Path) {
    let file = map["data"]["agent.yaml"].as_str().unwrap_or_default();
    let csi = format!(
        "enabled: true\n  driver_name: {driver}\n  kubelet_dir: {}",
        kubelet.display()
    );
    let edited = file
        .replace("signet-server.signet-system.svc:8443", server)
        .replace(
            "trust_domain: example.org",
            &format!("trust_domain: {TRUST_DOMAIN}"),
        )
        .replace("cluster: default", &format!("cluster: {CLUSTER}"))
        .replace("enabled: true", &csi);
    map["data"]["agent.yaml"] = json!(edited);
}

fn adapt(set: &mut Value, image: &str, folders: &Folders<'_>) {
    let spec = &mut set["spec"]["template"]["spec"];
    let container = &mut spec["containers"][0];
    container["image"] = json!(image);
    container["imagePullPolicy"] = json!("Never");
    let of_kubelet = |name: &Value| match name.as_str() {
        Some("pods") => Some(folders.kubelet.join("pods")),
        Some("plugin") => Some(folders.kubelet.join("plugins").join(folders.driver)),
        Some("registry") => Some(folders.kubelet.join("plugins_registry")),
        _ => None,
    };
    for mount in container["volumeMounts"].as_array_mut().into_iter().flatten() {
        if let Some(path) = of_kubelet(&mount["name"]) {
            mount["mountPath"] = json!(path);
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if let Some(path) = of_kubelet(&volume["name"]) {
            volume["hostPath"]["path"] = json!(path);
        }
        match volume["name"].as_str() {
            Some("run") => volume["hostPath"]["path"] = json!(folders.run),
            Some("data") => volume["hostPath"]["path"] = json!(folders.data),
            Some("node-token") => {
                volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!(NODE_AUDIENCE);
            }
            _ => {}
        }
    }
}

async fn starts(world: &mut Shipped) -> Result<()> {
    world.ready_pod("").await.map(drop)
}

async fn serves(world: &mut Shipped) -> Result<()> {
    let node = world.cluster.get("/api/v1/nodes").await?;
    let node = text(&node, "/items/0/metadata/name")?;
    let spec = workload_spec(&node, &world.image, &world.driver);
    let pod = world.cluster.create_pod_of("web-1", spec).await?;
    running(&world.cluster, &pod).await?;
    let pid = wait_for("a process of the pod", async || find_process(&pod.uid)).await?;
    let client = WorkloadClient::new(&socket_of(pid));
    let identity = within(PATIENCE, async || client.fetch().await.ok()).await;
    let identity = identity.context("no identity")?;
    let expected = format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/web", world.cluster.namespace);
    ensure!(
        identity.svid.spiffe_id().as_str() == expected,
        "{} instead of {expected}",
        identity.svid.spiffe_id()
    );
    identity.judge(&identity.svid)?;
    world.held = Some(identity);
    world.workload = Some((pod, client));
    Ok(())
}

async fn is_replaced(world: &mut Shipped) -> Result<()> {
    let before = world.ready_pod("").await?;
    let path = format!("{}/{before}", world.cluster.path("pods"));
    world.cluster.delete(&path).await?;
    world.ready_pod(&before).await?;
    let (_, client) = world.workload.as_ref().context("no workload")?;
    let again = within(PATIENCE, async || client.fetch().await.ok()).await;
    let again = again.context("the running pod is cut off")?;
    let held = world.held.as_ref().context("no identity")?;
    ensure!(
        again.svid.serial() == held.svid.serial(),
        "a restart issued another certificate"
    );
    Ok(())
}

async fn ends(world: &mut Shipped) -> Result<()> {
    let (pod, _) = world.workload.take().context("no workload")?;
    ensure!(world.volumes()? == 1, "{} volumes", world.volumes()?);
    world.cluster.delete_pod(&pod, 1).await?;
    let target = world.kubelet.join("pods").join(&pod.uid);
    wait_for("the end of the pod's volume", async || {
        Ok((world.volumes()? == 0 && !target.exists()).then_some(()))
    })
    .await
}
