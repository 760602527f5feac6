use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: u64 = 1_795_286_800;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn claims() -> Value {
    json!({
        "aud": ["signet:example.org:pod"], "exp": NOW + 3600, "iat": NOW, "nbf": NOW,
        "iss": "https://kubernetes.default.svc", "jti": "1f210daa",
        "kubernetes.io": {
            "namespace": "shop",
            "node": {"name": "node-a", "uid": "5696bfb4"},
            "pod": {"name": "frontend-0", "uid": "506562ff"},
            "serviceaccount": {"name": "frontend", "uid": "65ccfe29"}
        },
        "sub": "system:serviceaccount:shop:frontend"
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut all = claims();
    match path.split_once('/') {
        Some((outer, inner)) => all[outer][inner] = value,
        None => all[path] = value,
    }
    all
}

fn without(path: &str) -> Value {
    let mut all = claims();
    match path.split_once('/') {
        Some((outer, inner)) => all[outer].as_object_mut().unwrap().remove(inner),
        None => all.as_object_mut().unwrap().remove(path),
    };
    all
}

fn judge(claims: &Value) -> Result<KubernetesClaims, ClaimsError> {
    let issuers = ["https://kubernetes.default.svc".to_owned()];
    let policy = ClaimsPolicy {
        issuers: &issuers,
        audience: "signet:example.org:pod",
        clock_skew: Duration::from_secs(120),
        max_lifetime: Duration::from_secs(86_400),
    };
    let parsed = KubernetesClaims::parse(claims.to_string().as_bytes())?;
    parsed.check(&policy, at(NOW)).map(|()| parsed)
}

/// A real claims set of Kubernetes 1.36 reads back field by field.
#[test]
fn claims_of_a_real_token_are_read() {
    let parsed = judge(&claims()).unwrap();
    assert_eq!(parsed.audiences, ["signet:example.org:pod"]);
    assert_eq!(parsed.expires, at(NOW + 3600));
    assert_eq!((parsed.issued_at, parsed.not_before), (at(NOW), Some(at(NOW))));
    assert_eq!(parsed.token_id, "1f210daa");
    assert_eq!(
        (parsed.namespace.as_str(), parsed.service_account.name.as_str()),
        ("shop", "frontend")
    );
    assert_eq!(parsed.pod.unwrap().uid, "506562ff");
    assert_eq!(parsed.node.unwrap().name, "node-a");
}

/// Ours among others is refused too: a token for two roles or two services proves too little.
///
/// Covers BT-05.
#[test]
fn the_audience_must_be_ours_alone() {
    let ours = "signet:example.org:pod";
    let missing = Err(ClaimsError::Audience(ours.into()));
    assert_eq!(judge(&without("aud")).map(drop), missing);
    assert_eq!(judge(&with("aud", json!([]))).map(drop), missing);
    assert_eq!(judge(&with("aud", json!(["other"]))).map(drop), missing);
    assert_eq!(
        judge(&with("aud", json!(["SIGNET:example.org:pod"]))).map(drop),
        missing
    );
    assert_eq!(
        judge(&with("aud", json!(["signet:example.org:node"]))).map(drop),
        missing
    );
    assert_eq!(
        judge(&with("aud", json!([ours, "other"]))).map(drop),
        Err(ClaimsError::SeveralAudiences(ours.into()))
    );
    assert!(judge(&with("aud", json!(ours))).is_ok());
    assert!(matches!(
        judge(&with("aud", json!(5))),
        Err(ClaimsError::Malformed(_))
    ));
}

/// Covers BT-06.
#[test]
fn times_out_of_bounds_are_refused() {
    for end in [NOW, 0] {
        assert!(matches!(
            judge(&with("exp", json!(end))),
            Err(ClaimsError::Expired(dates)) if dates.not_after == at(end) && dates.now == at(NOW)
        ));
    }
    for begin in ["nbf", "iat"] {
        assert!(matches!(
            judge(&with(begin, json!(NOW + 121))),
            Err(ClaimsError::NotYetValid(dates)) if dates.not_before == at(NOW + 121) && dates.now == at(NOW)
        ));
    }
    assert!(judge(&with("nbf", json!(NOW + 120))).is_ok());
    assert!(judge(&without("nbf")).is_ok());
    assert_eq!(
        judge(&with("exp", json!(NOW + 86_401))).map(drop),
        Err(ClaimsError::LivesTooLong(86_400))
    );
    assert_eq!(
        judge(&with("exp", json!(253_402_300_799_u64))).map(drop),
        Err(ClaimsError::LivesTooLong(86_400))
    );
    for odd in [
        json!(253_402_300_800_u64),
        json!(-1),
        json!(1.5),
        json!("1795286800"),
        Value::Null,
    ] {
        assert!(matches!(judge(&with("exp", odd)), Err(ClaimsError::Malformed(_))));
    }
}

/// Covers BT-08.
#[test]
fn tokens_without_a_pod_are_refused() {
    assert_eq!(
        judge(&without("kubernetes.io/pod")).map(drop),
        Err(ClaimsError::NotPodBound)
    );
    assert_eq!(
        judge(&without("kubernetes.io/node")).map(drop),
        Err(ClaimsError::NoNode)
    );
    let secret = with("kubernetes.io/secret", json!({"name": "s", "uid": "u"}));
    assert_eq!(judge(&secret).map(drop), Err(ClaimsError::NotPodBound));
    let legacy = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:shop:frontend",
        "kubernetes.io/serviceaccount/namespace": "shop", "kubernetes.io/serviceaccount/secret.name": "s"
    });
    assert_eq!(judge(&legacy).map(drop), Err(ClaimsError::Legacy));
}

/// Covers BT-04.
#[test]
fn another_issuer_is_refused() {
    let foreign = with("iss", json!("https://kubernetes.default.svc/"));
    assert_eq!(
        judge(&foreign).map(drop),
        Err(ClaimsError::Issuer("https://kubernetes.default.svc/".into()))
    );
}

#[test]
fn claims_that_contradict_themselves_are_refused() {
    for odd in [
        with("sub", json!("system:serviceaccount:other:frontend")),
        with("sub", json!("system:node:node-a")),
        with("jti", json!("")),
        with("jti", json!("a\u{0}b")),
        with("jti", json!("j".repeat(1025))),
        without("jti"),
        without("iat"),
        without("kubernetes.io"),
        with("kubernetes.io/pod", json!({"name": "frontend-0"})),
        json!([]),
    ] {
        assert!(matches!(judge(&odd), Err(ClaimsError::Malformed(_))), "{odd}");
    }
    assert!(matches!(
        KubernetesClaims::parse(br#"{"iss":"a","iss":"a"}"#),
        Err(ClaimsError::Malformed(_))
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = KubernetesClaims::parse(&payload);
    }
}
