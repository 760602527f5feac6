//! The cluster's inhabitants: one node, its agent's pod, a few demo pods with their volumes.

use std::{os::unix::fs::symlink, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use signet_runtime::files::{self, Durability};
use signet_tests::{
    http,
    kubelet::{Kubelet, KubeletConfig, Volume},
};

use crate::{
    layout::Layout,
    names::{NODE, PODS, TRUST_DOMAIN},
};

/// The agent's own pod.
const AGENT: (&str, &str) = ("signet-system", "signet-agent");
/// Life of tokens.
const TOKEN_SECONDS: u64 = 3600;
/// How often kubelet brings fresh ones.
const REFRESH: Duration = Duration::from_secs(20 * 60);
/// How long the agent may take to offer its CSI driver.
const DRIVER_PATIENCE: Duration = Duration::from_secs(30);

/// Makes node, service accounts and pods in the fake API.
pub(crate) async fn create(kube: &str) -> anyhow::Result<()> {
    post(kube, &format!("/fake/nodes/{NODE}"), &json!({})).await?;
    let agent = (AGENT.0, AGENT.1, "signet-agent");
    for (namespace, name, account) in PODS.into_iter().chain([agent]) {
        post(
            kube,
            &format!("/fake/serviceaccounts/{namespace}/{account}"),
            &json!({}),
        )
        .await?;
        let pod = json!({ "namespace": namespace, "name": name, "serviceAccount": account, "node": NODE });
        post(kube, "/fake/pods", &pod).await?;
    }
    Ok(())
}

/// Writes the agent's projected token, as kubelet does: by rename.
pub(crate) async fn write_agent_token(kube: &str, layout: &Layout) -> anyhow::Result<()> {
    let order = json!({
        "namespace": AGENT.0,
        "pod": AGENT.1,
        "audience": format!("signet:{TRUST_DOMAIN}:node"),
        "ttlSeconds": TOKEN_SECONDS,
    });
    let answer = post(kube, "/fake/tokens", &order).await?;
    let token = answer["token"]
        .as_str()
        .context("the fake Kubernetes API gave no token")?;
    files::replace(
        &layout.agent("token"),
        token.as_bytes(),
        0o600,
        Durability::Volatile,
    )?;
    Ok(())
}

/// kubelet's part: volumes for the demo pods, fresh tokens for them and for the agent as time goes by.
pub(crate) struct Pods {
    kubelet: Kubelet,
    volumes: Vec<Volume>,
    kube: String,
    layout: Layout,
}

impl Pods {
    /// Waits for the driver and publishes a volume for every pod.
    pub(crate) async fn publish(kube: &str, layout: &Layout) -> anyhow::Result<Self> {
        let audience = format!("signet:{TRUST_DOMAIN}:pod");
        let config = KubeletConfig::new(kube, &layout.kubelet(), &audience);
        let kubelet = Kubelet::register(config, DRIVER_PATIENCE).await?;
        let mut volumes = Vec::new();
        for (namespace, name, _) in PODS {
            let volume = kubelet.publish(namespace, name).await?;
            symlink(&volume.target, layout.pod(namespace, name))?;
            volumes.push(volume);
        }
        Ok(Self {
            kubelet,
            volumes,
            kube: kube.to_owned(),
            layout: layout.clone(),
        })
    }

    /// Brings fresh tokens for ever.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(REFRESH).await;
            if let Err(error) = self.refresh().await {
                eprintln!("fresh tokens could not be brought, the old ones serve on: {error:#}");
            }
        }
    }

    async fn refresh(&self) -> anyhow::Result<()> {
        write_agent_token(&self.kube, &self.layout).await?;
        for volume in &self.volumes {
            self.kubelet.republish(volume).await?;
        }
        Ok(())
    }
}

async fn post(kube: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let answer = http::post(&format!("{kube}{path}"), body).await?;
    ensure!(
        answer.status.is_success(),
        "the fake Kubernetes API answered {} to {path}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    answer.json()
}
