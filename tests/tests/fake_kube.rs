//! The fake Kubernetes API against what a real one was recorded to answer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::time::Duration;

use hyper::{
    Method, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER},
};
use serde_json::{Value, json};
use signet_testkit::{HOUR, kube::recording};
use signet_tests::{
    fake_kube::{Endpoint, FakeKube, FakeKubeConfig, Fault, FaultRule, PodSpec, rsa_key_by_openssl},
    http,
};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

async fn fake() -> FakeKube {
    FakeKube::start(FakeKubeConfig::default()).await.unwrap()
}

fn frontend() -> PodSpec {
    PodSpec::new("shop", "frontend-0").service_account("frontend")
}

/// A fake with the pod of the recordings, and a token of it.
async fn fake_with_frontend() -> (FakeKube, String) {
    let fake = fake().await;
    fake.add_pod(&frontend()).unwrap();
    let token = fake.token("shop", "frontend-0", "signet", HOUR).unwrap();
    (fake, token)
}

async fn review(fake: &FakeKube, token: &str, audiences: &[&str]) -> http::Answer {
    let mut spec = json!({ "token": token });
    if !audiences.is_empty() {
        spec["audiences"] = json!(audiences);
    }
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec });
    http::post(&format!("{}{REVIEWS}", fake.url()), &body)
        .await
        .unwrap()
}

/// The same members everywhere, and the same values but for UIDs, tokens and who sent the request when.
fn assert_as_recorded(name: &str, answer: &http::Answer) {
    let recorded = recording(name);
    assert_eq!(json!(answer.status.as_u16()), recorded["status"], "{name}");
    let mut expected = recorded["response"].clone();
    if let Some(metadata) = expected["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let answered = answer.json().unwrap();
    assert_eq!(masked(&answered), masked(&expected), "{name}");
}

/// Replaces what differs from run to run by its kind.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let value = if name == "token" {
                    json!("TOKEN")
                } else {
                    masked(value)
                };
                (name.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::String(text) => Value::String(mask_uuids(text)),
        other => other.clone(),
    }
}

fn mask_uuids(text: &str) -> String {
    let is_uuid = |word: &str| word.len() == 36 && word.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    text.split_inclusive(['=', '(', ')', ' '])
        .map(|word| {
            let bare = word.trim_end_matches(['=', '(', ')', ' ']);
            if is_uuid(bare) {
                word.replace(bare, "UUID")
            } else {
                word.to_owned()
            }
        })
        .collect()
}

