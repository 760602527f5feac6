//! What a cluster is made of: nodes, service accounts, pods and their tokens, as calls on the handle.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    FakeKube,
    objects::{Kind, PodSpec, text},
};

impl FakeKube {
    /// The node's UID; creates the node when it does not exist.
    pub fn add_node(&self, name: &str) -> String {
        self.cluster.ensure_node(name)
    }

    /// Deletes a node. Pods on it stay.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn delete_node(&self, name: &str) -> Result<()> {
        self.cluster.delete(Kind::Node, "", name, None)
    }

    /// Sets a label of a namespace, which is created when it does not exist; without a value takes it away.
    pub fn label_namespace(&self, name: &str, key: &str, value: Option<&str>) {
        self.cluster.label_namespace(name, key, value);
    }

    /// The account's UID; creates the account, and its namespace, when they do not exist.
    pub fn add_service_account(&self, namespace: &str, name: &str) -> String {
        self.cluster.ensure_service_account(namespace, name)
    }

    /// Deletes a service account: its tokens are worth nothing from now on.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn delete_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        let kind = Kind::ServiceAccount;
        self.cluster.delete(kind, namespace, name, None)
    }

    /// Creates a pod, with its node and service account where they are missing, and returns its UID.
    ///
    /// # Errors
    /// When a pod of that name exists.
    pub fn add_pod(&self, spec: &PodSpec) -> Result<String> {
        self.cluster.add_pod(spec)
    }

    /// The pod as the API shows it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Value> {
        self.cluster.pod(namespace, name)
    }

    /// Sets `status.phase`.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn set_phase(&self, namespace: &str, name: &str, phase: &str) -> Result<()> {
        self.cluster.set_phase(namespace, name, phase)
    }

    /// Marks the pod as terminating; it is deleted when `grace` is over, unless it was before.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn terminate_pod(&self, namespace: &str, name: &str, grace: Duration) -> Result<()> {
        let uid = self.cluster.mark_terminating(namespace, name, grace)?;
        let cluster = Arc::downgrade(&self.cluster);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            if let Some(cluster) = cluster.upgrade() {
                // Somebody may have deleted it meanwhile, and created another one under its name.
                let _ = cluster.delete(Kind::Pod, &namespace, &name, Some(&uid));
            }
        });
        Ok(())
    }

    /// Deletes a pod at once. Its tokens are accepted until their cached reviews expire.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.cluster.delete(Kind::Pod, namespace, name, None)
    }

    /// A token bound to the pod, as kubelet gets it.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn token(&self, namespace: &str, pod: &str, audience: &str, ttl: Duration) -> Result<String> {
        self.sign(&BTreeMap::new(), &self.claims(namespace, pod, audience, ttl)?)
    }

    /// A token of the service account that is bound to no pod.
    ///
    /// # Errors
    /// When signing fails.
    pub fn token_unbound(
        &self,
        namespace: &str,
        service_account: &str,
        audience: &str,
        ttl: Duration,
    ) -> Result<String> {
        let audiences = [audience.to_owned()];
        let claims = self
            .cluster
            .claims(namespace, service_account, None, &audiences, ttl);
        self.sign(&BTreeMap::new(), &claims)
    }

    /// A token as secrets once held them: no audience, no expiry, no pod.
    ///
    /// # Errors
    /// When signing fails.
    pub fn legacy_token(&self, namespace: &str, service_account: &str) -> Result<String> {
        let uid = self.add_service_account(namespace, service_account);
        let claims = json!({
            "iss": self.issuer(),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": format!("{service_account}-token"),
            "kubernetes.io/serviceaccount/service-account.name": service_account,
            "kubernetes.io/serviceaccount/service-account.uid": uid,
            "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
        });
        self.sign(&BTreeMap::new(), &claims)
    }

    /// The claims of an honest pod-bound token, to be changed and signed by [`Self::sign`].
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn claims(&self, namespace: &str, pod: &str, audience: &str, ttl: Duration) -> Result<Value> {
        let pod = self.cluster.pod(namespace, pod)?;
        let account = text(&pod, "/spec/serviceAccountName");
        let audiences = [audience.to_owned()];
        Ok(self
            .cluster
            .claims(namespace, account, Some(&pod), &audiences, ttl))
    }

    /// Signs any claims with the current key. Members of `header` replace the honest ones; `null` removes one.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, header: &BTreeMap<String, Value>, claims: &Value) -> Result<String> {
        self.cluster.sign(header, claims)
    }

    /// What `/openid/v1/jwks` answers.
    pub fn jwks(&self) -> Value {
        self.cluster.keys.lock().jwks()
    }

    /// Signs with a fresh P-256 key from now on; the old one stays in the key set only with `keep_old`.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn rotate_signing_key(&self, keep_old: bool) -> Result<()> {
        self.cluster.rotate_signing_key(keep_old)
    }
}
