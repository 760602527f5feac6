//! A control authority is stolen: the anchors file says so, and agents hear that from nobody else.

use std::{fs, path::Path};

use serde_json::{Value, json};
use signet_certs::{
    anchors_file::AnchorsFile,
    authority::{AuthorityCertificate, AuthorityId},
};
use signet_tests::{
    domain::{Agent, Domain},
    wait::eventually,
};

use super::support::{identity_of, pod_with_volume};

/// What the server's own file lists.
fn listed(domain: &Domain) -> Vec<AuthorityCertificate> {
    let file = fs::read(domain.server.anchors()).unwrap();
    AnchorsFile::parse(&file).unwrap().certificates().to_vec()
}

/// As a pipeline replaces it.
fn write(file: &Path, certificates: &[AuthorityCertificate], distrusted: &[AuthorityId]) {
    let text = AnchorsFile::new(certificates.iter().cloned(), distrusted.iter().copied()).render();
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, file).unwrap();
}

async fn status(agent: &Agent) -> Value {
    let status = agent.command(&["status", "--output", "json"]).await.unwrap();
    serde_json::from_str(&status.stdout).unwrap()
}

async fn control(domain: &Domain, state: &str) -> AuthorityId {
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    let all = shown["authorities"].as_array().unwrap().clone();
    let mut found = all
        .into_iter()
        .filter(|one| one["kind"] == "control" && one["state"] == state);
    let id = found.next().unwrap()["authority_id"].clone();
    id.as_str().unwrap().parse().unwrap()
}

fn attestations(domain: &Domain) -> usize {
    let audit = domain.server.audit().unwrap();
    audit
        .iter()
        .filter(|line| line["event"] == "node_attested")
        .count()
}

/// The agent leaves a server that it was connected to, serves on without one, and comes back by itself to a server of another authority,
/// with a certificate of that one.
#[tokio::test]
async fn an_agent_leaves_a_distrusted_server_and_comes_back_to_another() {
    let domain = Domain::start().await.unwrap();
    let file = domain.path().join("anchors.pem");
    fs::copy(domain.server.anchors(), &file).unwrap();
    let mut agent = domain.prepare_agent("node-a").unwrap();
    agent
        .change(&[("/trust/anchors_file".to_owned(), json!(file))])
        .unwrap();
    agent.start().await.unwrap();
    domain.register(&mut agent).await.unwrap();
    let socket = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let front = socket.identity().await;
    let stolen = control(&domain, "active").await;

    // Nobody else to turn to: nothing is said to the server any more, and workloads are served.
    write(&file, &[], &[stolen]);
    let away = eventually("the server is left", async || {
        let status = status(&agent).await;
        (status["server_connected"] == false).then_some(status)
    })
    .await;
    let by_file = json!([{ "authority_id": stolen.to_string(), "by": "anchors_file" }]);
    assert_eq!(away["distrusted"], by_file);
    assert!(
        agent.said().contains("a connection to a server is cut"),
        "{}",
        agent.said()
    );
    assert_eq!(socket.identity().await.svid.serial(), front.svid.serial());
    let attested = attestations(&domain);

    // The server has another authority, and the file names it.
    let rotated = ["ca", "rotate", "--kind", "control", "--force"];
    domain.server.admin(&rotated).await.unwrap();
    let next = control(&domain, "active").await;
    let all = listed(&domain);
    let next: Vec<_> = all.into_iter().filter(|one| one.id() == next).collect();
    write(&file, &next, &[stolen]);
    let back = eventually("another server is found", async || {
        let status = status(&agent).await;
        (status["server_connected"] == true).then_some(status)
    })
    .await;
    assert_eq!(back["distrusted"], by_file, "whatever the server pushes");
    // Within ten seconds, each agent at another moment.
    let anew = async || (attestations(&domain) > attested).then_some(());
    eventually("a certificate of that authority", anew).await;
    let back = identity_of(&domain, &agent, "back").await;
    back.judge(&front.svid).unwrap();

    // A mistake in the file, or none, takes nothing back.
    fs::write(&file, "distrusted: nobody\n").unwrap();
    eventually("the problem is told", async || {
        let status = status(&agent).await;
        let problem = status["anchors_problem"].as_str().unwrap().to_owned();
        (problem.contains("line 1") && status["distrusted"] == by_file).then_some(())
    })
    .await;
}
