//! kubelet's part towards a CSI driver: registration, publishing inline volumes with fresh tokens, unpublishing.
//!
//! Calls, their order and the volume context are those recorded in `testkit/fixtures/kube/csi-calls-of-kubelet.txt`, for a
//! CSIDriver object with `podInfoOnMount`, `tokenRequests` and `requiresRepublish`. Tokens come from the API server by
//! TokenRequest, so the fake may run in another process.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ring::digest;
use serde_json::{Value, json};
use signet_proto::{
    csi::{
        NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
        VolumeCapability,
        node_client::NodeClient,
        volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
    },
    registration::{InfoRequest, RegistrationStatus, registration_client::RegistrationClient},
};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::{http, uds, wait};

/// kubelet gives a plugin this long to describe itself.
const GET_INFO_LIMIT: Duration = Duration::from_secs(1);
/// kubelet's deadline for publishing.
const PUBLISH_LIMIT: Duration = Duration::from_secs(120);

/// What the CSIDriver object and the node would tell kubelet.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// Base URL of the API server.
    pub api: String,
    /// Bearer token for it; empty when it asks for none.
    pub api_token: String,
    /// kubelet's folder, `/var/lib/kubelet` on a real node.
    pub folder: PathBuf,
    /// `tokenRequests[].audience`.
    pub audience: String,
    /// `tokenRequests[].expirationSeconds`, at least 600.
    pub token_seconds: u64,
    /// Name of the pods' inline volume.
    pub volume: String,
}

impl KubeletConfig {
    /// Tokens for an hour, volumes named `spiffe`.
    pub fn new(api: &str, folder: &Path, audience: &str) -> Self {
        Self {
            api: api.to_owned(),
            api_token: String::new(),
            folder: folder.to_owned(),
            audience: audience.to_owned(),
            token_seconds: 3600,
            volume: "spiffe".to_owned(),
        }
    }

    /// Where plugins put their registration sockets.
    pub fn registry(&self) -> PathBuf {
        self.folder.join("plugins_registry")
    }
}

/// A driver that registered itself.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its name.
    pub driver: String,
    /// Its socket.
    pub endpoint: PathBuf,
    /// What it calls this node.
    pub node_id: String,
}

/// An inline volume that was published for a pod.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The volume handle.
    pub id: String,
    /// What the container sees.
    pub target: PathBuf,
    /// The pod.
    pub pod: PodOfVolume,
}

/// The pod info that kubelet passes on mount.
#[derive(Clone, Debug)]
pub struct PodOfVolume {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Service account.
    pub service_account: String,
}

/// kubelet on one node, with one driver.
pub struct Kubelet {
    config: KubeletConfig,
    registered: Registered,
    node: NodeClient<Channel>,
}

