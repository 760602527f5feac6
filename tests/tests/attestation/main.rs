//! The server's attestor against a whole Kubernetes API: every kind of token, every kind of outage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod floods;
mod keys;
mod namespaces;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::jws::JwsError;
use signet_runtime::clock::SystemClock;
use signet_runtime::drain::Drain;
use signet_server::testing::{
    self, Access, AgentIdentity, AttestError, AttestationConfig, AttestedNode, AttestedPod, Attestor, Bearer,
    ClaimsError, ClusterConfig, KubernetesAttestor, PodEvent, PodEventKind, RefusedReason,
    ServiceAccountName, TrustedClock,
};
use signet_tests::fake_kube::{Endpoint, FakeKube, FakeKubeConfig, Fault, PodSpec};
use signet_tests::wait::eventually;
use tokio::sync::mpsc;

const POD_AUDIENCE: &str = "signet:example.org:pod";
const NODE_AUDIENCE: &str = "signet:example.org:node";
const HOUR: Duration = Duration::from_secs(3600);

struct World {
    kube: FakeKube,
    attestor: KubernetesAttestor,
    events: mpsc::UnboundedReceiver<PodEvent>,
    node_uid: String,
    drain: Drain,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.drain.start();
    }
}

fn config(kube: &FakeKube, dir: &Path) -> AttestationConfig {
    let kubeconfig = dir.join("kubeconfig");
    kube.kubeconfig(&kubeconfig).unwrap();
    AttestationConfig {
        clusters: vec![ClusterConfig {
            name: "prod".into(),
            uid: Some(kube.cluster_uid().to_owned()),
            access: Access::Kubeconfig {
                path: kubeconfig,
                context: None,
            },
            agents: vec![ServiceAccountName {
                namespace: "signet-system".into(),
                name: "signet-agent".into(),
            }],
            more_issuers: Vec::new(),
        }],
        node_audience: NODE_AUDIENCE.to_owned(),
        pod_audience: POD_AUDIENCE.to_owned(),
        max_token_lifetime: 24 * HOUR,
        grace: 24 * HOUR,
        calls: (200, 400),
    }
}

async fn attestor(
    data_dir: &Path,
    config: &AttestationConfig,
    drain: &Drain,
) -> (
    Result<KubernetesAttestor, String>,
    mpsc::UnboundedReceiver<PodEvent>,
) {
    let (sender, events) = mpsc::unbounded_channel();
    let tell = Arc::new(move |event| {
        // Some tests listen to none.
        let _ = sender.send(event);
    });
    let skew = Duration::from_secs(120);
    let clock = Arc::new(TrustedClock::agreed(Arc::new(SystemClock)));
    (
        testing::attestor(data_dir, config, skew, clock, drain, tell).await,
        events,
    )
}

impl World {
    async fn new() -> Self {
        Self::with_calls(200, 400).await
    }

    /// With so many calls to the API server per second, and so many at once.
    async fn with_calls(per_second: u32, burst: u32) -> Self {
        let kube = FakeKube::start(FakeKubeConfig {
            bookmark_interval: Duration::from_millis(20),
            ..FakeKubeConfig::default()
        })
        .await
        .unwrap();
        let node_uid = kube.add_node("node-a");
        kube.add_node("node-b");
        kube.add_service_account("signet-system", "signet-agent");
        kube.add_service_account("shop", "frontend");
        kube.add_pod(&PodSpec::new("signet-system", "agent-a").service_account("signet-agent"))
            .unwrap();
        kube.add_pod(
            &PodSpec::new("shop", "web-0")
                .service_account("frontend")
                .label("app", "web"),
        )
        .unwrap();
        let dir = signet_testkit::folder();
        let drain = Drain::new();
        let config = AttestationConfig {
            calls: (per_second, burst),
            ..config(&kube, dir.path())
        };
        let (attestor, events) = attestor(&dir.path().join("data"), &config, &drain).await;
        let attestor = attestor.unwrap();
        attestor.first_sync().await;
        Self {
            kube,
            attestor,
            events,
            node_uid,
            drain,
            _dir: dir,
        }
    }

    fn agent(&self) -> AgentIdentity {
        agent("node-a", &self.node_uid)
    }

    fn token(&self, pod: &str) -> String {
        self.kube.token("shop", pod, POD_AUDIENCE, HOUR).unwrap()
    }

    async fn pod(&self, token: &str) -> Result<AttestedPod, AttestError> {
        self.attestor.attest_pod(&self.agent(), token).await
    }

