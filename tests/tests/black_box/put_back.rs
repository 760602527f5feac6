//! An older store in place of the present one: a list that an agent holds proves it, and what an agent only says does not.

use std::{fs, path::Path};

use bytes::Bytes;
use serde_json::{Value, json};
use signet_proto::agent::{CrlReport, TrustReport, TrustState};
use signet_testkit::provoked;
use signet_tests::{domain::Domain, http, wait::eventually};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::support::{audited, pod_with_volume};

/// Copies the files of a folder in place of another's.
pub(super) fn copy_folder(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Status of `/ready`, and the names of what stands in the way.
async fn ready(domain: &Domain) -> Option<(u16, Vec<String>)> {
    let url = format!("{}/ready", domain.server.telemetry_url());
    let answer = http::get(&url).await.ok()?;
    let body = answer.json().ok()?;
    let reasons = body["not_ready"].as_array()?.iter();
    let names = reasons.filter_map(|one| one["reason"].as_str().map(str::to_owned));
    Some((answer.status.as_u16(), names.collect()))
}

async fn status(domain: &Domain) -> Value {
    domain.server.admin(&["status"]).await.unwrap()
}

/// Waits until an agent has handed over its list, or the server remembers that one has.
async fn is_unready(domain: &Domain) {
    eventually("the store to be known as put back", async || {
        (ready(domain).await? == (503, vec!["store_put_back".to_owned()])).then_some(())
    })
    .await;
}

async fn is_audited_once(domain: &Domain, number: u64) {
    let lines = audited(domain, &["store_put_back", &format!("\"number\":{number}")]).await;
    assert_eq!(provoked("store_put_back", &lines).len(), 1, "{lines:?}");
}

/// Covers INV-3, INV-15.
#[tokio::test]
async fn a_store_that_was_put_back_is_found_out_by_a_list_that_an_agent_holds() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let back = agent.workload(&pod_with_volume(&domain, &agent, "back").await);
    let (victim, _) = (front.identity().await, back.identity().await);
    let serial = victim.svid.serial().to_string();
    domain.server.stop().await.unwrap();
    let backup = domain.path().join("backup");
    copy_folder(&domain.server.data_dir(), &backup);
    domain.server.start().await.unwrap();
    let mut stream = back.watch().await.unwrap();
    let revoke = ["revoke", "--serial", &serial, "--reason", "superseded"];
    domain.server.admin(&revoke).await.unwrap();
    stream
        .until("the revocation", |peer| peer.sees_revoked(&victim.svid))
        .await;
    domain.server.stop().await.unwrap();
    copy_folder(&backup, &domain.server.data_dir());

    domain.server.spawn().unwrap();
    is_unready(&domain).await;
    let probe = domain
        .server
        .command(&["healthcheck", "--serving"])
        .await
        .unwrap();
    assert!(
        probe.stderr.contains("store_put_back: authority"),
        "{}",
        probe.stderr
    );
    let shown = status(&domain).await;
    let proof = &shown["list_proofs"][0];
    assert_eq!(proof["missing_serials"], json!([serial]), "{shown}");
    let number = |key: &str| proof[key].as_u64().unwrap();
    assert!(number("number") > number("own_number"), "{proof}");
    is_audited_once(&domain, number("number")).await;
    let text = domain.server.command(&["status"]).await.unwrap().stdout;
    let authority = proof["authority_id"].as_str().unwrap();
    let order = format!("revoke --authority {authority} --serial {serial}");
    assert!(text.contains(&order), "{text}");

    // It is known without the agent, too, until the admin has entered what the list names.
    domain.server.stop().await.unwrap();
    domain.server.spawn().unwrap();
    is_unready(&domain).await;
    let order: Vec<&str> = order.split(' ').collect();
    domain.server.admin(&order).await.unwrap();
    eventually("the server to be ready", async || {
        (ready(&domain).await? == (200, vec![])).then_some(())
    })
    .await;
    let shown = status(&domain).await;
    assert_eq!(shown["list_proofs"], json!([]));
    let mut authorities = shown["authorities"].as_array().unwrap().iter();
    let own = authorities.find(|one| one["authority_id"] == authority).unwrap();
    assert!(
        own["crl_number"].as_u64() > Some(number("number")),
        "agents believe the next list: {own}"
    );
    assert!(back.identity().await.sees_revoked(&victim.svid));
}

/// What an agent says that holds this list and no other.
fn claiming(state: &TrustState, number: u64, held: &[&'static [u8]]) -> TrustReport {
    let der = &state.x509_authorities[0].certificate;
    let authority = signet_certs::authority::AuthorityCertificate::from_der(der).unwrap();
    let claim = CrlReport {
        authority_id: Bytes::copy_from_slice(authority.id().as_bytes()),
        number,
        sha256: Bytes::from_static(&[0; 32]),
    };
    TrustReport {
        crls: vec![claim],
        held_crls: held.iter().map(|der| Bytes::from_static(der)).collect(),
        ..TrustReport::default()
    }
}

#[tokio::test]
async fn an_agent_that_only_says_so_raises_an_alarm_against_itself() {
    const NUMBER: u64 = 1_000_000;
    let domain = Domain::start().await.unwrap();
    let (agent, _) = domain.raw_agent("node-a").await.unwrap();
    let (reports, outgoing) = mpsc::channel(1);
    let stream = agent.stub().sync_trust(ReceiverStream::new(outgoing)).await;
    let mut states = stream.unwrap().into_inner();
    let state = states.message().await.unwrap().unwrap();
    assert!(state.wanted_crls.is_empty(), "nothing was claimed yet");
    // What was not asked for is not looked at.
    reports
        .send(claiming(&state, NUMBER, &[b"unasked"]))
        .await
        .unwrap();
    let asked = states.message().await.unwrap().unwrap();
    let id = claiming(&state, NUMBER, &[]).crls[0].authority_id.clone();
    assert_eq!(asked.wanted_crls, [id]);
    reports
        .send(claiming(&state, NUMBER, &[b"no list"]))
        .await
        .unwrap();
    let lines = audited(&domain, &["list_unproven", "\"number\":1000000"]).await;
    assert_eq!(provoked("list_unproven", &lines).len(), 1, "{lines:?}");
    let problem = eventually("the agent list to say so", async || {
        let agents = domain.server.admin(&["agent", "list"]).await.ok()?;
        let problem = agents["agents"][0]["problem"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (!problem.is_empty()).then_some(problem)
    })
    .await;
    assert!(problem.contains("reports list 1000000 of authority"), "{problem}");
    let metrics = http::metrics(&domain.server.telemetry_url()).await.unwrap();
    assert!(
        metrics.contains("signet_server_lists_unproven_total 1"),
        "{metrics}"
    );
    assert_eq!(ready(&domain).await, Some((200, vec![])));
    assert_eq!(status(&domain).await["list_proofs"], json!([]));
}
