//! Killed and started again: nothing that was promised is lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use signet_certs::verify::inspect_leaf;
use signet_proto::agent::{GetTrustRequest, issue_result::Outcome};
use signet_tests::{
    agent_client::{RawAgent, new_csr},
    domain::Domain,
    fake_kube::{Endpoint, Fault, PodSpec},
    wait::eventually,
    workload::Identity,
};
use tonic::Code;

use super::put_back::copy_folder;
use super::support::{id_of, identity_of, pod_with_volume, workload_svids};

/// Whatever a client holds can be found and revoked, however the server ended.
/// Covers INV-4.
#[tokio::test]
async fn every_certificate_that_left_a_killed_server_is_in_its_ledger() {
    let mut domain = Domain::start().await.unwrap();
    let mut tokens = Vec::new();
    for n in 0..8 {
        let name = format!("front-{n}");
        domain
            .kube
            .add_pod(&PodSpec::new("shop", &name).service_account("front"))
            .unwrap();
        tokens.push(domain.pod_token("shop", &name).unwrap());
    }
    let (raw, _) = domain.raw_agent("node-a").await.unwrap();
    let some_issued = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = tokens
        .into_iter()
        .map(|token| {
            let (mut raw, some_issued) = (raw.clone(), Arc::clone(&some_issued));
            tokio::spawn(async move {
                let mut serials = Vec::new();
                while let Ok(Outcome::Issued(issued)) = raw.issue_one(new_csr().unwrap(), &token).await {
                    serials.push(
                        inspect_leaf(&issued.certificate_chain[0])
                            .unwrap()
                            .serial
                            .to_string(),
                    );
                    some_issued.store(true, Ordering::Relaxed);
                }
                serials
            })
        })
        .collect();
    eventually("something to be issued", async || {
        some_issued.load(Ordering::Relaxed).then_some(())
    })
    .await;
    domain.server.kill().await;
    let mut held = Vec::new();
    for worker in workers {
        held.extend(worker.await.unwrap());
    }
    domain.server.start().await.unwrap();
    let ledger = workload_svids(&domain).await;
    for serial in &held {
        assert!(
            ledger.iter().any(|row| row["serial"] == serial.as_str()),
            "{serial} is not in the ledger"
        );
    }
}

