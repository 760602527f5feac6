//! Clusters, as `status` shows them.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{when, when_text};

/// In one line: what is known of it, or what stands in its way.
pub(super) fn cluster_state(cluster: &wire::ClusterStatus) -> String {
    let state = match cluster.problem.as_str() {
        "" => format!("{} pods", cluster.pods),
        problem => problem.to_owned(),
    };
    match cluster.unreachable_since_unix_ms {
        0 => state,
        since => format!("unreachable since {}; {state}", when_text(since)),
    }
}

pub(super) fn cluster_json(cluster: &wire::ClusterStatus) -> Value {
    json!({
        "name": cluster.name,
        "uid": cluster.uid,
        "pods_synced": cluster.pods_synced,
        "pods": cluster.pods,
        "unreachable_since": when(cluster.unreachable_since_unix_ms),
        "problem": if cluster.problem.is_empty() { Value::Null } else { json!(cluster.problem) },
    })
}
