//! The cluster behind the API: what its controllers and kubelets would do, as plain calls.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use signet_certs::time::{rfc3339, unix_seconds};
use signet_runtime::sync::Mutex;
use tokio::sync::watch;

use super::{
    FakeKubeConfig,
    etcd::Etcd,
    faults::Faults,
    keys::{KeyRing, SigningKey},
    objects::{self, Kind, PodSpec, new_uid, text},
    reviewed::ReviewCache,
};

/// Everything behind the HTTP doors.
pub(crate) struct Cluster {
    pub(crate) config: FakeKubeConfig,
    pub(crate) etcd: Mutex<Etcd>,
    pub(crate) keys: Mutex<KeyRing>,
    pub(crate) faults: Faults,
    pub(crate) reviewed: ReviewCache,
    /// Bearer token of whoever may do everything.
    pub(crate) admin_token: String,
    /// Version of the newest change: wakes the watches.
    pub(crate) newest: watch::Sender<u64>,
    /// Counts up when the open watches shall end; true means cut, false a clean end.
    pub(crate) watch_ends: watch::Sender<(u64, bool)>,
    /// After how many pods the next watch that begins with all of them is cut.
    pub(crate) initial_events_break_off: Mutex<Option<usize>>,
    /// Counts up when faults change: wakes the requests that hang.
    pub(crate) fault_changes: watch::Sender<u64>,
    rng: SystemRandom,
}

impl Cluster {
    pub(crate) fn new(config: FakeKubeConfig) -> Result<Arc<Self>> {
        let rng = SystemRandom::new();
        let key = match &config.rsa_key {
            Some(pkcs8) => SigningKey::rs256(pkcs8)?,
            None => SigningKey::es256(&rng)?,
        };
        let cluster = Self {
            etcd: Mutex::new(Etcd::new(config.watch_history)),
            keys: Mutex::new(KeyRing::new(key)),
            faults: Faults::default(),
            reviewed: ReviewCache::new(config.review_cache),
            admin_token: new_uid(&rng),
            newest: watch::Sender::new(0),
            watch_ends: watch::Sender::new((0, false)),
            initial_events_break_off: Mutex::default(),
            fault_changes: watch::Sender::new(0),
            rng,
            config,
        };
        let uid = cluster.config.cluster_uid.clone();
        cluster.put(Kind::Namespace, |now| {
            objects::namespace("kube-system", &uid, now)
        });
        Ok(Arc::new(cluster))
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.config.clock.now()
    }