    async fn node(&self, token: &str) -> Result<AttestedNode, AttestError> {
        self.attestor.attest_node(stranger(), "prod", token).await
    }

    async fn refused(&self, token: &str) -> RefusedReason {
        match self.pod(token).await {
            Err(AttestError::Refused(reason)) => {
                assert!(
                    token.len() < 20 || !reason.to_string().contains(token),
                    "{reason}"
                );
                reason
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn unavailable(&self, token: &str) -> String {
        match self.pod(token).await {
            Err(AttestError::Unavailable { message, .. }) => message,
            other => panic!("not unavailable: {other:?}"),
        }
    }

    /// Signs the claims of an honest token of web-0, changed.
    fn forged(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.kube.claims("shop", "web-0", POD_AUDIENCE, HOUR).unwrap();
        change(&mut claims);
        self.kube.sign(&BTreeMap::new(), &claims).unwrap()
    }

    fn reviews(&self) -> u64 {
        self.kube.calls(Endpoint::TokenReviews)
    }

    /// Waits until the watch shows a pod as `is` wants it.
    async fn until_pod(&mut self, uid: &str, is: PodEventKind) {
        loop {
            let event = self.events.recv().await.unwrap();
            if event.pod_uid == uid && event.kind == is {
                return;
            }
        }
    }
}

fn stranger() -> Bearer<'static> {
    Bearer::Stranger(IpAddr::from(Ipv4Addr::LOCALHOST).into())
}

fn agent(node_name: &str, node_uid: &str) -> AgentIdentity {
    let domain = TrustDomain::parse("example.org").unwrap();
    AgentIdentity {
        spiffe_id: SpiffeId::agent(&domain, "prod", node_uid).unwrap(),
        cluster: "prod".into(),
        node_name: node_name.into(),
        node_uid: node_uid.into(),
    }
}

#[tokio::test]
async fn a_pod_is_proven_once_and_then_without_a_call() {
    let world = World::new().await;
    let token = world.token("web-0");
    let pod = world.pod(&token).await.unwrap();
    assert_eq!((pod.cluster.as_str(), pod.namespace.as_str()), ("prod", "shop"));
    assert_eq!(
        (pod.pod_name.as_str(), pod.service_account.as_str()),
        ("web-0", "frontend")
    );
    assert_eq!(pod.cluster_uid, world.kube.cluster_uid());
    assert_eq!(
        (pod.node_name.as_str(), pod.node_uid.as_str()),
        ("node-a", world.node_uid.as_str())
    );
    assert_eq!(pod.labels.get("app").map(String::as_str), Some("web"));
    assert!(!pod.terminating);
    assert_eq!(world.reviews(), 1);
    for _ in 0..10 {
        assert_eq!(world.pod(&token).await.unwrap(), pod);
    }
    assert_eq!(world.reviews(), 1);
}

#[tokio::test]
async fn equal_questions_at_the_same_time_are_one_review() {
    let world = World::new().await;
    world
        .kube
        .fault_at(Endpoint::TokenReviews, Fault::slow(Duration::from_millis(50)));
    let token = world.token("web-0");
    let asked = futures_util::future::join_all((0..20).map(|_| world.pod(&token))).await;
    assert!(asked.iter().all(Result::is_ok));
    assert_eq!(world.reviews(), 1);
}

#[tokio::test]
async fn a_node_is_proven_by_its_agents_token() {
    let world = World::new().await;
    let token = world
        .kube
        .token("signet-system", "agent-a", NODE_AUDIENCE, HOUR)
        .unwrap();
    let node = world.node(&token).await.unwrap();
    assert_eq!(
        (node.node_name.as_str(), node.node_uid.as_str()),
        ("node-a", world.node_uid.as_str())
    );
    assert_eq!(node.pod_name, "agent-a");
    assert!(!node.jti.is_empty());
}

/// Covers INV-12.
#[tokio::test]
async fn only_allowed_service_accounts_prove_nodes() {
    let world = World::new().await;
    let token = world.kube.token("shop", "web-0", NODE_AUDIENCE, HOUR).unwrap();
    let refused = world.node(&token).await.unwrap_err();
    assert_eq!(
        refused,
        RefusedReason::AgentNotAllowed {
            service_account: "shop:frontend".into()
        }
        .into()
    );
    assert_eq!(world.reviews(), 0);
}

/// Covers BT-09.
#[tokio::test]
async fn a_node_made_anew_is_refused() {
    let world = World::new().await;
    let [token, another] = ["", ""].map(|_| {
        let token = world.kube.token("signet-system", "agent-a", NODE_AUDIENCE, HOUR);
        token.unwrap()
    });
    world.kube.delete_node("node-a").unwrap();
    let gone = world.node(&token).await.unwrap_err();
    assert_eq!(
        gone,
        RefusedReason::NodeGone {
            node: "node-a".into()
        }
        .into()
    );
    world.kube.add_node("node-a");
    assert!(world.node(&token).await.is_err());
    let replaced = world.node(&another).await.unwrap_err();
    assert_eq!(
        replaced,
        RefusedReason::NodeReplaced {
            node: "node-a".into()
        }
        .into()
    );
}

/// Junk, wrong audiences, times, keys and bindings are settled here, without a call to the API server.
///
/// Covers BT-04, BT-05, BT-06, BT-07, BT-08, BT-10.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
async fn bad_tokens_cost_no_review() {
    let world = World::new().await;
    let other = FakeKube::start(FakeKubeConfig::default()).await.unwrap();
    other.add_node("node-a");
    other
        .add_pod(&PodSpec::new("shop", "web-0").service_account("frontend"))
        .unwrap();
    world
        .kube
        .add_pod(
            &PodSpec::new("shop", "far-0")
                .service_account("frontend")
                .node("node-b"),
        )
        .unwrap();

    assert_eq!(
        world.refused("").await,
        RefusedReason::Token(JwsError::NotCompact)
    );
    assert_eq!(
        world.refused(&"A".repeat(1 << 20)).await,
        RefusedReason::Token(JwsError::TooLarge)
    );
    let foreign = other.token("shop", "web-0", POD_AUDIENCE, HOUR).unwrap();
    assert_eq!(
        world.refused(&foreign).await,
        RefusedReason::Token(JwsError::UnknownKey)
    );
    let for_node = world.kube.token("shop", "web-0", NODE_AUDIENCE, HOUR).unwrap();
    assert_eq!(
        world.refused(&for_node).await,
        RefusedReason::Claims(ClaimsError::Audience(POD_AUDIENCE.into()))
    );
    let both = world.forged(|claims| claims["aud"] = json!([POD_AUDIENCE, NODE_AUDIENCE]));
    assert_eq!(
        world.refused(&both).await,
        RefusedReason::Claims(ClaimsError::SeveralAudiences(POD_AUDIENCE.into()))
    );
    let old = world.forged(|claims| claims["exp"] = json!(claims["iat"].as_u64().unwrap() - 1));
    assert!(matches!(
        world.refused(&old).await,
        RefusedReason::Claims(ClaimsError::Expired(_))
    ));
    let eternal = world.forged(|claims| claims["exp"] = json!(253_402_300_799_u64));
    assert_eq!(
        world.refused(&eternal).await,
        RefusedReason::Claims(ClaimsError::LivesTooLong(86_400))
    );
    let early = world.forged(|claims| claims["nbf"] = json!(claims["iat"].as_u64().unwrap() + 1000));
    assert!(matches!(
        world.refused(&early).await,
        RefusedReason::Claims(ClaimsError::NotYetValid(_))
    ));
    let unbound = world
        .kube
        .token_unbound("shop", "frontend", POD_AUDIENCE, HOUR)
        .unwrap();
    assert_eq!(
        world.refused(&unbound).await,
        RefusedReason::Claims(ClaimsError::NotPodBound)
    );
    let legacy = world.kube.legacy_token("shop", "frontend").unwrap();
    assert_eq!(
        world.refused(&legacy).await,
        RefusedReason::Claims(ClaimsError::Legacy)
    );
    let mut tampered = world.token("web-0");
    let place = tampered.len() - 10..tampered.len() - 9;
    let other = if tampered[place.clone()] == *"_" { "A" } else { "_" };
    tampered.replace_range(place, other);
    let refusal = world.refused(&tampered).await;
    assert_eq!(refusal, RefusedReason::Token(JwsError::BadSignature));
    let far = world.token("far-0");
    assert_eq!(
        world.refused(&far).await,
        RefusedReason::OtherNode {
            pod_node: "node-b".into(),
            agent_node: "node-a".into()
        }
    );
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"kid": "../../x"}),
        json!({"kid": null}),
    ] {
        let header = header.as_object().unwrap().clone().into_iter().collect();
        let claims = world.kube.claims("shop", "web-0", POD_AUDIENCE, HOUR).unwrap();
        let token = world.kube.sign(&header, &claims).unwrap();
        assert!(
            matches!(world.refused(&token).await, RefusedReason::Token(_)),
            "{header:?}"
        );
    }
    assert_eq!(world.reviews(), 0);
}