/// Covers INV-3.
#[tokio::test]
async fn a_killed_server_comes_back_as_the_same_authority() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let before = front.identity().await;
    let status = domain.server.admin(&["status"]).await.unwrap();
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let again = domain.server.admin(&["status"]).await.unwrap();
    let sequence = |status: &Value| status["sequence_number"].as_u64();
    assert!(
        sequence(&again) >= sequence(&status),
        "the bundle's number went back"
    );
    let ids = |status: &Value| {
        let all = status["authorities"].as_array().unwrap().iter();
        all.map(|authority| authority["authority_id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&again), ids(&status), "a restart adds no roots");
    // The agent finds its way back by itself and goes on serving new pods.
    let back = identity_of(&domain, &agent, "back").await;
    back.judge(&before.svid).unwrap();
    before.judge(&back.svid).unwrap();
    assert_eq!(
        front.fetch().await.unwrap().svid.serial(),
        before.svid.serial(),
        "nothing was issued anew"
    );
}

/// Covers BG-21.
#[tokio::test]
async fn a_killed_agent_rebuilds_every_socket() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let workload = agent.workload(&volume);
    let before = workload.identity().await;
    let mut updates = workload.watch().await.unwrap();
    updates.next().await.unwrap();
    let ledger = ledger(&domain).await;
    agent.kill().await;
    let end = updates.next().await.err().expect("the stream outlived its agent");
    assert!(
        matches!(end.code(), Code::Unavailable | Code::Unknown | Code::Internal),
        "{end:?}"
    );

    agent.start().await.unwrap();
    // The same client on the same socket, without kubelet's help: the token was kept.
    let after = workload.identity().await;
    assert_eq!(after.svid.spiffe_id().as_str(), id_of("front"));
    assert_eq!(after.svid.serial(), before.svid.serial());
    after.judge(&before.svid).unwrap();
    assert_eq!(self::ledger(&domain).await, ledger, "a restart issues nothing");
    domain.register(&mut agent).await.unwrap();
    agent.kubelet().unwrap().republish(&volume).await.unwrap();
    agent.kubelet().unwrap().unpublish(&volume).await.unwrap();
    assert!(!agent.socket(&volume).exists());
    let volumes = std::fs::read_dir(agent.folder().join("volumes")).unwrap();
    assert_eq!(volumes.count(), 0, "nothing of a volume outlives it");
}

/// With nobody to ask: what it held is served at once, the lists too, and found anew by whoever comes back.
/// Covers INV-3, INV-9.
#[tokio::test]
async fn an_agent_killed_while_server_and_api_server_are_away_serves_what_it_had() {
    let mut domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let before = front.identity().await;
    let ledger = ledger(&domain).await;
    for endpoint in [
        Endpoint::TokenReviews,
        Endpoint::Pods,
        Endpoint::PodWatches,
        Endpoint::Nodes,
    ] {
        domain.kube.fault_at(endpoint, Fault::InternalError);
    }
    domain.kube.cut_watches();
    domain.server.kill().await;
    for _ in 0..3 {
        agent.kill().await;
        agent.spawn().unwrap();
        let during = front.identity().await;
        assert_eq!(during.svid.serial(), before.svid.serial());
        let lists = |identity: &Identity| {
            identity
                .authorities
                .iter()
                .map(|held| held.crl.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(lists(&during), lists(&before));
        during.judge(&before.svid).unwrap();
    }
    domain.kube.clear_faults();
    domain.server.start().await.unwrap();
    eventually("the agent to be ready", async || {
        let asked = agent.command(&["healthcheck"]).await.unwrap();
        asked.status.success().then_some(())
    })
    .await;
    assert_eq!(front.identity().await.svid.serial(), before.svid.serial());
    assert_eq!(self::ledger(&domain).await, ledger, "a restart issues nothing");
}

/// After a restart a large cluster would otherwise ask about each of its tokens at once.
#[tokio::test]
async fn a_restart_of_the_server_reviews_no_token_again_that_a_certificate_rests_on() {
    let mut domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut raw, certificate) = domain.raw_agent("node-a").await.unwrap();
    raw.issue_good(&token).await.unwrap();
    let reviews = domain.kube.calls(Endpoint::TokenReviews);
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    eventually("the pods in the watch", async || {
        let status = domain.server.admin(&["status"]).await.ok()?;
        (status["clusters"][0]["pods_synced"] == true).then_some(())
    })
    .await;
    let mut raw = RawAgent::connect(domain.server.agents(), Some(&certificate))
        .await
        .unwrap();
    raw.hello().await.unwrap();
    for _ in 0..2 {
        raw.issue_good(&token).await.unwrap();
        assert_eq!(domain.kube.calls(Endpoint::TokenReviews), reviews);
    }
    let other = domain.pod_token("shop", "front").unwrap();
    raw.issue_good(&other).await.unwrap();
    assert_eq!(
        domain.kube.calls(Endpoint::TokenReviews),
        reviews + 1,
        "another token is another question"
    );
    domain.kube.delete_pod("shop", "front").unwrap();
    domain.kube.expire_reviews();
    domain.server.kill().await;
    domain.server.start().await.unwrap();
    let mut raw = RawAgent::connect(domain.server.agents(), Some(&certificate))
        .await
        .unwrap();
    raw.hello().await.unwrap();
    let answer = raw.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert!(!matches!(answer, Outcome::Issued(_)), "the pod is gone");
}

/// An old store in place of the present one: its bundle is not believed, the lists that it signs are.
/// Covers INV-3.
#[tokio::test]
async fn what_a_server_revokes_after_an_old_store_was_put_back_reaches_the_workloads() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let back = agent.workload(&pod_with_volume(&domain, &agent, "back").await);
    let (victim, peer) = (front.identity().await, back.identity().await);
    domain.server.stop().await.unwrap();
    let backup = domain.path().join("backup");
    copy_folder(&domain.server.data_dir(), &backup);
    domain.server.start().await.unwrap();
    domain.server.admin(&["ca", "rotate", "--force"]).await.unwrap();
    let mut stream = back.watch().await.unwrap();
    let newer = |peer: &Identity| peer.authorities.len() > 1;
    let rotated = stream.until("the bundle of the rotation", newer).await;
    assert!(rotated.authorities.len() > peer.authorities.len());
    domain.server.stop().await.unwrap();
    copy_folder(&backup, &domain.server.data_dir());
    domain.server.start().await.unwrap();

    let refused = eventually("the agent to say what it does not believe", async || {
        let agents = domain.server.admin(&["agent", "list"]).await.unwrap();
        let problem = agents["agents"][0]["problem"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (!problem.is_empty()).then_some(problem)
    });
    let refused = refused.await;
    assert!(refused.contains("sequence number fell"), "{refused}");
    let id = id_of("front");
    domain
        .server
        .admin(&["revoke", "--spiffe-id", &id])
        .await
        .unwrap();
    let told = stream
        .until("the list that was signed after it", |peer| {
            peer.sees_revoked(&victim.svid)
        })
        .await;
    assert_eq!(
        told.authorities.len(),
        rotated.authorities.len(),
        "the held bundle stays"
    );
    assert!(told.judge(&victim.svid).is_err());
}

/// Serials of everything that was issued to agents and workloads.
async fn ledger(domain: &Domain) -> Vec<String> {
    let list = domain.server.admin(&["svid", "list"]).await.unwrap();
    let all = list["svids"].as_array().unwrap().iter();
    let of_server = [
        "spiffe://example.org/signet/server",
        "spiffe://example.org/signet/bundle",
    ];
    let others = all.filter(|svid| !of_server.iter().any(|id| svid["spiffe_id"] == *id));
    let mut serials: Vec<String> = others.map(|svid| svid["serial"].to_string()).collect();
    serials.sort();
    serials
}

/// An agent whose folder of keys is lost waits for its next token, and its workloads learn of a revocation meanwhile.
#[tokio::test]
async fn an_agent_that_lost_its_key_hears_of_new_lists_while_it_waits_for_its_next_token() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let back = agent.workload(&pod_with_volume(&domain, &agent, "back").await);
    let (victim, peer) = (front.identity().await, back.identity().await);
    peer.judge(&victim.svid).unwrap();
    agent.kill().await;
    std::fs::remove_dir_all(agent.folder().join("state")).unwrap();
    agent.spawn().unwrap();
    eventually("the agent to be refused", async || {
        let checked = agent.command(&["healthcheck"]).await.ok()?;
        checked.stderr.contains("node_not_attested: ").then_some(())
    })
    .await;
    let mut stream = back.watch().await.unwrap();
    let serial = victim.svid.serial().to_string();
    domain
        .server
        .admin(&["revoke", "--serial", &serial])
        .await
        .unwrap();
    let told = stream
        .until("the list that names the victim", |peer| {
            peer.sees_revoked(&victim.svid)
        })
        .await;
    assert!(told.judge(&victim.svid).is_err());
    let agents = domain.server.admin(&["agent", "list"]).await.unwrap();
    assert_eq!(agents["agents"][0]["connected"], false, "{agents}");
}

/// After Hello, as every call that rests on what was agreed.
#[tokio::test]
async fn what_is_public_is_read_without_a_certificate_and_says_nothing_of_rules() {
    let domain = Domain::start().await.unwrap();
    let mut stranger = RawAgent::connect(domain.server.agents(), None).await.unwrap();
    let unopened = stranger.stub().get_trust(GetTrustRequest {}).await.unwrap_err();
    assert_eq!(unopened.code(), Code::FailedPrecondition);
    stranger.hello().await.unwrap();
    let read = async || stranger.stub().get_trust(GetTrustRequest {}).await;
    for _ in 0..10 {
        let mut answers = read().await.unwrap().into_inner();
        let state = answers.message().await.unwrap().unwrap();
        assert!(!state.x509_authorities.is_empty() && !state.control_authorities.is_empty());
        assert!(
            state
                .x509_authorities
                .iter()
                .all(|authority| !authority.crl.is_empty())
        );
        assert_eq!(state.policy_revision, 0);
        assert!(answers.message().await.unwrap().is_none(), "it is said once");
    }
}
