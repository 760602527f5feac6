//! A key of an authority is stolen, on the running programs: another takes over at once, those that are connected notice nothing, and what
//! the thief has is worth nothing a moment later.

use std::time::Duration;

use serde_json::{Value, json};
use signet_certs::anchors_file::AnchorsFile;
use signet_tests::{
    domain::{Domain, Plan},
    process::{Finished, binary, run},
    wait::{eventually, within},
};

use tokio::task::JoinHandle;

use super::{
    authority::{believe, gone_everywhere, identities, in_state, pods, refused, states},
    support::audited,
};

/// Longer than agents need to replace what is marked.
const GRACE: &str = "15s";

/// The command in a process of its own, which goes on when the server does not.
fn begun(domain: &Domain, args: &[&str]) -> JoinHandle<anyhow::Result<Finished>> {
    let socket = domain.server.admin_socket();
    let args: Vec<String> = args
        .iter()
        .chain(&["--output", "json"])
        .map(ToString::to_string)
        .collect();
    tokio::spawn(async move {
        let env = [("SIGNET_ADMIN_SOCKET", socket.to_str().unwrap())];
        run(&binary("signet-server"), &args, &env).await
    })
}

/// Covers INV-2, INV-3, INV-8.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for a grace: `.ci/step crash` runs it"]
async fn a_workload_authority_is_replaced_before_anybody_is_refused_also_over_kills_of_the_server() {
    let plan = Plan::default().server("/authority/emergency_grace", json!(GRACE));
    let mut domain = plan.start().await.unwrap();
    let agents = [
        domain.agent("node-a").await.unwrap(),
        domain.agent("node-b").await.unwrap(),
    ];
    let mut clients = pods(&domain, &agents[0], ["front", "back"]).await;
    clients.extend(pods(&domain, &agents[1], ["cart"]).await);
    let stolen = identities(&clients).await[0].svid.authority_id().to_string();
    domain.server.admin(&["ca", "prepare"]).await.unwrap();
    let beside = in_state(&domain, "x509", "prepared").await.unwrap();

    let command = begun(&domain, &["ca", "emergency"]);
    let new = eventually("another one that signs", async || {
        believe(&identities(&clients).await);
        let active = in_state(&domain, "x509", "active").await?;
        (active != stolen).then_some(active)
    });
    let new = new.await;
    assert_ne!(new, beside, "its key was kept in the same place");
    domain.server.kill().await;
    believe(&identities(&clients).await);
    domain.server.start().await.unwrap();
    while !command.is_finished() {
        believe(&identities(&clients).await);
    }
    let finished = command.await.unwrap().unwrap();
    assert!(finished.status.success(), "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        [
            &answer["step"],
            &answer["authority_id"],
            &answer["old_authority_id"]
        ],
        [&json!("replaced"), &json!(new), &json!(stolen)]
    );
    gone_everywhere(&domain, &agents[0], &clients, &stolen).await;
    assert_eq!(
        states(&domain, "x509").await,
        [("active".to_owned(), new.clone())]
    );
    let now = identities(&clients).await;
    believe(&now);
    assert!(now.iter().all(|one| one.svid.authority_id().to_string() == new));
    for id in [&stolen, &beside] {
        audited(&domain, &["authority_distrusted", id]).await;
        audited(&domain, &["authority_revoked", id]).await;
        refused(&domain, &["ca", "taint", id], "has left every bundle: emergency").await;
    }
}

/// Every agent attests anew, and one that does not is named with what mends it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for a grace: `.ci/step crash` runs it"]
async fn a_control_authority_is_distrusted_in_the_file_first_and_every_agent_attests_anew() {
    let plan = Plan::default().server("/authority/emergency_grace", json!("5s"));
    let mut domain = plan.start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let clients = pods(&domain, &agent, ["front", "back"]).await;
    believe(&identities(&clients).await);
    let (_silent, _) = domain.raw_agent("node-b").await.unwrap();
    let stolen = in_state(&domain, "control", "active").await.unwrap();

    let order = ["ca", "emergency", "--kind", "control", "--no-wait"];
    let recorded = domain.server.admin(&order).await.unwrap();
    let operation = recorded["operation_id"].as_str().unwrap().to_owned();
    let file = domain.server.anchors();
    let names = eventually("the file to name the stolen one", async || {
        let file = AnchorsFile::parse(&std::fs::read(&file).ok()?).unwrap();
        let names = file.distrusted().iter().any(|id| id.to_string() == stolen);
        names.then_some(file)
    });
    let names = names.await;
    assert_eq!(names.certificates().len(), 1);
    let new = names.certificates()[0].id().to_string();
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let command = begun(&domain, &["ca", "wait", &operation]);
    let waits = within(Duration::from_secs(40), async || {
        let shown = domain.server.admin(&["ca", "show"]).await.ok()?;
        let operation = &shown["operations"][0];
        let waits = operation["step"] == "attesting" && operation["awaited_total"] == 1;
        waits.then(|| operation.clone())
    });
    let waits = waits.await.expect("all but one have attested anew");
    assert_eq!(waits["awaited"][0]["node_name"], "node-b", "{waits}");
    assert_eq!(states(&domain, "control").await, [("active".to_owned(), new)]);
    believe(&identities(&clients).await);
    // The one that is silent is an agent of a node that is no more.
    domain.server.admin(&["agent", "ban", "node-b"]).await.unwrap();
    let finished = command.await.unwrap().unwrap();
    assert!(finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains("node-b"), "{}", finished.stderr);
    assert!(!agent.said().contains("panicked"), "{}", agent.said());
}