/// Covers BT-09.
#[tokio::test]
async fn a_deleted_pod_is_refused_although_the_api_server_still_vouches_for_it() {
    let mut world = World::new().await;
    let [token, another] = ["", ""].map(|_| world.token("web-0"));
    let pod = world.pod(&token).await.unwrap();
    world.pod(&another).await.unwrap();
    world.kube.delete_pod("shop", "web-0").unwrap();
    world.until_pod(&pod.pod_uid, PodEventKind::Gone).await;
    assert_eq!(
        world.refused(&token).await,
        RefusedReason::PodGone {
            pod: "shop/web-0".into()
        }
    );
    // Another pod of that name does not bring its tokens back to life.
    world
        .kube
        .add_pod(&PodSpec::new("shop", "web-0").service_account("frontend"))
        .unwrap();
    world.refused(&token).await;
    let reason = world.refused(&another).await;
    assert!(
        matches!(
            reason,
            RefusedReason::PodReplaced { .. } | RefusedReason::NotAuthenticated { .. }
        ),
        "{reason:?}"
    );
}

#[tokio::test]
async fn a_terminating_pod_may_renew_until_it_is_gone() {
    let mut world = World::new().await;
    let token = world.token("web-0");
    let uid = world.pod(&token).await.unwrap().pod_uid;
    world.kube.terminate_pod("shop", "web-0", HOUR).unwrap();
    world.until_pod(&uid, PodEventKind::Changed).await;
    assert!(world.pod(&token).await.unwrap().terminating);
    world.kube.delete_pod("shop", "web-0").unwrap();
    world.until_pod(&uid, PodEventKind::Gone).await;
    world.refused(&token).await;
}

