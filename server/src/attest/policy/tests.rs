use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use proptest::prelude::*;
use serde_json::{Value, json};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_testkit::kube::{recording, review_status, reviewed_claims};

use super::*;
use crate::kubernetes::pods::pod_from_json;

const NODE_UID: &str = "5696bfb4-9d17-420e-b998-f181f49c9153";
const CLUSTER: ClusterRef<'_> = ClusterRef {
    name: "prod",
    uid: "cluster-uid",
};

fn claims() -> KubernetesClaims {
    KubernetesClaims::parse(&reviewed_claims("tokenreview-ok")).unwrap()
}

fn read(status: Value) -> Result<ReviewedToken, RefusedReason> {
    let status: TokenReviewStatus = serde_json::from_value(status).unwrap();
    read_review(&status, "signet", &claims())
}

fn read_changed(change: impl FnOnce(&mut Value)) -> Result<ReviewedToken, RefusedReason> {
    let mut status = review_status("tokenreview-ok");
    change(&mut status);
    read(status)
}

fn reviewed() -> ReviewedToken {
    read(review_status("tokenreview-ok")).unwrap()
}

fn live() -> LivePod {
    pod_from_json(&recording("pod-get")["response"].to_string())
}

fn agent() -> AgentIdentity {
    let domain = TrustDomain::parse("example.org").unwrap();
    AgentIdentity {
        spiffe_id: SpiffeId::agent(&domain, "prod", NODE_UID).unwrap(),
        cluster: "prod".into(),
        node_name: "node-a".into(),
        node_uid: NODE_UID.into(),
    }
}

