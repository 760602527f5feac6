//! The authority is replaced and nothing breaks.

use std::time::Duration;

use serde_json::{Value, json};
use signet_certs::{authority::AuthorityCertificate, bundle::TrustBundle, id::TrustDomain};
use signet_proto::agent::{TrustReport, TrustState};
use signet_tests::{
    agent_client::RawAgent,
    domain::{Domain, Plan},
    http,
    wait::eventually,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::support::{identity_of, pod_with_volume};

fn authorities(shown: &Value, kind: &str, state: &str) -> Vec<String> {
    let all = shown["authorities"].as_array().unwrap();
    all.iter()
        .filter(|authority| authority["kind"] == kind && authority["state"] == state)
        .map(|authority| authority["authority_id"].as_str().unwrap().to_owned())
        .collect()
}

/// Covers INV-2, INV-3, INV-8.
#[tokio::test]
async fn peers_believe_each_other_all_through_a_rotation() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let old = front.identity().await;
    let mut updates = front.watch().await.unwrap();
    let before = domain.server.admin(&["status"]).await.unwrap();

    let rotated = domain.server.admin(&["ca", "rotate"]).await.unwrap();
    let new_authority = rotated["authority_id"].as_str().unwrap().to_owned();
    assert_eq!(rotated["old_authority_id"], old.svid.authority_id().to_string());

    // Whoever watches has both authorities, each with a list of its own.
    let both = updates
        .until("a bundle of both authorities", |identity| {
            identity.authorities.len() == 2
        })
        .await;
    assert!(both.authorities.iter().all(|authority| authority.crl.is_some()));
    // A pod that starts now is signed by the new one, and both sides of the rotation believe each other.
    let back = identity_of(&domain, &agent, "back").await;
    assert_eq!(back.svid.authority_id().to_string(), new_authority);
    both.judge(&back.svid).unwrap();
    back.judge(&old.svid).unwrap();

    let after = domain.server.admin(&["status"]).await.unwrap();
    let sequence = |status: &Value| status["sequence_number"].as_u64().unwrap();
    assert!(sequence(&after) > sequence(&before), "the bundle's number grows");
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    assert_eq!(authorities(&shown, "x509", "active"), [new_authority]);
    assert_eq!(
        authorities(&shown, "x509", "old"),
        [old.svid.authority_id().to_string()]
    );
    for authority in authorities(&shown, "x509", "active")
        .iter()
        .chain(&authorities(&shown, "x509", "old"))
    {
        domain.server.crl(authority).await.unwrap();
        let url = format!("{}/ca/{authority}.cer", domain.server.publish_url());
        assert_eq!(http::get(&url).await.unwrap().status, 200);
    }
}

/// Covers INV-14.
#[tokio::test]
async fn the_control_authority_is_replaced_under_running_agents() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let first = identity_of(&domain, &agent, "front").await;
    domain
        .server
        .admin(&["ca", "rotate", "--kind", "control"])
        .await
        .unwrap();
    let second = identity_of(&domain, &agent, "back").await;
    first.judge(&second.svid).unwrap();
    assert_eq!(
        second.authorities.len(),
        1,
        "control authorities are in no workload's bundle"
    );
    // An agent that starts now trusts the new one from the file that the server keeps.
    let late = domain.agent("node-b").await;
    late.unwrap();
}

/// An admin rotates both kinds to P-384: agents, workloads and whoever joins later go on, and it stays until he says otherwise.
#[tokio::test]
async fn an_admin_chooses_another_algorithm_and_everyone_goes_on() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let first = identity_of(&domain, &agent, "front").await;
    let algorithm = async |kind: &str| {
        let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
        let all = shown["authorities"].as_array().unwrap().clone();
        let mut active = all
            .into_iter()
            .filter(|one| one["kind"] == kind && one["state"] == "active");
        active.next().unwrap()["algorithm"].clone()
    };
    for kind in ["x509", "control"] {
        assert_eq!(algorithm(kind).await, "p256");
        let command = ["ca", "rotate", "--kind", kind, "--algorithm", "p384"];
        domain.server.admin(&command).await.unwrap();
        assert_eq!(algorithm(kind).await, "p384");
    }
    let second = identity_of(&domain, &agent, "back").await;
    second.judge(&first.svid).unwrap();
    let late = domain.agent("node-b").await.unwrap();
    domain.shop_pod("late", "node-b").unwrap();
    let third = late
        .workload(&late.publish("shop", "late").await.unwrap())
        .identity()
        .await;
    second.judge(&third.svid).unwrap();
    third.judge(&second.svid).unwrap();
    domain.server.admin(&["ca", "rotate"]).await.unwrap();
    assert_eq!(algorithm("x509").await, "p384", "what was chosen stays");
}

