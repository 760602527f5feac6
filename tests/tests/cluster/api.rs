//! A real API server, and everything a test makes in it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use http::{Method, Request, header};
use kube::config::{KubeConfigOptions, Kubeconfig};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use signet_runtime::sync::Mutex;
use signet_tests::wait::within;

/// How long a real cluster may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster with a namespace that belongs to one test.
pub(crate) struct Cluster {
    client: kube::Client,
    /// The test's own namespace; its name is part of the name of everything that lives outside of it.
    pub(crate) namespace: String,
    /// UID of kube-system.
    pub(crate) uid: String,
    /// `https://host:port`.
    pub(crate) url: http::Uri,
    /// PEM of the authority behind that.
    pub(crate) ca: Vec<u8>,
    outside: Mutex<Vec<String>>,
}

/// A pod as far as tests care.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Name.
    pub(crate) name: String,
    /// UID.
    pub(crate) uid: String,
    /// Service account.
    pub(crate) account: String,
}

/// A node as far as tests care.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Name.
    pub(crate) name: String,
    /// UID.
    pub(crate) uid: String,
}

impl Cluster {
    /// Connects with an administrator's kubeconfig and makes a namespace.
    pub(crate) async fn connect(kubeconfig: &Path) -> Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig).context("SIGNET_TEST_KUBECONFIG")?;
        let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        let url = config.cluster_url.clone();
        let ca = config
            .root_cert
            .iter()
            .flatten()
            .map(|der| pem("CERTIFICATE", der));
        let ca = ca.collect::<String>().into_bytes();
        let mut cluster = Self {
            client: kube::Client::try_from(config)?,
            namespace: format!("signet-test-{}", random_word()?),
            uid: String::new(),
            url,
            ca,
            outside: Mutex::default(),
        };
        cluster.uid = uid_of(&cluster.get("/api/v1/namespaces/kube-system").await?)?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}});
        cluster.create("/api/v1/namespaces", &namespace).await?;
        Ok(cluster)
    }

    /// Removes everything again, as far as it can.
    pub(crate) async fn clean_up(&self) {
        let outside = std::mem::take(&mut *self.outside.lock());
        // Pods of hand-made nodes have no kubelet that would end them.
        let pods = format!("{}?gracePeriodSeconds=0", self.path("pods"));
        let paths = std::iter::once(pods).chain(outside.into_iter().rev());
        for path in paths.chain([format!("/api/v1/namespaces/{}", self.namespace)]) {
            if let Err(error) = self.delete(&path).await {
                crate::checks::say(&format!("not removed: {path}: {error:#}"));
            }
        }
    }

    /// Path of a collection of the core API in the test's namespace.
    pub(crate) fn path(&self, collection: &str) -> String {
        format!("/api/v1/namespaces/{}/{collection}", self.namespace)
    }

    async fn send(&self, method: Method, path: &str, content: &str, body: Vec<u8>) -> Result<String> {
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::CONTENT_TYPE, content)
            .body(body)?;
        let answer = self.client.request_text(request).await;
        answer.with_context(|| format!("{method} {path}"))
    }

    /// An object that must be there.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(path).await?)?)
    }

    /// An object, if it is there.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is not JSON: a pod's log.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        self.send(Method::GET, path, "application/json", Vec::new()).await
    }

    /// Creates an object in a collection.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object)?;
        let answer = self.send(Method::POST, path, "application/json", body).await?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Creates an object outside of the namespace and remembers to remove it.
    pub(crate) async fn create_outside(&self, path: &str, object: &Value) -> Result<Value> {
        let created = self.create(path, object).await?;
        let name = text(&created, "/metadata/name")?;
        let mut outside = self.outside.lock();
        outside.push(format!("{path}/{name}"));
        Ok(created)
    }

    /// Something outside of the namespace that somebody else makes, to be removed at the end.
    pub(crate) fn remember_outside(&self, path: &str) {
        self.outside.lock().push(path.to_owned());
    }

    /// Merges a change into an object.
    pub(crate) async fn patch(&self, path: &str, change: &Value) -> Result<()> {
        let body = serde_json::to_vec(change)?;
        self.send(Method::PATCH, path, "application/merge-patch+json", body)
            .await
            .map(drop)
    }

    /// Deletes; what is not there is fine.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        match self
            .send(Method::DELETE, path, "application/json", Vec::new())
            .await
        {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// A service account.
    pub(crate) async fn create_account(&self, name: &str) -> Result<()> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        self.create(&self.path("serviceaccounts"), &account)
            .await
            .map(drop)
    }

    /// A Node object without a machine; nothing is scheduled to it.
    pub(crate) async fn create_node(&self, name: &str) -> Result<Node> {
        let name = format!("{}-{name}", self.namespace);
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"unschedulable": true, "taints": [{"key": "signet.dev/test", "effect": "NoSchedule"}]},
        });
        let created = self.create_outside("/api/v1/nodes", &node).await?;
        Ok(Node {
            name,
            uid: uid_of(&created)?,
        })
    }

    /// A pod that is bound to a node and that nobody ever runs, unless the node is real.
    pub(crate) async fn create_pod(&self, name: &str, account: &str, node: &str) -> Result<Pod> {
        let spec = json!({
            "serviceAccountName": account, "automountServiceAccountToken": false, "nodeName": node,
            "containers": [{"name": "main", "image": "example.invalid/none:1", "imagePullPolicy": "Never"}],
        });
        self.create_pod_of(name, spec).await
    }

    /// A pod with any spec.
    pub(crate) async fn create_pod_of(&self, name: &str, spec: Value) -> Result<Pod> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        let created = self.create(&self.path("pods"), &pod).await?;
        Ok(Pod {
            name: name.to_owned(),
            uid: uid_of(&created)?,
            account: text(&created, "/spec/serviceAccountName")?,
        })
    }

    /// Begins a pod's end; with no grace it is gone at once.
    pub(crate) async fn delete_pod(&self, pod: &Pod, grace_seconds: u32) -> Result<()> {
        let pods = self.path("pods");
        self.delete(&format!("{pods}/{}?gracePeriodSeconds={grace_seconds}", pod.name))
            .await
    }

    /// A token as kubelet would get it: bound to the pod, for one audience.
    pub(crate) async fn pod_token(&self, pod: &Pod, audience: &str) -> Result<String> {
        self.token(&pod.account, &[audience], 600, Some(pod)).await
    }

    /// Any token that the API server makes.
    pub(crate) async fn token(
        &self,
        account: &str,
        audiences: &[&str],
        seconds: u64,
        bound_to: Option<&Pod>,
    ) -> Result<String> {
        let mut spec = json!({"expirationSeconds": seconds, "audiences": audiences});
        if let Some(pod) = bound_to {
            spec["boundObjectRef"] =
                json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid});
        }
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let path = self.path(&format!("serviceaccounts/{account}/token"));
        text(&self.create(&path, &request).await?, "/status/token")
    }

    /// A kubeconfig with a token, for `url` or the API server itself.
    pub(crate) fn kubeconfig(&self, token: &str, url: Option<&str>) -> Value {
        let server = url.map_or_else(|| self.url.to_string(), ToOwned::to_owned);
        let ca = BASE64_STANDARD.encode(&self.ca);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        })
    }
}