fn not_authenticated(result: Result<ReviewedToken, RefusedReason>) -> String {
    match result {
        Err(RefusedReason::NotAuthenticated { error }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_positive_review_says_what_the_token_says() {
    let claims = KubernetesClaims::parse(&reviewed_claims("tokenreview-ok")).unwrap();
    assert_eq!(ReviewedToken::of_claims(&claims), Some(reviewed()));
    let unbound = KubernetesClaims::parse(&reviewed_claims("tokenreview-not-pod-bound")).unwrap();
    assert_eq!(ReviewedToken::of_claims(&unbound), None);
}

#[test]
fn a_recorded_positive_review_is_read() {
    let token = reviewed();
    assert_eq!(
        (token.namespace.as_str(), token.service_account.as_str()),
        ("shop", "frontend")
    );
    assert_eq!(
        (token.pod_name.as_str(), token.node_name.as_str()),
        ("frontend-0", "node-a")
    );
    assert_eq!(token.pod_uid, "506562ff-0461-4848-8336-02ca6bd16c4d");
    assert_eq!(token.node_uid, NODE_UID);
    assert_eq!(token.jti, "1f210daa-ab3e-44f5-ac73-63b942f0e78b");
    // Asked for two audiences, the API server names the one that matched.
    assert!(read(review_status("tokenreview-two-audiences")).is_ok());
}

/// Kubernetes answers 201 and leaves `authenticated` out.
///
/// Covers BT-05, BT-07, BT-09.
#[test]
fn recorded_refusals_keep_the_api_servers_reason() {
    let cases = [
        ("tokenreview-garbage", "invalid bearer token"),
        (
            "tokenreview-wrong-audience",
            "is invalid for the target audiences",
        ),
        (
            "tokenreview-no-audience-asked",
            "is invalid for the target audiences",
        ),
        ("tokenreview-tampered", "cryptographic primitive"),
        ("tokenreview-pod-deleted-after-10s", "has been invalidated"),
        (
            "tokenreview-pod-recreated-same-name",
            "does not match service account pod ref claim (506562ff-0461-4848-8336-02ca6bd16c4d)",
        ),
    ];
    for (name, expected) in cases {
        let error = not_authenticated(read(review_status(name)));
        assert!(error.contains(expected), "{error}");
    }
}

/// Covers BT-08.
#[test]
fn a_recorded_token_without_a_pod_is_refused() {
    assert_eq!(
        read(review_status("tokenreview-not-pod-bound")),
        Err(RefusedReason::NotBound { extra: "pod-name" })
    );
}

#[test]
fn authenticated_must_be_true() {
    for value in [json!(false), Value::Null] {
        not_authenticated(read_changed(|status| status["authenticated"] = value));
    }
    assert_eq!(not_authenticated(read(json!({}))), "no reason given");
}

/// Covers BT-05.
#[test]
fn our_audience_must_be_confirmed() {
    for audiences in [
        json!([]),
        Value::Null,
        json!(["other"]),
        json!(["SIGNET"]),
        json!(["signet "]),
    ] {
        let refused = read_changed(|status| status["audiences"] = audiences);
        assert_eq!(
            refused,
            Err(RefusedReason::AudienceNotConfirmed {
                audience: "signet".into()
            })
        );
    }
}

#[test]
fn only_service_accounts_pass() {
    for name in [
        "system:node:node-a",
        "admin",
        "",
        "system:serviceaccount:shop",
        "system:serviceaccount::frontend",
        "system:serviceaccount:shop:",
        "system:serviceaccount:shop:frontend:x",
    ] {
        let refused = read_changed(|status| status["user"]["username"] = json!(name));
        assert_eq!(refused, Err(RefusedReason::NotServiceAccount), "{name}");
    }
    assert_eq!(
        read_changed(|status| status["user"] = Value::Null),
        Err(RefusedReason::NotServiceAccount)
    );
}

/// Covers BT-08.
#[test]
fn every_binding_must_be_there_exactly_once() {
    for extra in ["pod-name", "pod-uid", "node-name", "node-uid"] {
        let key = format!("authentication.kubernetes.io/{extra}");
        for value in [json!([]), json!([""])] {
            let refused = read_changed(|status| status["user"]["extra"][&key] = value);
            assert_eq!(refused, Err(RefusedReason::NotBound { extra }));
        }
        let removed = read_changed(|status| {
            status["user"]["extra"].as_object_mut().unwrap().remove(&key);
        });
        assert_eq!(removed, Err(RefusedReason::NotBound { extra }));
        let doubled = read_changed(|status| {
            let first = status["user"]["extra"][&key][0].clone();
            status["user"]["extra"][&key] = json!([first, first]);
        });
        assert_eq!(doubled, Err(RefusedReason::AmbiguousBinding { extra }));
    }
}

#[test]
fn token_and_review_must_tell_the_same_story() {
    let extra = |name: &str, value: &str| {
        let (key, value) = (format!("authentication.kubernetes.io/{name}"), json!([value]));
        read_changed(move |status| status["user"]["extra"][&key] = value)
    };
    for refused in [
        extra("pod-name", "frontend-1"),
        extra("pod-uid", "another"),
        extra("node-name", "node-b"),
        extra("node-uid", "another"),
        extra("credential-id", "JTI=another"),
        read_changed(|status| status["user"]["username"] = json!("system:serviceaccount:other:frontend")),
        read_changed(|status| status["user"]["username"] = json!("system:serviceaccount:shop:backend")),
        read_changed(|status| status["user"]["uid"] = json!("another")),
    ] {
        assert!(
            matches!(refused, Err(RefusedReason::Contradiction(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_recorded_live_pod_is_read() {
    let pod = live();
    assert_eq!((&*pod.namespace, &*pod.name), ("shop", "frontend-0"));
    assert_eq!((&*pod.service_account, &*pod.node_name), ("frontend", "node-a"));
    assert_eq!(pod.phase, PodPhase::Pending);
    assert_eq!(pod.labels.get("app").map(String::as_str), Some("frontend"));
    assert!(!pod.terminating);
}

#[test]
fn a_live_pod_on_the_agents_node_is_proven() {
    let pod = judge_pod(CLUSTER, &reviewed(), &live(), &agent()).unwrap();
    assert_eq!(
        (pod.cluster.as_str(), pod.cluster_uid.as_str()),
        ("prod", "cluster-uid")
    );
    assert_eq!(pod.pod_uid, "506562ff-0461-4848-8336-02ca6bd16c4d");
    assert_eq!(pod.expires, claims().expires);
    assert_eq!(pod.labels, live().labels);
}

/// Covers BT-09.
#[test]
fn a_live_pod_that_differs_is_refused() {
    let pod = "shop/frontend-0".to_owned();
    let judge = |change: fn(&mut LivePod)| {
        let mut live = live();
        change(&mut live);
        judge_pod(CLUSTER, &reviewed(), &live, &agent()).map(drop)
    };
    type Case = (fn(&mut LivePod), RefusedReason);
    let cases: [Case; 7] = [
        (
            |live| live.uid = "another".into(),
            RefusedReason::PodReplaced { pod: pod.clone() },
        ),
        (
            |live| live.service_account = "root".into(),
            RefusedReason::OtherServiceAccount { pod: pod.clone() },
        ),
        (
            |live| live.node_name = "node-b".into(),
            RefusedReason::PodElsewhere {
                pod: pod.clone(),
                node: "node-a".into(),
            },
        ),
        (
            |live| live.node_name = "".into(),
            RefusedReason::PodElsewhere {
                pod: pod.clone(),
                node: "node-a".into(),
            },
        ),
        (
            |live| live.phase = PodPhase::Failed,
            RefusedReason::PodFinished { pod: pod.clone() },
        ),
        (
            |live| live.phase = PodPhase::Succeeded,
            RefusedReason::PodFinished { pod: pod.clone() },
        ),
        (
            |live| live.namespace = "other".into(),
            RefusedReason::Contradiction("the live pod has another name"),
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(judge(change), Err(expected));
    }
    for phase in [PodPhase::Pending, PodPhase::Running, PodPhase::Unknown] {
        let live = LivePod { phase, ..live() };
        assert!(judge_pod(CLUSTER, &reviewed(), &live, &agent()).is_ok());
    }
}

#[test]
fn a_terminating_pod_is_accepted_and_flagged() {
    let live = LivePod {
        terminating: true,
        ..live()
    };
    assert!(
        judge_pod(CLUSTER, &reviewed(), &live, &agent())
            .unwrap()
            .terminating
    );
}

/// Covers BT-10, INV-12.
#[test]
fn a_pod_of_another_node_or_cluster_is_refused() {
    let changes: [fn(&mut AgentIdentity); 3] = [
        |agent| agent.node_uid = "another".into(),
        |agent| agent.node_name = "node-b".into(),
        |agent| agent.cluster = "test".into(),
    ];
    for change in changes {
        let mut agent = agent();
        change(&mut agent);
        let refused = judge_pod(CLUSTER, &reviewed(), &live(), &agent);
        assert!(
            matches!(refused, Err(RefusedReason::OtherNode { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_node_is_proven_only_by_an_allowed_service_account() {
    let allowed = [ServiceAccountName {
        namespace: "shop".into(),
        name: "frontend".into(),
    }];
    let node = judge_node(CLUSTER, &reviewed(), &live(), Some(NODE_UID), &allowed).unwrap();
    assert_eq!(
        (node.node_name.as_str(), node.node_uid.as_str()),
        ("node-a", NODE_UID)
    );
    assert_eq!(node.jti, claims().token_id);
    for (namespace, name) in [("shop", "backend"), ("other", "frontend"), ("shop", "front")] {
        let allowed = [ServiceAccountName {
            namespace: namespace.into(),
            name: name.into(),
        }];
        assert_eq!(
            judge_node(CLUSTER, &reviewed(), &live(), Some(NODE_UID), &allowed),
            Err(RefusedReason::AgentNotAllowed {
                service_account: "shop:frontend".into()
            })
        );
    }
    assert!(judge_node(CLUSTER, &reviewed(), &live(), Some(NODE_UID), &[]).is_err());
}

/// Covers BT-09.
#[test]
fn a_node_that_is_gone_or_made_anew_is_refused() {
    let allowed = [ServiceAccountName {
        namespace: "shop".into(),
        name: "frontend".into(),
    }];
    let judge = |uid| judge_node(CLUSTER, &reviewed(), &live(), uid, &allowed);
    assert_eq!(
        judge(None),
        Err(RefusedReason::NodeGone {
            node: "node-a".into()
        })
    );
    assert_eq!(
        judge(Some("another")),
        Err(RefusedReason::NodeReplaced {
            node: "node-a".into()
        })
    );
}

/// Covers INV-13.
#[test]
fn foreign_text_never_carries_a_token() {
    let token = "eyJhbGciOiJSUzI1NiJ9".repeat(20);
    let status = json!({ "error": format!("cannot parse {token}: \u{7}bad\nline"), "user": {} });
    let error = not_authenticated(read(status));
    assert_eq!(error, "cannot parse …: ?bad line");
    let long = json!({ "error": "word ".repeat(1000), "user": {} });
    assert!(not_authenticated(read(long)).chars().count() <= 301);
}

#[test]
fn every_reason_has_a_label() {
    let reasons = [
        RefusedReason::NotServiceAccount,
        RefusedReason::PodGone { pod: "a/b".into() },
        RefusedReason::Claims(crate::kubernetes::claims::ClaimsError::NotPodBound),
        RefusedReason::Token(signet_certs::jws::JwsError::UnknownKey),
    ];
    for reason in reasons {
        assert!(
            reason
                .label()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_')
        );
    }
}

proptest! {
    /// Whatever one field of the live pod or the agent becomes, only the honest combination is proven.
    ///
    /// Covers INV-12.
    #[test]
    fn nothing_but_the_honest_combination_is_proven(
        uid in "[a-z]{1,3}", account in "[a-z]{1,3}", node in "[a-z]{1,3}", node_uid in "[a-z]{1,3}",
        honest in prop::array::uniform4(any::<bool>()),
    ) {
        let (mut live, mut agent) = (live(), agent());
        if !honest[0] { live.uid = uid.into(); }
        if !honest[1] { live.service_account = account.into(); }
        if !honest[2] { live.node_name = node.into(); }
        if !honest[3] { agent.node_uid = node_uid; }
        let proven = judge_pod(CLUSTER, &reviewed(), &live, &agent).is_ok();
        prop_assert_eq!(proven, honest.iter().all(|field| *field));
    }
}