    fn put(&self, kind: Kind, object: impl FnOnce(&str) -> Value) -> Value {
        let object = object(&rfc3339(self.now()));
        let mut etcd = self.etcd.lock();
        let stored = etcd.put(kind, object);
        self.newest.send_replace(etcd.version());
        stored
    }

    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        self.etcd.lock().get(kind, namespace, name).cloned()
    }

    fn uid_of(&self, kind: Kind, namespace: &str, name: &str) -> Option<String> {
        let object = self.get(kind, namespace, name)?;
        Some(text(&object, "/metadata/uid").to_owned())
    }

    /// The node's UID; the node is created when it does not exist.
    pub(crate) fn ensure_node(&self, name: &str) -> String {
        self.uid_of(Kind::Node, "", name).unwrap_or_else(|| {
            let uid = new_uid(&self.rng);
            self.put(Kind::Node, |now| objects::node(name, &uid, now));
            uid
        })
    }

    pub(crate) fn ensure_namespace(&self, name: &str) {
        if self.get(Kind::Namespace, "", name).is_none() {
            let uid = new_uid(&self.rng);
            self.put(Kind::Namespace, |now| objects::namespace(name, &uid, now));
        }
    }

    /// Sets a label of a namespace, which is created when it does not exist, or takes it away.
    pub(crate) fn label_namespace(&self, name: &str, key: &str, value: Option<&str>) {
        self.ensure_namespace(name);
        if let Some(mut namespace) = self.get(Kind::Namespace, "", name) {
            match (value, &mut namespace["metadata"]["labels"]) {
                (Some(value), labels) => labels[key] = json!(value),
                (None, Value::Object(labels)) => drop(labels.remove(key)),
                (None, _) => {}
            }
            self.put(Kind::Namespace, |_| namespace);
        }
    }

    /// The account's UID; namespace and account are created when they do not exist.
    pub(crate) fn ensure_service_account(&self, namespace: &str, name: &str) -> String {
        self.ensure_namespace(namespace);
        self.uid_of(Kind::ServiceAccount, namespace, name)
            .unwrap_or_else(|| {
                let uid = new_uid(&self.rng);
                self.put(Kind::ServiceAccount, |now| {
                    objects::service_account(namespace, name, &uid, now)
                });
                uid
            })
    }

    pub(crate) fn add_pod(&self, spec: &PodSpec) -> Result<String> {
        if self.get(Kind::Pod, &spec.namespace, &spec.name).is_some() {
            bail!("pods \"{}\" already exists", spec.name);
        }
        self.ensure_service_account(&spec.namespace, &spec.service_account);
        if let Some(node) = &spec.node {
            self.ensure_node(node);
        }
        let uid = new_uid(&self.rng);
        self.put(Kind::Pod, |now| objects::pod(spec, &uid, now));
        Ok(uid)
    }

    pub(crate) fn set_phase(&self, namespace: &str, name: &str, phase: &str) -> Result<()> {
        let mut pod = self.pod(namespace, name)?;
        pod["status"]["phase"] = json!(phase);
        self.put(Kind::Pod, |_| pod);
        Ok(())
    }

    /// Sets the deletion timestamp `grace` ahead, as `kubectl delete` does, and returns the pod's UID.
    pub(crate) fn mark_terminating(&self, namespace: &str, name: &str, grace: Duration) -> Result<String> {
        let mut pod = self.pod(namespace, name)?;
        pod["metadata"]["deletionTimestamp"] = json!(rfc3339(self.now() + grace));
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace.as_secs());
        let uid = text(&pod, "/metadata/uid").to_owned();
        self.put(Kind::Pod, |_| pod);
        Ok(uid)
    }

    /// Deletes at once. With `uid` only that very pod, not a later one of the same name.
    pub(crate) fn delete(&self, kind: Kind, namespace: &str, name: &str, uid: Option<&str>) -> Result<()> {
        let mut etcd = self.etcd.lock();
        let object = etcd
            .get(kind, namespace, name)
            .with_context(|| format!("{} \"{name}\" not found", kind.plural()))?;
        if uid.is_some_and(|uid| uid != text(object, "/metadata/uid")) {
            bail!("the object of that name has another UID");
        }
        etcd.delete(kind, namespace, name);
        self.newest.send_replace(etcd.version());
        Ok(())
    }

    pub(crate) fn compact(&self) {
        let mut etcd = self.etcd.lock();
        etcd.compact();
        self.newest.send_replace(etcd.version());
    }

    pub(crate) fn expire_lists(&self) {
        let mut etcd = self.etcd.lock();
        etcd.expire_lists();
        self.newest.send_replace(etcd.version());
    }

    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Result<Value> {
        self.get(Kind::Pod, namespace, name)
            .with_context(|| format!("pods \"{name}\" not found in namespace \"{namespace}\""))
    }

    /// Claims of a token for `service_account`, bound to `pod` when given, as TokenRequest makes them.
    pub(crate) fn claims(
        &self,
        namespace: &str,
        service_account: &str,
        pod: Option<&Value>,
        audiences: &[String],
        ttl: Duration,
    ) -> Value {
        let now = unix_seconds(self.now());
        let account_uid = self.ensure_service_account(namespace, service_account);
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2);
        let mut claims = json!({
            "aud": audiences, "iss": self.config.issuer, "iat": now, "nbf": now, "exp": now + ttl,
            "jti": new_uid(&self.rng),
            "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": { "name": service_account, "uid": account_uid },
            },
        });
        if let Some(pod) = pod {
            let bound = &mut claims["kubernetes.io"];
            bound["pod"] = json!({
                "name": text(pod, "/metadata/name"), "uid": text(pod, "/metadata/uid"),
            });
            let node = text(pod, "/spec/nodeName");
            if let Some(uid) = self.uid_of(Kind::Node, "", node) {
                bound["node"] = json!({ "name": node, "uid": uid });
            }
        }
        claims
    }

    pub(crate) fn sign(&self, header: &BTreeMap<String, Value>, claims: &Value) -> Result<String> {
        self.keys.lock().sign(header, claims)
    }

    pub(crate) fn rotate_signing_key(&self, keep_old: bool) -> Result<()> {
        let key = SigningKey::es256(&self.rng)?;
        self.keys.lock().rotate(key, keep_old);
        Ok(())
    }
}