#[tokio::test]
async fn a_pod_that_has_ended_is_refused() {
    let mut world = World::new().await;
    let token = world.token("web-0");
    let uid = world.pod(&token).await.unwrap().pod_uid;
    world.kube.set_phase("shop", "web-0", "Succeeded").unwrap();
    world.until_pod(&uid, PodEventKind::Changed).await;
    assert_eq!(
        world.refused(&token).await,
        RefusedReason::PodFinished {
            pod: "shop/web-0".into()
        }
    );
}

#[tokio::test]
async fn a_recreated_service_account_ends_what_was_reviewed() {
    let world = World::new().await;
    let token = world.token("web-0");
    world.pod(&token).await.unwrap();
    world.kube.delete_service_account("shop", "frontend").unwrap();
    world.kube.add_service_account("shop", "frontend");
    world.kube.expire_reviews();
    // The watch brings the news; until then the kept review counts.
    let error = eventually("the refusal", async || world.pod(&token).await.err()).await;
    let AttestError::Refused(reason) = error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(reason, RefusedReason::NotAuthenticated { .. }),
        "{reason:?}"
    );
}

#[tokio::test]
async fn a_pod_the_watch_has_not_shown_yet_is_read_live() {
    let world = World::new().await;
    world.kube.fault_at(Endpoint::PodWatches, Fault::Hang);
    world.kube.cut_watches();
    world
        .kube
        .add_pod(&PodSpec::new("shop", "new-0").service_account("frontend"))
        .unwrap();
    let pod = world.pod(&world.token("new-0")).await.unwrap();
    assert_eq!(pod.pod_name, "new-0");
}

