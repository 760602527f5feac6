//! Tokens that prove nothing, or not to us: refused with the reason, nothing issued, no call wasted on junk.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use signet_proto::agent::{issue_result::Outcome, refusal::Reason};
use signet_tests::{
    agent_client::{RawAgent, new_csr},
    domain::{CLUSTER, Domain, NODE_AUDIENCE, POD_AUDIENCE},
    fake_kube::{Endpoint, FakeKube, Fault, PodSpec},
    wait::eventually,
};
use tonic::Code;

use super::support::{assert_refused, audited, issued, workload_svids};

const HOUR: Duration = Duration::from_secs(3600);

/// A domain with a pod `shop/front` on node-a, and the agent of that node.
async fn domain() -> (Domain, RawAgent) {
    let domain = Domain::start().await.unwrap();
    domain.shop_pod("front", "node-a").unwrap();
    let (agent, _) = domain.raw_agent("node-a").await.unwrap();
    (domain, agent)
}

fn claims(kube: &FakeKube) -> Value {
    kube.claims("shop", "front", POD_AUDIENCE, HOUR).unwrap()
}

/// The honest claims with some of them replaced; `null` removes one.
fn changed(kube: &FakeKube, changes: &[(&str, Value)]) -> String {
    let mut claims = claims(kube);
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(*name);
        } else {
            claims[*name] = value.clone();
        }
    }
    kube.sign(&BTreeMap::new(), &claims).unwrap()
}

fn unix_now(kube: &FakeKube) -> i64 {
    claims(kube)["iat"].as_i64().unwrap()
}

async fn assert_all_refused(domain: &Domain, agent: &mut RawAgent, cases: &[(&str, String)]) {
    for (what, token) in cases {
        let outcome = agent.issue_one(new_csr().unwrap(), token).await.unwrap();
        let said = assert_refused(what, outcome, Reason::NotAttested);
        assert!(
            !said.contains(token.as_str()) || token.is_empty(),
            "{what}: the answer repeats the token"
        );
    }
    assert_eq!(
        workload_svids(domain).await,
        Vec::<Value>::new(),
        "nothing may be issued"
    );
    // The good one still works: nobody is locked out for another's junk.
    let good = domain.pod_token("shop", "front").unwrap();
    agent.issue_good(&good).await.unwrap();
    let node = domain.node_token("node-a").unwrap();
    for (what, token) in cases {
        let mut stranger = RawAgent::connect(domain.server.agents(), None).await.unwrap();
        stranger.hello().await.unwrap();
        let status = stranger
            .attest(new_csr().unwrap(), CLUSTER, token)
            .await
            .unwrap_err();
        let code = status.code();
        assert!(
            matches!(code, Code::PermissionDenied | Code::InvalidArgument),
            "{what}: {status:?}"
        );
    }
    RawAgent::attested(domain.server.agents(), CLUSTER, &node)
        .await
        .unwrap();
}

/// Covers BT-05.
#[tokio::test]
async fn tokens_for_somebody_else_are_refused() {
    let (domain, mut agent) = domain().await;
    let kube = &domain.kube;
    let cases = [
        ("no audience", changed(kube, &[("aud", Value::Null)])),
        ("another audience", changed(kube, &[("aud", json!(["vault"]))])),
        ("no audience in the list", changed(kube, &[("aud", json!([]))])),
        (
            "the API server's own",
            changed(kube, &[("aud", json!([kube.issuer()]))]),
        ),
        (
            "another trust domain",
            changed(kube, &[("aud", json!(["signet:other.org:pod"]))]),
        ),
        ("no token", String::new()),
        ("no token at all", "not-a-token".to_owned()),
        (
            "another issuer",
            changed(kube, &[("iss", json!("https://elsewhere.example"))]),
        ),
    ];
    let before = kube.calls(Endpoint::TokenReviews);
    for (what, token) in &cases {
        let outcome = agent.issue_one(new_csr().unwrap(), token).await.unwrap();
        assert_refused(what, outcome, Reason::NotAttested);
    }
    let calls = kube.calls(Endpoint::TokenReviews);
    assert_eq!(calls, before, "junk must not cost the API server a call");
    assert_all_refused(&domain, &mut agent, &cases).await;
}