/// Creates the objects of a manifest of `deploy/kubernetes` as a user would, in the test's namespace; what is outside of
/// namespaces gets a name of its own. Returns the names of those.
pub(crate) async fn apply(
    cluster: &Cluster,
    manifest: &str,
    edit: impl Fn(&mut Value),
) -> Result<Vec<String>> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes")).join(manifest);
    let yaml = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml)?;
    let mut names = Vec::new();
    for mut object in objects {
        edit(&mut object);
        let name = format!("{}.{}", cluster.namespace, text(&object, "/metadata/name")?);
        let collection = match object["kind"].as_str() {
            // The test has its own.
            Some("Namespace") => continue,
            Some(kind @ ("ServiceAccount" | "ConfigMap" | "DaemonSet")) => {
                let collection = match kind {
                    "ServiceAccount" => cluster.path("serviceaccounts"),
                    "ConfigMap" => cluster.path("configmaps"),
                    _ => format!("/apis/apps/v1/namespaces/{}/daemonsets", cluster.namespace),
                };
                object["metadata"]["namespace"] = json!(cluster.namespace);
                cluster.create(&collection, &object).await?;
                continue;
            }
            Some("ClusterRole") => "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            Some("ClusterRoleBinding") => {
                let role = format!("{}.{}", cluster.namespace, text(&object, "/roleRef/name")?);
                object["roleRef"]["name"] = json!(role);
                object["subjects"][0]["namespace"] = json!(cluster.namespace);
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
            }
            Some("CSIDriver") => "/apis/storage.k8s.io/v1/csidrivers",
            other => bail!("{manifest} has an object of kind {other:?}"),
        };
        object["metadata"]["name"] = json!(name);
        cluster.create_outside(collection, &object).await?;
        names.push(name);
    }
    Ok(names)
}

/// Waits for something of the cluster.
pub(crate) async fn wait_for<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let mut problem = None;
    let found = within(PATIENCE, async || match probe().await {
        Ok(found) => found,
        Err(error) => {
            problem = Some(error);
            None
        }
    });
    match found.await {
        Some(found) => Ok(found),
        None => bail!(
            "waited {} s in vain for {what}; last error: {problem:?}",
            PATIENCE.as_secs()
        ),
    }
}

/// A text within an object.
pub(crate) fn text(object: &Value, pointer: &str) -> Result<String> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    Ok(found
        .with_context(|| format!("no {pointer} in {object}"))?
        .to_owned())
}

fn uid_of(object: &Value) -> Result<String> {
    text(object, "/metadata/uid")
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<kube::Error>();
    matches!(cause, Some(kube::Error::Api(status)) if status.code == 404)
}

fn random_word() -> Result<String> {
    let mut bytes = [0; 4];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.ok().context("no randomness")?;
    Ok(hex::encode(bytes))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