/// Every way in which the API server can fail is no verdict, and says what to repair.
///
/// Covers BT-11.
#[tokio::test]
async fn a_failing_api_server_is_never_a_verdict() {
    let world = World::new().await;
    let token = world.token("web-0");
    let cases = [
        (Fault::Unauthorized, "credentials"),
        (Fault::Forbidden, "create tokenreviews"),
        (
            Fault::TooManyRequests {
                retry_after_seconds: 3,
            },
            "fewer calls",
        ),
        (Fault::InternalError, "status 500"),
        (Fault::junk(), "unreadable"),
        (Fault::Junk { body: "{}".into() }, "unreadable"),
        (
            Fault::Junk {
                body: r#"{"kind":"TokenReview","apiVersion":"v1"}"#.into(),
            },
            "unreadable",
        ),
    ];
    for (fault, expected) in cases {
        world.kube.clear_faults();
        world.kube.fault_at(Endpoint::TokenReviews, fault.clone());
        let message = world.unavailable(&token).await;
        assert!(
            message.contains("`prod`") && message.contains(expected),
            "{fault:?}: {message}"
        );
    }
    world.kube.clear_faults();
    world.pod(&token).await.unwrap();
    world.kube.refuse_connections().await;
    // What was reviewed goes on while the watch may be believed; what was not, waits.
    world.pod(&token).await.unwrap();
    let message = world.unavailable(&world.token("web-0")).await;
    assert!(message.contains("cannot be reached"), "{message}");
    world.kube.accept_connections().await.unwrap();
    world.pod(&world.token("web-0")).await.unwrap();
}

/// How many certificates an agent may have, and whether it is waited for, is measured by what its node's watch shows.
#[tokio::test]
async fn a_node_has_the_pods_that_run_on_it_and_a_pod_is_gone_when_a_synced_watch_says_so() {
    let mut world = World::new().await;
    let agent = world.agent();
    assert_eq!(world.attestor.pods_on_node(&agent), 2);
    let web = world.pod(&world.token("web-0")).await.unwrap().pod_uid;
    assert!(!world.attestor.is_pod_gone("prod", &web));
    world.kube.delete_pod("shop", "web-0").unwrap();
    world.until_pod(&web, PodEventKind::Gone).await;
    assert!(world.attestor.is_pod_gone("prod", &web));
    assert!(!world.attestor.is_pod_gone("another", &web), "nobody looks there");
    assert_eq!(world.attestor.pods_on_node(&agent), 1);
    let elsewhere = PodSpec::new("shop", "web-1")
        .service_account("frontend")
        .node("node-b");
    let uid = world.kube.add_pod(&elsewhere).unwrap();
    eventually("the pod in the watch", async || {
        world.attestor.live_pod("prod", &uid)
    })
    .await;
    assert_eq!(world.attestor.pods_on_node(&agent), 1);
}

#[tokio::test]
async fn watches_survive_ends_cuts_and_forgotten_history() {
    let mut world = World::new().await;
    for (round, disturb) in [
        FakeKube::end_watches,
        FakeKube::cut_watches,
        FakeKube::compact_history,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("pod-{round}");
        let uid = world
            .kube
            .add_pod(&PodSpec::new("shop", &name).service_account("frontend"))
            .unwrap();
        disturb(&world.kube);
        eventually("the pod in the watch", async || {
            world.attestor.live_pod("prod", &uid)
        })
        .await;
        disturb(&world.kube);
        world.kube.delete_pod("shop", &name).unwrap();
        world.until_pod(&uid, PodEventKind::Gone).await;
    }
    assert!(world.attestor.clusters()[0].synced);
}

#[tokio::test]
async fn another_cluster_than_the_one_named_is_refused_at_start() {
    let kube = FakeKube::start(FakeKubeConfig::default()).await.unwrap();
    let dir = signet_testkit::folder();
    let mut config = config(&kube, dir.path());
    config.clusters[0].uid = Some("another".into());
    let error = attestor(&dir.path().join("data"), &config, &Drain::new())
        .await
        .0
        .err()
        .unwrap();
    assert!(error.contains("`prod`") && error.contains("another"), "{error}");
}

/// Covers BT-11.
#[tokio::test]
async fn a_server_starts_without_its_cluster_and_finds_it_later() {
    let kube = FakeKube::start(FakeKubeConfig::default()).await.unwrap();
    kube.add_node("node-a");
    let dir = signet_testkit::folder();
    let config = config(&kube, dir.path());
    kube.refuse_connections().await;
    let drain = Drain::new();
    let attestor = attestor(&dir.path().join("data"), &config, &drain)
        .await
        .0
        .unwrap();
    let answer = attestor.attest_node(stranger(), "prod", "any").await.unwrap_err();
    assert!(matches!(answer, AttestError::Unavailable { .. }), "{answer:?}");
    assert!(attestor.clusters()[0].problem.is_some());
    kube.accept_connections().await.unwrap();
    attestor.first_sync().await;
    assert_eq!(attestor.clusters()[0].uid.as_deref(), Some(kube.cluster_uid()));
    assert!(drain.finish(Duration::from_secs(5)).await);
}