/// A token of one role is worth nothing in the other: an agent cannot be made from a pod's token, nor the reverse.
/// Covers BT-05.
#[tokio::test]
async fn roles_are_not_interchangeable() {
    let (domain, mut agent) = domain().await;
    let name = domain.agent_pod("node-a").unwrap();
    let as_pod = domain.kube.token("shop", "front", NODE_AUDIENCE, HOUR).unwrap();
    let outcome = agent.issue_one(new_csr().unwrap(), &as_pod).await.unwrap();
    assert_refused("a pod's token for nodes", outcome, Reason::NotAttested);

    let pod_role = domain
        .kube
        .token("signet-system", &name, POD_AUDIENCE, HOUR)
        .unwrap();
    let other_account = as_pod;
    for token in [pod_role, other_account] {
        let error = RawAgent::attested(domain.server.agents(), CLUSTER, &token)
            .await
            .err()
            .unwrap();
        let status = error.downcast_ref::<tonic::Status>().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
    // The audit log names the account that may not act as an agent.
    audited(&domain, &["attest_node", "shop"]).await;
}

/// Covers BT-06.
#[tokio::test]
async fn tokens_outside_their_time_are_refused() {
    let (domain, mut agent) = domain().await;
    let kube = &domain.kube;
    let now = unix_now(kube);
    let cases = [
        (
            "expired",
            changed(kube, &[("exp", json!(now - 3600)), ("iat", json!(now - 7200))]),
        ),
        ("not yet valid", changed(kube, &[("nbf", json!(now + 3600))])),
        (
            "the year 9999",
            changed(kube, &[("exp", json!(253_402_300_799_i64))]),
        ),
        (
            "longer than allowed",
            changed(kube, &[("exp", json!(now + 90_000))]),
        ),
        ("no expiry", changed(kube, &[("exp", Value::Null)])),
        (
            "expiry as text",
            changed(kube, &[("exp", json!((now + 600).to_string()))]),
        ),
        ("expiry before the epoch", changed(kube, &[("exp", json!(-1))])),
    ];
    assert_all_refused(&domain, &mut agent, &cases).await;
}

/// A token whose header is changed by hand, with any signature.
fn forged(header: &Value, claims: &Value, signature: impl Fn(&str) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(signature(&message));
    format!("{message}.{signature}")
}

/// Covers BT-07.
#[tokio::test]
async fn tokens_with_a_forged_header_are_refused() {
    let (domain, mut agent) = domain().await;
    let kube = &domain.kube;
    let claims = claims(kube);
    let jwk = kube.jwks()["keys"][0].clone();
    let kid = &jwk["kid"];
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        point.extend(URL_SAFE_NO_PAD.decode(jwk[coordinate].as_str().unwrap()).unwrap());
    }
    let hs256 = |message: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &point);
        hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
    };
    let header = |name: &str, value: Value| {
        kube.sign(&BTreeMap::from([(name.to_owned(), value)]), &claims)
            .unwrap()
    };
    let good = kube.token("shop", "front", POD_AUDIENCE, HOUR).unwrap();
    let cut = good.rsplit_once('.').unwrap().0.to_owned();
    let cases = [
        (
            "alg none",
            forged(&json!({ "alg": "none", "kid": kid }), &claims, |_| Vec::new()),
        ),
        (
            "HS256 with the public key",
            forged(&json!({ "alg": "HS256", "kid": kid }), &claims, hs256),
        ),
        ("RS256 with an EC key", header("alg", json!("RS256"))),
        ("unknown kid", header("kid", json!("somebody-else"))),
        ("kid is a path", header("kid", json!("../../x"))),
        ("no kid", header("kid", Value::Null)),
        ("a critical extension", header("crit", json!(["exp"]))),
        ("no signature", format!("{cut}.")),
        ("two parts", cut.clone()),
        (
            "another's signature",
            format!("{cut}.{}", changed(kube, &[]).rsplit_once('.').unwrap().1),
        ),
    ];
    assert_all_refused(&domain, &mut agent, &cases).await;
    audited(&domain, &["not_attested"]).await;
    assert!(
        !std::fs::read_to_string(domain.server.folder().join("audit.log"))
            .unwrap()
            .contains(&cut)
    );
}

/// Covers BT-08.
#[tokio::test]
async fn tokens_of_no_pod_are_refused() {
    let (domain, mut agent) = domain().await;
    let kube = &domain.kube;
    let legacy = kube.legacy_token("shop", "front").unwrap();
    let unbound = kube.token_unbound("shop", "front", POD_AUDIENCE, HOUR).unwrap();
    let cases = [("a secret's token", legacy), ("bound to no pod", unbound)];
    assert_all_refused(&domain, &mut agent, &cases).await;
}

