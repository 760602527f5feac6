//! The real server, which knows the cluster only through the documented permissions.

use std::ops::{Deref, DerefMut};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use signet_tests::{
    domain::{self, Change},
    part::Launch,
    process::free_port,
};
use tempfile::TempDir;

use crate::api::{Cluster, apply, wait_for};

/// A server that belongs to one test.
pub(crate) struct Server {
    server: domain::Server,
    _folder: TempDir,
}

impl Server {
    /// Applies the documented RBAC and starts a server with a token of its service account, and nothing more.
    ///
    /// `relay` stands in for the API server's URL; `svid_ttl` is the life of the workloads' certificates.
    pub(crate) async fn start(cluster: &Cluster, relay: Option<&str>, svid_ttl: &str) -> Result<Self> {
        Self::started(cluster, relay, &[("/svid/ttl".to_owned(), json!(svid_ttl))]).await
    }

    /// As [`start`](Self::start), with the agents' door at an address that pods reach.
    pub(crate) async fn start_at(cluster: &Cluster, address: &str, svid_ttl: &str) -> Result<Self> {
        let agents = format!("{address}:{}", free_port()?);
        let changes = [
            ("/svid/ttl".to_owned(), json!(svid_ttl)),
            ("/listen/agents".to_owned(), json!(agents)),
        ];
        Self::started(cluster, None, &changes).await
    }

    /// As [`start`](Self::start), with other keys of the configuration.
    pub(crate) async fn start_with(cluster: &Cluster, changes: &[Change]) -> Result<Self> {
        Self::started(cluster, None, changes).await
    }

    async fn started(cluster: &Cluster, relay: Option<&str>, changes: &[Change]) -> Result<Self> {
        apply(cluster, "rbac.yaml", |_| {}).await?;
        let token = cluster
            .token("signet-server", &[], 3600, None)
            .await
            .context("a token for the server")?;
        let folder = signet_testkit::folder();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.kubeconfig(&token, relay).to_string())?;
        let mut server = domain::Server::prepare(folder.path(), &kubeconfig, &Launch::Binaries)?;
        let agents = format!("{}:signet-agent", cluster.namespace);
        server.change(changes)?;
        server.change(&[
            ("/attestation/clusters/0/uid".to_owned(), json!(cluster.uid)),
            (
                "/attestation/clusters/0/agent_service_accounts".to_owned(),
                json!([agents]),
            ),
        ])?;
        server.start().await?;
        Ok(Self {
            server,
            _folder: folder,
        })
    }

    /// What the log says so far.
    pub(crate) fn log(&self) -> String {
        format!("the server's log:\n{}", self.said())
    }

    /// Waits until the audit log has a refusal after its first `after` lines that gives `reason`.
    pub(crate) async fn audited_refusal(&self, after: usize, operation: &str, reason: &str) -> Result<Value> {
        let what = format!("an audit line that {operation} was refused: {reason}");
        wait_for(&what, async || {
            let lines = self.audit()?;
            let fits = |line: &&Value| {
                line["event"] == "refused"
                    && line["operation"] == operation
                    && line["reason"].as_str().is_some_and(|text| text.contains(reason))
            };
            Ok(lines.iter().skip(after).find(fits).cloned())
        })
        .await
    }
}

impl Deref for Server {
    type Target = domain::Server;

    fn deref(&self) -> &domain::Server {
        &self.server
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut domain::Server {
        &mut self.server
    }
}
