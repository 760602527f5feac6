//! That the documented permissions suffice is shown by every other test; here, that they are narrow.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    checks::{Check, checks},
    world::TwoNodes,
};

pub(crate) const CHECKS: &[Check<TwoNodes>] = checks![
    "the server's account may do what is documented" => the_server_may,
    "the server's account may do no more" => the_server_may_not,
    "the agent's account may do nothing" => the_agent_may_nothing,
];

/// Verb, group, resource, and a name if only one object is meant.
pub(crate) type Access<'a> = (&'a str, &'a str, &'a str, &'a str);

const GRANTED: &[Access<'_>] = &[
    ("create", "authentication.k8s.io", "tokenreviews", ""),
    ("get", "", "pods", ""),
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("list", "", "serviceaccounts", ""),
    ("watch", "", "serviceaccounts", ""),
    ("get", "", "nodes", ""),
    ("get", "", "namespaces", "kube-system"),
];

const NEVER: &[Access<'_>] = &[
    ("get", "", "secrets", ""),
    ("list", "", "secrets", ""),
    ("create", "", "serviceaccounts/token", ""),
    ("create", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("create", "", "pods/exec", ""),
    ("get", "", "nodes/proxy", ""),
    ("list", "", "nodes", ""),
    ("get", "", "namespaces", "default"),
    ("list", "", "namespaces", ""),
    ("get", "", "configmaps", ""),
    ("impersonate", "", "users", ""),
    ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
    ("update", "rbac.authorization.k8s.io", "clusterroles", ""),
];

async fn the_server_may(world: &mut TwoNodes) -> Result<()> {
    for access in GRANTED {
        ensure!(
            allowed(world, "signet-server", access).await?,
            "{access:?} is not granted"
        );
    }
    Ok(())
}

async fn the_server_may_not(world: &mut TwoNodes) -> Result<()> {
    for access in NEVER {
        ensure!(
            !allowed(world, "signet-server", access).await?,
            "{access:?} is granted"
        );
    }
    Ok(())
}

async fn the_agent_may_nothing(world: &mut TwoNodes) -> Result<()> {
    for access in GRANTED.iter().chain(NEVER) {
        ensure!(
            !allowed(world, "signet-agent", access).await?,
            "{access:?} is granted"
        );
    }
    Ok(())
}

/// Whether an account of the test's namespace may do this.
pub(crate) async fn allowed(world: &TwoNodes, account: &str, access: &Access<'_>) -> Result<bool> {
    let (verb, group, resource, name) = access;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let namespace = &world.cluster.namespace;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{namespace}:{account}"),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = world.cluster.create(path, &review).await?;
    Ok(answer.pointer("/status/allowed") == Some(&Value::Bool(true)))
}
