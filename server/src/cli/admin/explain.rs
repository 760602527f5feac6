//! Why a pod gets what it gets, and who could have an identity.

use anyhow::Context as _;
use signet_proto::admin as wire;
use signet_runtime::cli::Answer;

use super::{AdminClient, render, said};

impl AdminClient {
    /// Explains a pod, or a SPIFFE ID.
    ///
    /// # Errors
    /// What the server answered, or that neither is named.
    pub async fn explain(
        &mut self,
        pod: Option<String>,
        cluster: Option<String>,
        spiffe_id: Option<String>,
    ) -> anyhow::Result<Answer> {
        if let Some(spiffe_id) = spiffe_id {
            let request = wire::ExplainIdRequest { spiffe_id };
            let explained = self.inner.explain_id(request).await.map_err(said)?;
            return Ok(render::explained_id(&explained.into_inner()));
        }
        let (namespace, name) = pod_named(&pod.unwrap_or_default())?;
        let request = wire::ExplainPodRequest {
            namespace,
            name,
            cluster: cluster.unwrap_or_default(),
        };
        let explained = self.inner.explain_pod(request).await.map_err(said)?;
        Ok(render::explained_pod(&explained.into_inner()))
    }
}

/// Namespace and name of a pod.
pub(super) fn pod_named(pod: &str) -> anyhow::Result<(String, String)> {
    let parts = pod.split_once('/').filter(|(_, name)| !name.contains('/'));
    let (namespace, name) = parts.with_context(|| format!("`{pod}` names no pod; write NAMESPACE/NAME"))?;
    Ok((namespace.to_owned(), name.to_owned()))
}
