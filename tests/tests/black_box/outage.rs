//! Each part goes away for a while: the others serve what they have, and nobody gets what he should not.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use signet_certs::time::rfc3339;
use signet_proto::agent::issue_result::Outcome;
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_tests::{
    agent_client::new_csr,
    domain::{Agent, Domain, POD_AUDIENCE, Plan},
    fake_kube::{Endpoint, Fault, PodSpec},
    kubelet::Volume,
    wait::{eventually, within},
};
use tonic::Code;

use super::support::{audited, id_of, pod_with_volume, workload_svids};

/// Covers INV-9.
#[tokio::test]
async fn without_the_server_an_agent_serves_what_it_has() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let before = front.identity().await;
    domain.server.kill().await;
    let during = front.fetch().await.unwrap();
    assert_eq!(during.svid.serial(), before.svid.serial());
    assert!(
        during.authorities.iter().all(|authority| authority.crl.is_some()),
        "lists as well"
    );
    // Publishing never waits for the server: the pod starts, and gets its identity later.
    let late = agent.workload(&pod_with_volume(&domain, &agent, "late").await);
    let waiting = tokio::spawn(async move { late.watch().await?.next().await.map(|late| (late, during)) });
    domain.server.start().await.unwrap();
    let (late, during) = waiting
        .await
        .unwrap()
        .expect("the waiting stream gets its identity without asking again");
    assert_eq!(late.svid.spiffe_id().as_str(), id_of("late"));
    during.judge(&late.svid).unwrap();
}

/// A frozen server is worse than a dead one: connections stay open and nothing answers.
/// Covers INV-9, BG-15.
#[tokio::test]
async fn a_frozen_server_ends_no_stream_and_starts_no_hot_loop() {
    let mut domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let before = front.identity().await;
    let mut updates = front.watch().await.unwrap();
    updates.next().await.unwrap();
    domain.server.process().unwrap().freeze(true);
    let late = agent.workload(&pod_with_volume(&domain, &agent, "late").await);
    let pending = late
        .fetch()
        .await
        .err()
        .expect("an identity from a frozen server");
    assert_eq!(
        pending.code(),
        Code::Unavailable,
        "pending is no verdict: {pending:?}"
    );
    assert_eq!(front.fetch().await.unwrap().svid.serial(), before.svid.serial());
    domain.server.process().unwrap().freeze(false);
    late.identity().await;
    let quiet = tokio::time::timeout(Duration::from_millis(50), updates.next()).await;
    assert!(
        !matches!(quiet, Ok(Err(_))),
        "the stream of a served workload ended"
    );
}

/// Covers BG-15.
#[tokio::test]
async fn an_agent_may_start_before_its_server() {
    let mut domain = Domain::start().await.unwrap();
    domain.server.stop().await.unwrap();
    let mut agent = domain.prepare_agent("node-a").unwrap();
    agent.spawn().unwrap();
    domain.register(&mut agent).await.unwrap();
    let workload = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let waiting = tokio::spawn(async move { workload.watch().await?.next().await });
    let checked = agent.command(&["healthcheck"]).await.unwrap();
    assert!(
        !checked.status.success(),
        "an agent without a server is not ready"
    );
    domain.server.start().await.unwrap();
    let waited = waiting
        .await
        .unwrap()
        .expect("the first stream gets its identity without asking again");
    assert_eq!(waited.svid.spiffe_id().as_str(), id_of("front"));
    eventually("the agent to be ready", async || {
        agent
            .command(&["healthcheck"])
            .await
            .unwrap()
            .status
            .success()
            .then_some(())
    })
    .await;
}

/// Covers BT-09, BT-11.
#[tokio::test]
async fn a_pod_deleted_while_watches_were_down_is_noticed() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    raw.issue_good(&token).await.unwrap();
    domain.kube.fault_at(Endpoint::PodWatches, Fault::InternalError);
    domain.kube.cut_watches();
    domain.kube.delete_pod("shop", "front").unwrap();
    // Its place in the history is forgotten as well, so only a new list can tell.
    domain.kube.compact_history();
    domain.kube.expire_reviews();
    domain.kube.clear_faults();
    eventually("the deletion to be noticed", async || {
        match raw.issue_one(new_csr().unwrap(), &token).await.unwrap() {
            Outcome::Refusal(refusal) => Some(refusal),
            Outcome::Issued(_) | Outcome::Unavailable(_) => None,
        }
    })
    .await;
}

