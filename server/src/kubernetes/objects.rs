//! Single objects, read live: namespaces and nodes by name. The calls were admitted, or are the server's own.

use serde::Deserialize;

use super::api::{CallError, KubeApi, is_path_segment};

const OBJECT_BYTES: usize = 4 * 1024 * 1024;

/// What is read of a namespace or a node.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

/// The UID of the namespace kube-system, which names the cluster.
pub(crate) async fn cluster_uid(api: &KubeApi) -> Result<String, CallError> {
    let read = api.get::<Object>("/api/v1/namespaces/kube-system", OBJECT_BYTES);
    Ok(read.await?.metadata.uid)
}

/// The UID that the node of this name has now, if there is one.
pub(crate) async fn node_uid(api: &KubeApi, name: &str) -> Result<Option<String>, CallError> {
    if !is_path_segment(name) {
        return Ok(None);
    }
    match api
        .get::<Object>(&format!("/api/v1/nodes/{name}"), OBJECT_BYTES)
        .await
    {
        Ok(node) => Ok(Some(node.metadata.uid)),
        Err(CallError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
