//! Kubernetes objects as JSON, with the members that an identity issuer looks at, shaped like the recorded ones.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The resources this fake keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Namespace,
    Node,
    ServiceAccount,
    Pod,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
        }
    }

    /// The plural of the URL.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::ServiceAccount => "serviceaccounts",
            Self::Pod => "pods",
        }
    }
}

/// A pod to create. Its node and its service account are created with it where they do not exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Service account; `default` unless set.
    #[serde(default = "default_service_account")]
    pub service_account: String,
    /// The node it is bound to; absent means not scheduled yet.
    #[serde(default)]
    pub node: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `status.phase`; `Running` unless set.
    #[serde(default = "default_phase")]
    pub phase: String,
    /// `status.podIPs`.
    #[serde(default)]
    pub pod_ips: Vec<String>,
}

impl PodSpec {
    /// A running pod of the namespace's `default` service account on `node-a`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            service_account: default_service_account(),
            node: Some("node-a".to_owned()),
            labels: BTreeMap::new(),
            phase: default_phase(),
            pod_ips: Vec::new(),
        }
    }

    /// Under this service account.
    #[must_use]
    pub fn service_account(mut self, name: &str) -> Self {
        name.clone_into(&mut self.service_account);
        self
    }

    /// On this node.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.node = Some(name.to_owned());
        self
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// In this phase.
    #[must_use]
    pub fn phase(mut self, phase: &str) -> Self {
        phase.clone_into(&mut self.phase);
        self
    }
}

fn default_service_account() -> String {
    "default".to_owned()
}

fn default_phase() -> String {
    "Running".to_owned()
}

/// A random UUID, as object UIDs are.
pub(crate) fn new_uid(rng: &SystemRandom) -> String {
    let mut bytes = [0_u8; 16];
    // A fake without randomness still has to hand out something; collisions would show at once in a test.
    let _ = rng.fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

pub(crate) fn pod(spec: &PodSpec, uid: &str, created: &str) -> Value {
    let ips: Vec<Value> = spec.pod_ips.iter().map(|ip| json!({ "ip": ip })).collect();
    let mut pod = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": spec.name, "namespace": spec.namespace, "uid": uid, "generation": 1,
            "creationTimestamp": created, "labels": spec.labels,
        },
        "spec": {
            "containers": [{ "name": "app", "image": "app:1", "resources": {}, "imagePullPolicy": "IfNotPresent" }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": spec.service_account, "serviceAccount": spec.service_account,
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true,
        },
        "status": { "phase": spec.phase, "qosClass": "BestEffort" },
    });
    if let Some(node) = &spec.node {
        pod["spec"]["nodeName"] = json!(node);
    }
    if let Some(first) = spec.pod_ips.first() {
        pod["status"]["podIP"] = json!(first);
        pod["status"]["podIPs"] = json!(ips);
    }
    pod
}

pub(crate) fn node(name: &str, uid: &str, created: &str) -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {
            "name": name, "uid": uid, "creationTimestamp": created,
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
        },
        "spec": {},
        "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }] },
    })
}

pub(crate) fn service_account(namespace: &str, name: &str, uid: &str, created: &str) -> Value {
    json!({
        "kind": "ServiceAccount", "apiVersion": "v1",
        "metadata": { "name": name, "namespace": namespace, "uid": uid, "creationTimestamp": created },
    })
}

pub(crate) fn namespace(name: &str, uid: &str, created: &str) -> Value {
    json!({
        "kind": "Namespace", "apiVersion": "v1",
        "metadata": {
            "name": name, "uid": uid, "creationTimestamp": created,
            "labels": { "kubernetes.io/metadata.name": name },
        },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    })
}

/// The string at `pointer` (RFC 6901), empty when absent.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Seconds since 1970 of an RFC 3339 time; `None` for anything else.
pub(crate) fn seconds_of(timestamp: &str) -> Option<i64> {
    let time: Timestamp = timestamp.parse().ok()?;
    Some(time.as_second())
}