#[tokio::test]
async fn watches_that_end_expire_or_answer_junk_are_begun_again() {
    let domain = Domain::start().await.unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let kube = &domain.kube;
    for (number, trouble) in ["end", "cut", "gone", "gone before", "junk", "429"]
        .iter()
        .enumerate()
    {
        let fault = |fault: Fault| {
            kube.fault_at(Endpoint::PodWatches, fault);
            kube.cut_watches();
        };
        match *trouble {
            "end" => kube.end_watches(),
            "cut" => kube.cut_watches(),
            "gone" => kube.compact_history(),
            "gone before" => fault(Fault::Gone),
            "junk" => fault(Fault::junk()),
            _ => fault(Fault::TooManyRequests {
                retry_after_seconds: 1,
            }),
        }
        let name = format!("front-{number}");
        kube.add_pod(&PodSpec::new("shop", &name).service_account("front"))
            .unwrap();
        let token = domain.pod_token("shop", &name).unwrap();
        // Whatever the watch does: a live read finds the pod.
        eventually(&format!("an identity after {trouble}"), async || {
            let outcome = raw.issue_one(new_csr().unwrap(), &token).await.unwrap();
            matches!(outcome, Outcome::Issued(_)).then_some(())
        })
        .await;
        kube.clear_faults();
        kube.delete_pod("shop", &name).unwrap();
        kube.expire_reviews();
        eventually(&format!("the deletion to be seen after {trouble}"), async || {
            let outcome = raw.issue_one(new_csr().unwrap(), &token).await.unwrap();
            matches!(outcome, Outcome::Refusal(_)).then_some(())
        })
        .await;
    }
}

/// One workload in trouble disturbs no other.
#[tokio::test]
async fn a_refused_pod_disturbs_no_neighbour() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let good = agent.workload(&pod_with_volume(&domain, &agent, "good").await);
    let volume = pod_with_volume(&domain, &agent, "bad").await;
    let before = good.identity().await;
    agent
        .kubelet()
        .unwrap()
        .publish_with_tokens(&volume, "junk")
        .await
        .ok();
    agent
        .kubelet()
        .unwrap()
        .publish_with_tokens(&volume, "{}")
        .await
        .ok();
    domain.kube.delete_pod("shop", "bad").unwrap();
    assert_eq!(good.fetch().await.unwrap().svid.serial(), before.svid.serial());
    let ids = workload_svids(&domain).await;
    assert!(ids.iter().any(|svid| svid["spiffe_id"] == id_of("good")));
}

/// A pod with its volume, and a token of so long a life as the only one it ever had. Returns the token's end too.
async fn pod_with_token(domain: &Domain, agent: &Agent, name: &str, life: Duration) -> (Volume, SystemTime) {
    let volume = pod_with_volume(domain, agent, name).await;
    let kubelet = agent.kubelet().unwrap();
    kubelet.unpublish(&volume).await.unwrap();
    let token = domain.kube.token("shop", name, POD_AUDIENCE, life).unwrap();
    let end = SystemClock.now() + life;
    let tokens = json!({ POD_AUDIENCE: { "token": token, "expirationTimestamp": rfc3339(end) } });
    kubelet
        .publish_with_tokens(&volume, &tokens.to_string())
        .await
        .unwrap();
    (volume, end)
}

/// Longer than tokens live nobody can be asked: pods are renewed by what was known before. Whose pod went meanwhile is revoked when
/// somebody can.
///
/// Covers INV-9, BT-09.
#[tokio::test]
#[ignore = "takes more than a minute: `.ci/step clock` runs it"]
async fn an_outage_longer_than_a_tokens_life_ends_no_identity_and_keeps_none_of_a_pod_that_went() {
    let plan = Plan::default().server("/svid/ttl", json!("30s"));
    let domain = plan
        .server("/svid/clock_skew", json!("1s"))
        .start()
        .await
        .unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let life = Duration::from_secs(45);
    let (volume, _) = pod_with_token(&domain, &agent, "stays", life).await;
    let stays = agent.workload(&volume);
    let (volume_that_goes, end) = pod_with_token(&domain, &agent, "goes", life).await;
    let goes = agent.workload(&volume_that_goes);
    for workload in [&stays, &goes] {
        workload.identity().await;
    }
    domain.kube.refuse_connections().await;
    let told = within(Duration::from_secs(70), async || {
        let status = agent.command(&["status", "--output", "json"]).await.unwrap();
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        (status["cluster_unreachable_since"].is_string() && SystemClock.now() > end).then_some(())
    });
    assert!(told.await.is_some(), "the agent never learned of the outage");
    let mut last = None;
    for workload in [&stays, &goes] {
        let held = workload.fetch().await.unwrap().svid.serial();
        let mut updates = workload.watch().await.unwrap();
        last = Some(
            updates
                .until("a renewal", |identity| identity.svid.serial() != held)
                .await,
        );
    }
    let gone = last.unwrap().svid;
    domain.kube.delete_pod("shop", "goes").unwrap();
    domain.kube.accept_connections().await.unwrap();
    let serial = gone.serial().to_string();
    let revoked = audited(&domain, &["revoked", "system", &serial]).await;
    assert!(
        revoked[0].to_string().contains("cessationOfOperation"),
        "{revoked:?}"
    );
    eventually("the list to name it", async || {
        let held = stays.fetch().await.unwrap();
        held.sees_revoked(&gone).then_some(())
    })
    .await;
    agent.kubelet().unwrap().republish(&volume).await.unwrap();
    let held = stays.fetch().await.unwrap();
    assert!(
        !held.sees_revoked(&held.svid),
        "whose pod is there keeps what it has"
    );
    let marked = audited(&domain, &[r#""outage":true"#, &serial]).await;
    assert_eq!(marked.len(), 1);
}