/// Covers INV-3.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_rotation_loses_no_step() {
    let mut domain = Domain::start().await.unwrap();
    let before = domain.server.admin(&["ca", "show"]).await.unwrap();
    let old = authorities(&before, "x509", "active");
    // A step that takes its time: spreading lasts a second even without agents.
    let rotating = {
        let args = ["ca", "rotate", "--output", "json"];
        let rotate = domain.server.command(&args);
        let prepared = eventually("a prepared authority", async || {
            let shown = domain.server.admin(&["ca", "show"]).await.ok()?;
            authorities(&shown, "x509", "prepared").pop()
        });
        tokio::join!(
            async {
                tokio::time::timeout(Duration::from_millis(700), rotate)
                    .await
                    .is_ok()
            },
            prepared
        )
        .1
    };
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    let known: Vec<String> = ["active", "prepared", "old"]
        .iter()
        .flat_map(|state| authorities(&shown, "x509", state))
        .collect();
    assert!(
        known.contains(&rotating),
        "the prepared authority is gone: {shown}"
    );
    assert!(known.contains(&old[0]), "the old authority is gone: {shown}");
    assert_eq!(
        authorities(&shown, "x509", "active").len(),
        1,
        "exactly one signs: {shown}"
    );
}

/// What an agent says that holds this state.
fn report_of(state: &TrustState) -> TrustReport {
    let certificates = state.x509_authorities.iter();
    let bundle = TrustBundle::new(
        TrustDomain::parse("example.org").unwrap(),
        certificates
            .map(|authority| AuthorityCertificate::from_der(&authority.certificate).unwrap())
            .collect(),
        state.sequence_number,
        Duration::from_secs(state.refresh_hint_seconds.into()),
    );
    TrustReport {
        sequence_number: state.sequence_number,
        bundle_digest: bundle.digest().to_vec().into(),
        ..TrustReport::default()
    }
}

/// Opens the trust stream of an agent, and reports the first state that comes over it.
async fn report(agent: &RawAgent) -> mpsc::Sender<TrustReport> {
    let (reports, outgoing) = mpsc::channel(1);
    let stream = agent.stub().sync_trust(ReceiverStream::new(outgoing)).await;
    let mut states = stream.unwrap().into_inner();
    let state = states.message().await.unwrap().unwrap();
    reports.send(report_of(&state)).await.unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = states.message().await {} });
    reports
}

/// Killed between prepare and activate: what agents have not said before, they have not said after. Whoever holds a
/// certificate is waited for, connected or not.
///
/// Covers INV-8.
#[tokio::test]
async fn a_restart_is_no_agreement_of_the_agents() {
    let plan = Plan::default().server("/authority/spread_max", json!("1h"));
    let mut domain = plan.start().await.unwrap();
    let (_silent, certificate) = domain.raw_agent("node-a").await.unwrap();
    let prepared = {
        let rotate = domain.server.command(&["ca", "rotate"]);
        tokio::pin!(rotate);
        let prepared = eventually("a prepared authority", async || {
            let shown = domain.server.admin(&["ca", "show"]).await.ok()?;
            authorities(&shown, "x509", "prepared").pop()
        });
        tokio::select! {
            done = &mut rotate => panic!("nobody has reported: {:?}", done.unwrap()),
            prepared = prepared => prepared,
        }
    };
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let started = Instant::now();
    let waiting = eventually(
        "the spread to be over, and the agent to be waited for",
        async || {
            let status = domain.server.admin(&["status"]).await.ok()?;
            (started.elapsed() > Duration::from_secs(3)).then_some(status)
        },
    )
    .await;
    let awaited = waiting["agents_awaited"].as_array().unwrap();
    assert_eq!(awaited.len(), 1, "{waiting}");
    let shown = domain.server.admin(&["ca", "show"]).await.unwrap();
    assert_eq!(
        authorities(&shown, "x509", "prepared"),
        std::slice::from_ref(&prepared)
    );

    let mut agent = RawAgent::connect(domain.server.agents(), Some(&certificate))
        .await
        .unwrap();
    agent.hello().await.unwrap();
    let _open = report(&agent).await;
    eventually("the prepared authority to sign", async || {
        let shown = domain.server.admin(&["ca", "show"]).await.ok()?;
        (authorities(&shown, "x509", "active") == std::slice::from_ref(&prepared)).then_some(())
    })
    .await;
    let status = domain.server.admin(&["status"]).await.unwrap();
    assert_eq!(status["agents_awaited"], json!([]));
}