/// The same characters but one, in the middle of the signature.
fn tampered(token: &str) -> String {
    let at = token.len() - 20;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

/// What the API server says of good and bad tokens is what the issuer's verdicts rest on.
/// Covers BT-05, BT-08.
#[tokio::test]
async fn token_reviews_are_answered_as_recorded() {
    let (fake, token) = fake_with_frontend().await;
    let unbound = fake.token_unbound("shop", "frontend", "signet", HOUR).unwrap();
    let cases: [(&str, &str, &[&str]); 8] = [
        ("tokenreview-ok", &token, &["signet"]),
        ("tokenreview-two-audiences", &token, &["signet", "other"]),
        ("tokenreview-not-pod-bound", &unbound, &["signet"]),
        ("tokenreview-wrong-audience", &token, &["other"]),
        ("tokenreview-no-audience-asked", &token, &[]),
        ("tokenreview-garbage", "not-a-token", &["signet"]),
        ("tokenreview-tampered", &tampered(&token), &["signet"]),
        ("tokenreview-empty", "", &["signet"]),
    ];
    for (name, token, audiences) in cases {
        assert_as_recorded(name, &review(&fake, token, audiences).await);
    }
}

/// Covers BT-09.
#[tokio::test]
async fn a_deleted_pods_token_is_accepted_until_the_cached_review_expires() {
    let (fake, token) = fake_with_frontend().await;
    let accepted = review(&fake, &token, &["signet"]).await;
    assert_as_recorded("tokenreview-ok", &accepted);
    fake.delete_pod("shop", "frontend-0").unwrap();
    let still = review(&fake, &token, &["signet"]).await;
    assert_as_recorded("tokenreview-pod-deleted", &still);
    fake.expire_reviews();
    let refused = review(&fake, &token, &["signet"]).await;
    assert_as_recorded("tokenreview-pod-deleted-after-10s", &refused);
    let recreated = fake.add_pod(&frontend()).unwrap();
    let refused = review(&fake, &token, &["signet"]).await;
    assert_as_recorded("tokenreview-pod-recreated-same-name", &refused);
    assert!(refused.json().unwrap().to_string().contains(&recreated));
}

/// Covers BT-06.
#[tokio::test]
async fn times_and_accounts_of_a_token_are_checked() {
    let (fake, _) = fake_with_frontend().await;
    let good = fake.claims("shop", "frontend-0", "signet", HOUR).unwrap();
    let mut cases = Vec::new();
    for (claim, value) in [("exp", json!(1)), ("nbf", json!(99_999_999_999_i64))] {
        let mut claims = good.clone();
        claims[claim] = value;
        cases.push(claims);
    }
    for claims in cases {
        let token = fake.sign(&Default::default(), &claims).unwrap();
        let answer = review(&fake, &token, &["signet"]).await.json().unwrap();
        assert!(answer["status"].get("authenticated").is_none(), "{answer}");
    }
    let token = fake.sign(&Default::default(), &good).unwrap();
    fake.delete_service_account("shop", "frontend").unwrap();
    let answer = review(&fake, &token, &["signet"]).await.json().unwrap();
    assert!(answer["status"]["error"].is_string(), "{answer}");
}

#[tokio::test]
async fn callers_without_rights_are_told_so_as_recorded() {
    let (fake, _) = fake_with_frontend().await;
    let issuer = fake.issuer().to_owned();
    let account = fake.token("shop", "frontend-0", &issuer, HOUR).unwrap();
    let url = format!("{}{REVIEWS}", fake.url());
    for (name, bearer) in [
        ("tokenreview-unauthorized", "nobody"),
        ("tokenreview-forbidden", account.as_str()),
    ] {
        let authorization = format!("Bearer {bearer}");
        let headers = [(AUTHORIZATION, authorization.as_str())];
        let body = json!({ "spec": { "token": "x" } }).to_string();
        let answer = http::send(Method::POST, &url, &headers, body.into());
        assert_as_recorded(name, &answer.await.unwrap());
    }
}

#[tokio::test]
async fn a_token_request_is_answered_as_recorded() {
    let (fake, _) = fake_with_frontend().await;
    let recorded = recording("tokenrequest-pod-bound");
    let uid = fake.pod("shop", "frontend-0").unwrap()["metadata"]["uid"].clone();
    let mut body = recorded["request"]["body"].clone();
    body["spec"]["boundObjectRef"]["uid"] = uid.clone();
    let path = recorded["request"]["path"].as_str().unwrap();
    let url = format!("{}{path}", fake.url());
    let answer = http::post(&url, &body).await.unwrap();
    assert_eq!(json!(answer.status.as_u16()), recorded["status"]);
    let answered = answer.json().unwrap();
    let token = answered["status"]["token"].as_str().unwrap();
    let review = review(&fake, token, &["signet"]).await.json().unwrap();
    let extra = &review["status"]["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"][0], uid);

    body["spec"]["boundObjectRef"]["uid"] = json!("405b449e-5130-4afb-a659-e90a06a636d8");
    let answer = http::post(&url, &body).await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_pod_looks_as_recorded() {
    let fake = fake().await;
    fake.add_pod(&frontend().label("app", "frontend")).unwrap();
    let url = format!("{}/api/v1/namespaces/shop/pods/frontend-0", fake.url());
    let pod = http::get(&url).await.unwrap().json().unwrap();
    let recorded = recording("pod-get")["response"].clone();
    for pointer in [
        "/kind",
        "/apiVersion",
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/labels",
        "/spec/serviceAccountName",
        "/spec/nodeName",
        "/spec/terminationGracePeriodSeconds",
        "/status/qosClass",
    ] {
        assert_eq!(pod.pointer(pointer), recorded.pointer(pointer), "{pointer}");
    }
    for pointer in ["/metadata/uid", "/metadata/resourceVersion"] {
        assert!(pod.pointer(pointer).unwrap().is_string(), "{pointer}");
    }
}

mod needs_openssl {
    use super::*;

    #[tokio::test]
    #[ignore = "needs the program openssl: `.ci/step machine` runs it"]
    async fn tokens_can_be_signed_with_rs256() {
        let directory = signet_testkit::folder();
        let config = FakeKubeConfig {
            rsa_key: Some(rsa_key_by_openssl(directory.path()).unwrap()),
            ..FakeKubeConfig::default()
        };
        let fake = FakeKube::start(config).await.unwrap();
        fake.add_pod(&frontend()).unwrap();
        let token = fake.token("shop", "frontend-0", "signet", HOUR).unwrap();
        assert_as_recorded("tokenreview-ok", &review(&fake, &token, &["signet"]).await);
        let changed = review(&fake, &tampered(&token), &["signet"]).await;
        assert_as_recorded("tokenreview-tampered", &changed);
        assert_eq!(fake.jwks()["keys"][0]["kty"], "RSA");
    }
}

#[tokio::test]
async fn faults_come_and_go_and_every_call_is_counted() {
    let (fake, token) = fake_with_frontend().await;
    for (fault, code) in [
        (Fault::Unauthorized, 401),
        (Fault::Forbidden, 403),
        (
            Fault::TooManyRequests {
                retry_after_seconds: 7,
            },
            429,
        ),
        (Fault::InternalError, 500),
        (Fault::Gone, 410),
        (Fault::junk(), 201),
    ] {
        fake.fault(FaultRule {
            endpoint: Some(Endpoint::TokenReviews),
            fault: fault.clone(),
            times: Some(1),
        });
        let answer = review(&fake, &token, &["signet"]).await;
        assert_eq!(answer.status.as_u16(), code, "{fault:?}");
        if code == 429 {
            assert_eq!(answer.headers[RETRY_AFTER], "7");
        }
    }
    assert_as_recorded("tokenreview-ok", &review(&fake, &token, &["signet"]).await);
    assert_eq!(fake.calls(Endpoint::TokenReviews), 7);

    fake.fault_at(Endpoint::TokenReviews, Fault::Hang);
    let mut hanging = std::pin::pin!(review(&fake, &token, &["signet"]));
    let soon = Duration::from_millis(50);
    assert!(tokio::time::timeout(soon, &mut hanging).await.is_err());
    fake.clear_faults();
    assert_eq!(hanging.await.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn another_process_can_steer_it_even_while_connections_are_refused() {
    let fake = fake().await;
    let control = fake.control_url();
    let pod = json!({
        "namespace": "shop", "name": "frontend-0", "serviceAccount": "frontend", "node": "node-a",
    });
    let created = http::post(&format!("{}/fake/pods", fake.url()), &pod)
        .await
        .unwrap();
    let uid = created.json().unwrap()["uid"].clone();
    let order = json!({ "namespace": "shop", "pod": "frontend-0", "audience": "signet" });
    let ordered = http::post(&format!("{control}/fake/tokens"), &order)
        .await
        .unwrap();
    let token = ordered.json().unwrap()["token"].as_str().unwrap().to_owned();
    let reviewed = review(&fake, &token, &["signet"]).await.json().unwrap();
    let extra = &reviewed["status"]["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"][0], uid);

    let fault = json!({ "endpoint": "token-reviews", "fault": { "kind": "internal-error" } });
    http::post(&format!("{control}/fake/faults"), &fault)
        .await
        .unwrap();
    let failed = review(&fake, &token, &["signet"]).await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    let faults = format!("{control}/fake/faults");
    http::send(Method::DELETE, &faults, &[], Default::default())
        .await
        .unwrap();

    let refuse = format!("{control}/fake/connections/refuse");
    http::post(&refuse, &json!({})).await.unwrap();
    assert!(http::get(&format!("{}/version", fake.url())).await.is_err());
    let accept = format!("{control}/fake/connections/accept");
    http::post(&accept, &json!({})).await.unwrap();
    assert!(http::get(&format!("{}/version", fake.url())).await.is_ok());

    let pods = format!("{control}/fake/pods");
    let mistake = http::post(&pods, &json!({ "nmae": "x" })).await.unwrap();
    assert_eq!(mistake.status, StatusCode::BAD_REQUEST);
    assert!(
        mistake.json().unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("nmae")
    );
}