impl Kubelet {
    /// Waits for the driver's registration socket and does the handshake.
    ///
    /// # Errors
    /// When no socket appears within `patience`, or the driver says something kubelet would not accept.
    pub async fn register(config: KubeletConfig, patience: Duration) -> Result<Self> {
        let registry = config.registry();
        let socket = wait::within(patience, async || registration_socket(&registry))
            .await
            .with_context(|| format!("no registration socket appeared in {}", registry.display()))?;
        let mut plugin = RegistrationClient::new(uds::connect(&socket).await?);
        let info = timeout(GET_INFO_LIMIT, plugin.get_info(InfoRequest {}))
            .await
            .context("GetInfo took longer than kubelet waits")??
            .into_inner();
        ensure!(info.r#type == "CSIPlugin", "a plugin of type {:?}", info.r#type);
        ensure!(
            info.supported_versions.iter().any(|v| v.starts_with("1.")),
            "no supported CSI version in {:?}",
            info.supported_versions
        );
        let endpoint = PathBuf::from(&info.endpoint);
        let mut node = NodeClient::new(uds::connect_lazy(&endpoint));
        // kubelet asks before it notifies: the CSI socket must serve by now.
        let described = node.node_get_info(NodeGetInfoRequest {}).await?.into_inner();
        ensure!(!described.node_id.is_empty(), "NodeGetInfo without a node id");
        plugin
            .notify_registration_status(RegistrationStatus {
                plugin_registered: true,
                error: String::new(),
            })
            .await?;
        let registered = Registered {
            driver: info.name,
            endpoint,
            node_id: described.node_id,
        };
        Ok(Self {
            config,
            registered,
            node,
        })
    }

    /// The driver.
    pub fn registered(&self) -> &Registered {
        &self.registered
    }

    /// Publishes the pod's inline volume, with a fresh token of the pod.
    ///
    /// # Errors
    /// What the API server or the driver answers; kubelet would try again later.
    pub async fn publish(&self, namespace: &str, pod: &str) -> Result<Volume> {
        let pod = self.pod(namespace, pod).await?;
        let volume = volume(&self.config, pod);
        if let Some(parent) = volume.target.parent() {
            // The target itself is the driver's to make.
            std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        self.republish(&volume).await?;
        Ok(volume)
    }

    /// Publishes again, as kubelet does about once a pod sync, with another token.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn republish(&self, volume: &Volume) -> Result<()> {
        let tokens = self.tokens(&volume.pod).await?;
        self.publish_with_tokens(volume, &tokens).await
    }

    /// Publishes with this `serviceAccount.tokens` text, whatever it is.
    ///
    /// # Errors
    /// What the driver answers.
    pub async fn publish_with_tokens(&self, volume: &Volume, tokens: &str) -> Result<()> {
        let mut node = self.node.clone();
        // Recorded: it asks twice, once for each capability it has a use for.
        for _ in 0..2 {
            node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await?;
        }
        let request = publish_request(volume, tokens);
        let published = timeout(PUBLISH_LIMIT, node.node_publish_volume(request));
        published
            .await
            .context("NodePublishVolume took longer than kubelet waits")??;
        Ok(())
    }

    /// Unpublishes the volume, as kubelet does when the pod is gone.
    ///
    /// # Errors
    /// What the driver answers.
    pub async fn unpublish(&self, volume: &Volume) -> Result<()> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: volume.target.display().to_string(),
        };
        self.node.clone().node_unpublish_volume(request).await?;
        Ok(())
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<PodOfVolume> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let pod = self.api(hyper::Method::GET, &path, None).await?;
        let text = |pointer: &str| {
            let value = pod.pointer(pointer).and_then(Value::as_str);
            value
                .map(str::to_owned)
                .with_context(|| format!("a pod without {pointer}"))
        };
        Ok(PodOfVolume {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: text("/metadata/uid")?,
            service_account: text("/spec/serviceAccountName")?,
        })
    }

    /// The text under `csi.storage.k8s.io/serviceAccount.tokens`.
    ///
    /// # Errors
    /// What the API server answers to the TokenRequest.
    pub async fn tokens(&self, pod: &PodOfVolume) -> Result<String> {
        let path = format!(
            "/api/v1/namespaces/{}/serviceaccounts/{}/token",
            pod.namespace, pod.service_account
        );
        let order = json!({
            "spec": {
                "audiences": [self.config.audience],
                "expirationSeconds": self.config.token_seconds,
                "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid },
            },
        });
        let answer = self.api(hyper::Method::POST, &path, Some(&order)).await?;
        Ok(json!({ self.config.audience.as_str(): answer["status"] }).to_string())
    }

    async fn api(&self, method: hyper::Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}{path}", self.config.api);
        let authorization = format!("Bearer {}", self.config.api_token);
        let mut headers = vec![(hyper::header::CONTENT_TYPE, "application/json")];
        if !self.config.api_token.is_empty() {
            headers.push((hyper::header::AUTHORIZATION, authorization.as_str()));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = http::send(method, &url, &headers, body.into()).await?;
        let json = answer.json()?;
        if !answer.status.is_success() {
            bail!("the API server answers {}: {}", answer.status, json["message"]);
        }
        Ok(json)
    }
}

/// The first `*-reg.sock` in the registry.
fn registration_socket(registry: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(registry).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.ends_with("-reg.sock") && !name.starts_with('.')
    })
}

/// The inline volume that kubelet makes for a pod.
pub fn volume(config: &KubeletConfig, pod: PodOfVolume) -> Volume {
    let hash = digest::digest(
        &digest::SHA256,
        format!("{}{}", pod.uid, config.volume).as_bytes(),
    );
    let target = config
        .folder
        .join("pods")
        .join(&pod.uid)
        .join("volumes/kubernetes.io~csi")
        .join(&config.volume)
        .join("mount");
    Volume {
        id: format!("csi-{}", hex::encode(hash)),
        target,
        pod,
    }
}

/// What kubelet says to the driver to publish a volume, with this `serviceAccount.tokens` text.
pub fn publish_request(volume: &Volume, tokens: &str) -> NodePublishVolumeRequest {
    let key = |name: &str| format!("csi.storage.k8s.io/{name}");
    let pod = &volume.pod;
    NodePublishVolumeRequest {
        volume_id: volume.id.clone(),
        target_path: volume.target.display().to_string(),
        volume_capability: Some(VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        }),
        readonly: true,
        volume_context: [
            (key("pod.name"), pod.name.clone()),
            (key("pod.namespace"), pod.namespace.clone()),
            (key("pod.uid"), pod.uid.clone()),
            (key("serviceAccount.name"), pod.service_account.clone()),
            (key("ephemeral"), "true".to_owned()),
            (key("serviceAccount.tokens"), tokens.to_owned()),
        ]
        .into(),
        ..NodePublishVolumeRequest::default()
    }
}

#[cfg(test)]
mod tests;
