//! Rules on the labels of namespaces, with the permission that they need and without it.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use signet_proto::agent::{issue_result::Outcome, refusal::Reason};
use signet_tests::{
    agent_client::new_csr,
    domain::{Change, TRUST_DOMAIN},
};

use crate::{
    api::{Cluster, apply, wait_for},
    checks::{Check, checks},
    permissions::allowed,
    world::TwoNodes,
};

pub(crate) const CHECKS: &[Check<TwoNodes>] = checks![
    "without the permission nobody is refused or served, and status says what to grant" => not_permitted,
    "with the permission a pod of a namespace without the label gets nothing, whatever its own labels" => unlabelled,
    "a label of the namespace gives its pods the identity" => labelled,
    "without the label they get it no more" => unlabelled_again,
    "the permission is to read namespaces and nothing more" => narrow,
];

const LABEL: &str = "signet.dev/test";

/// A server whose only rule goes by a label of namespaces.
pub(crate) async fn set_up(cluster: Arc<Cluster>) -> Result<TwoNodes> {
    let rule = json!({
        "name": "labelled", "match": {"namespace_labels": {LABEL: "payments"}}, "spiffe_id": "/labelled/{service_account}",
    });
    let changes: [Change; 2] = [
        ("/rules".to_owned(), json!([rule])),
        ("/builtin_rule".to_owned(), json!(false)),
    ];
    TwoNodes::with(cluster, &changes).await
}

async fn ask(world: &mut TwoNodes) -> Result<Outcome> {
    let token = world.token_of(&world.web).await?;
    world.agent.issue_one(new_csr()?, &token).await
}

/// Waits until the answer is this refusal.
async fn refused(world: &mut TwoNodes) -> Result<()> {
    wait_for("a refusal because no rule matches", async || {
        match ask(world).await? {
            Outcome::Refusal(refusal) if refusal.reason() == Reason::NoMatch => Ok(Some(())),
            other => bail!("{other:?}"),
        }
    })
    .await
}

async fn label(world: &TwoNodes, path: &str, value: Value) -> Result<()> {
    let labels = json!({"metadata": {"labels": {LABEL: value}}});
    world.cluster.patch(path, &labels).await
}

fn own_namespace(world: &TwoNodes) -> String {
    format!("/api/v1/namespaces/{}", world.cluster.namespace)
}

async fn not_permitted(world: &mut TwoNodes) -> Result<()> {
    match ask(world).await? {
        Outcome::Unavailable(put_off) => ensure!(
            put_off.message.contains("get, list and watch namespaces"),
            "put off with: {}",
            put_off.message
        ),
        other => bail!("{other:?}"),
    }
    wait_for("status to say what to grant", async || {
        let status = world.server.admin(&["status"]).await?.to_string();
        Ok(status.contains("allowed to get, list and watch").then_some(()))
    })
    .await
}

async fn unlabelled(world: &mut TwoNodes) -> Result<()> {
    apply(&world.cluster, "rbac-namespaces.yaml", |_| {}).await?;
    let pod = format!("{}/{}", world.cluster.path("pods"), world.web.name);
    label(world, &pod, json!("payments")).await?;
    refused(world).await
}

async fn labelled(world: &mut TwoNodes) -> Result<()> {
    label(world, &own_namespace(world), json!("payments")).await?;
    let issued = wait_for("the identity", async || match ask(world).await? {
        Outcome::Issued(issued) => Ok(Some(issued)),
        other => bail!("{other:?}"),
    });
    let spiffe_id = issued.await?.spiffe_id;
    ensure!(
        spiffe_id == format!("spiffe://{TRUST_DOMAIN}/labelled/web"),
        "issued {spiffe_id}"
    );
    wait_for("status to have no problem", async || {
        let status = world.server.admin(&["status"]).await?.to_string();
        Ok((!status.contains("watch of namespaces")).then_some(()))
    })
    .await
}

async fn unlabelled_again(world: &mut TwoNodes) -> Result<()> {
    label(world, &own_namespace(world), Value::Null).await?;
    refused(world).await
}

async fn narrow(world: &mut TwoNodes) -> Result<()> {
    for (verb, granted) in [
        ("get", true),
        ("list", true),
        ("watch", true),
        ("create", false),
        ("update", false),
        ("patch", false),
        ("delete", false),
    ] {
        let may = allowed(world, "signet-server", &(verb, "", "namespaces", "")).await?;
        ensure!(may == granted, "{verb} namespaces: {may}");
        ensure!(
            !allowed(world, "signet-agent", &(verb, "", "namespaces", "")).await?,
            "the agent may {verb} namespaces"
        );
    }
    Ok(())
}