/// Covers BT-09.
#[tokio::test]
async fn tokens_of_pods_and_nodes_that_are_gone_are_refused() {
    let (domain, mut agent) = domain().await;
    let kube = &domain.kube;
    let token = domain.pod_token("shop", "front").unwrap();
    // The API server still believes in the token: it remembers this review for ten seconds.
    agent.issue_good(&token).await.unwrap();
    kube.delete_pod("shop", "front").unwrap();
    let said = eventually("the deleted pod to be refused", async || {
        match agent.issue_one(new_csr().unwrap(), &token).await.unwrap() {
            Outcome::Refusal(refusal) => Some(refusal.message),
            _ => None,
        }
    });
    assert!(said.await.contains("gone"));

    kube.add_pod(&PodSpec::new("shop", "front").service_account("front"))
        .unwrap();
    let outcome = agent.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert_refused("re-created under its name", outcome, Reason::NotAttested);
    let fresh = domain.pod_token("shop", "front").unwrap();
    issued(
        "the new pod's own token",
        agent.issue_one(new_csr().unwrap(), &fresh).await.unwrap(),
    );

    let failed = domain.shop_pod("failed", "node-a").unwrap();
    kube.set_phase("shop", "failed", "Failed").unwrap();
    let ended = eventually("the ended pod to be refused", async || {
        match agent.issue_one(new_csr().unwrap(), &failed).await.unwrap() {
            Outcome::Refusal(refusal) => Some(refusal.message),
            _ => None,
        }
    });
    assert!(ended.await.contains("ended"));

    let node_token = domain.node_token("node-b").unwrap();
    kube.delete_node("node-b").unwrap();
    kube.add_node("node-b");
    let error = RawAgent::attested(domain.server.agents(), CLUSTER, &node_token)
        .await
        .err()
        .unwrap();
    let status = error.downcast_ref::<tonic::Status>().unwrap();
    assert_eq!(
        status.code(),
        Code::PermissionDenied,
        "a node of the same name is another node: {status:?}"
    );
}

/// A stolen agent yields its own node's pods and nothing else.
/// Covers BT-10, INV-12.
#[tokio::test]
async fn tokens_of_another_nodes_pods_are_refused() {
    let (domain, mut agent) = domain().await;
    let elsewhere = domain.shop_pod("far", "node-b").unwrap();
    let outcome = agent.issue_one(new_csr().unwrap(), &elsewhere).await.unwrap();
    let said = assert_refused("another node's pod", outcome, Reason::NotAttested);
    assert!(said.contains("node-a") && said.contains("node-b"), "{said}");
    assert_eq!(workload_svids(&domain).await, Vec::<Value>::new());
    let (mut right, _) = domain.raw_agent("node-b").await.unwrap();
    issued(
        "its own agent",
        right.issue_one(new_csr().unwrap(), &elsewhere).await.unwrap(),
    );
    // The audit log says which node was tried from which.
    audited(&domain, &["node-a", "node-b"]).await;
}

/// Covers BT-11.
#[tokio::test]
async fn an_api_server_in_trouble_is_no_verdict() {
    let (domain, mut agent) = domain().await;
    let kube = &domain.kube;
    let token = domain.pod_token("shop", "front").unwrap();
    let node_token = domain.node_token("node-b").unwrap();
    for (what, fault) in [
        ("401", Fault::Unauthorized),
        ("403", Fault::Forbidden),
        (
            "429",
            Fault::TooManyRequests {
                retry_after_seconds: 1,
            },
        ),
        ("500", Fault::InternalError),
        ("a proxy's page", Fault::junk()),
        (
            "an empty object",
            Fault::Junk {
                body: "{}".to_owned(),
            },
        ),
        (
            "another object",
            Fault::Junk {
                body: json!({ "kind": "Pod", "apiVersion": "v1" }).to_string(),
            },
        ),
    ] {
        kube.fault_at(Endpoint::TokenReviews, fault);
        let outcome = agent.issue_one(new_csr().unwrap(), &token).await.unwrap();
        let Outcome::Unavailable(trouble) = outcome else {
            panic!("{what}: expected Unavailable, not {outcome:?}");
        };
        assert!(trouble.retry_after_ms > 0, "{what}: when to come back");
        let error = RawAgent::attested(domain.server.agents(), CLUSTER, &node_token)
            .await
            .err()
            .unwrap();
        let status = error.downcast_ref::<tonic::Status>().unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{what}: {status:?}");
        kube.clear_faults();
    }
    kube.refuse_connections().await;
    let outcome = agent.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert!(
        matches!(outcome, Outcome::Unavailable(_)),
        "unreachable: {outcome:?}"
    );
    kube.accept_connections().await.unwrap();
    assert_eq!(workload_svids(&domain).await, Vec::<Value>::new());
    eventually("issuing to go on after the trouble", async || {
        let outcome = agent.issue_one(new_csr().unwrap(), &token).await.unwrap();
        matches!(outcome, Outcome::Issued(_)).then_some(())
    })
    .await;
}

/// Covers BT-11.
#[tokio::test]
async fn a_silent_api_server_is_not_waited_for_without_end() {
    let (domain, mut agent) = domain().await;
    let token = domain.pod_token("shop", "front").unwrap();
    domain.kube.fault_at(Endpoint::TokenReviews, Fault::Hang);
    let outcome = agent.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert!(matches!(outcome, Outcome::Unavailable(_)), "{outcome:?}");
    domain.kube.clear_faults();
    domain
        .kube
        .fault_at(Endpoint::TokenReviews, Fault::slow(Duration::from_millis(300)));
    issued(
        "slow is not wrong",
        agent.issue_one(new_csr().unwrap(), &token).await.unwrap(),
    );
}
